"""A server's life: what it refuses to start with, whom it lets in, what it notices, how it ends."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.elfwriter import Dump as File
from tests.elfwriter import load, note
from tests.http1 import Connection, CutError
from tests.live import Live, Serve
from tests.served import QUICK, listed, only, pids, port, slow, until

FARCORED = Path(sys.executable).with_name("farcored")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("FARCORE_")}
NATIVE = ("--host-arch", "x86_64")
SIZE = 16 << 20
FILE = File([note(("CORE", 1, bytes(336))), load(b"A" * 4096, paddr=0)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "dumps").mkdir()
    return FILE.write(tmp_path / "dumps" / "vmcore")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """More than the kernel holds of a body for a client that does not read."""
    return File([load(paddr=0, offset=4096, filesz=SIZE - 4096)], size=SIZE).write(tmp_path / "large")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FARCORED, *arguments], capture_output=True, text=True, env=ENVIRONMENT, timeout=60)


@contextmanager
def started(*arguments: str | Path) -> Iterator[str]:
    """The line that says where it listens, on an address of the test's choice."""
    process = subprocess.Popen([FARCORED, "serve", *arguments], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stderr is not None
    try:
        yield process.stderr.readline()
    finally:
        process.terminate()
        process.communicate(timeout=60)


# What it refuses to start with.


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["DUMP", "--listen", "0.0.0.0:0"], "0.0.0.0:0 can be reached from other machines"),
        (["DUMP", "--listen", "[::]:0"], "can be reached from other machines"),
        (["DUMP", "--listen", "somewhere.example:0"], "can be reached from other machines"),
        (["DUMP", "--listen", "127.0.0.1"], "is not HOST:PORT"),
        (["DUMP", "--listen", "127.0.0.1:TAKEN"], "cannot listen on 127.0.0.1:TAKEN: Address already in use"),
        (["DUMP", "--token-file", "DUMP.tokens"], "there is no such token file; `farcored token add NAME` makes one"),
        (["DUMP", "--tls-cert", "DUMP"], "--tls-cert and --tls-key go together"),
        (["DUMP.gone"], "DUMP.gone: there is no such file or directory"),
        ([], "there is nothing to serve: name dump files or directories"),
    ],
)
def test_what_cannot_be_served_as_asked_is_a_sentence_and_exit_status_2(
    path: Path, arguments: list[str], sentence: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        names = {"DUMP": str(path), "TAKEN": str(taken.getsockname()[1])}

        def filled(text: str) -> str:
            return re.sub("|".join(names), lambda match: names[match[0]], text)

        done = run("serve", *map(filled, arguments))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert done.stderr.startswith("farcored: ")
        assert filled(sentence) in done.stderr


def test_another_address_is_served_with_a_token_file_or_when_insecure_was_said(path: Path, tmp_path: Path) -> None:
    run("token", "add", "alice", "--token-file", tmp_path / "tokens")
    for flags in (["--insecure"], ["--token-file", tmp_path / "tokens"]):
        with started(path, "--listen", "0.0.0.0:0", *flags) as line:
            assert re.fullmatch(r"farcored: serving 1 dump on http://0\.0\.0\.0:\d+\n", line)


def test_ipv6_is_listened_on_and_shown_with_brackets(path: Path) -> None:
    with started(path, "--listen", "[::1]:0") as line:
        found = re.fullmatch(r"farcored: serving 1 dump on (http://\[::1\]:\d+)\n", line)
        assert found
        with Connection(found[1]) as server:
            assert server.get("/v1/dumps").status == 200


def test_the_first_line_counts_what_is_served_and_what_is_refused(path: Path, serve: Serve) -> None:
    (path.parent / "vmcore-text").write_bytes(b"hello")
    (path.parent / "vmcore-2").write_bytes(path.read_bytes())
    assert "serving 2 dumps (1 refused) on http://127.0.0.1:" in serve(path.parent, *NATIVE).stderr


def test_as_many_files_as_may_be_are_opened(path: Path, serve: Serve) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = max(map(int, os.listdir("/proc/self/fd"))) + 30
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        live = serve(path, *NATIVE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # One worker or several: more connections than all of them could have had.
    connections = [Connection(live.url) for _ in range(few * len(pids(live)) + 10)]
    assert {each.get("/healthz").status for each in connections} == {200}
    for each in connections:
        each.close()


# Whom it lets in.


def test_a_token_opens_everything_until_it_is_revoked_on_the_same_connection(path: Path, tmp_path: Path, serve: Serve) -> None:
    file = tmp_path / "tokens"
    token, other = (run("token", "add", name, "--token-file", file).stdout.strip() for name in ("alice", "bob"))
    live = serve(path, *NATIVE, "--token-file", file)
    with Connection(live.url) as server, Connection(live.url) as stays:
        for target in ("/", "/v1/dumps", "/v1/dumps/x", "/v1/dumps/x/vmcore", "/metrics", "/openapi.json", "/nothing"):
            answer = server.get(target)
            assert answer.status == 401
            assert {each.split()[0] for each in (answer.get("WWW-Authenticate") or "").split(", ")[:2]} == {"Bearer", "Basic"}
        assert [server.get(each).status for each in ("/healthz", "/readyz")] == [200, 200]

        def ask(connection: Connection, credentials: str) -> int:
            return connection.get(f"{link}/vmcore", Range="bytes=0-3", Authorization=credentials).status

        basic = "Basic " + b64encode(f"anyone:{token}".encode()).decode()
        answer = server.get("/v1/dumps", Authorization=basic)
        link = f"/v1/dumps/{re.findall(r'vmcore-[0-9a-f]{8}', answer.body.decode())[0]}"
        assert [ask(server, f"Bearer {token}") for _ in range(5)] == [206] * 5
        assert [ask(stays, f"Bearer {other}") for _ in range(5)] == [206] * 5
        assert ask(server, "Bearer farcore_guess") == 401
        assert ask(server, f"Bearer {token}") == 206
        assert run("token", "revoke", "alice", "--token-file", file).returncode == 0
        assert [ask(server, f"Bearer {token}") for _ in range(3)] == [401] * 3
        assert ask(server, basic) == 401
        assert [ask(stays, f"Bearer {other}") for _ in range(5)] == [206] * 5
    assert token not in live.stderr


def test_a_token_file_that_is_damaged_lets_nobody_in_until_it_is_mended(path: Path, tmp_path: Path, serve: Serve) -> None:
    file = tmp_path / "tokens"
    token = run("token", "add", "alice", "--token-file", file).stdout.strip()
    sound = file.read_text()
    live = serve(path, *NATIVE, "--token-file", file)
    with Connection(live.url) as server:
        seen = []
        for text in (sound, sound + "garbage\n", sound):
            file.write_text(text)
            time.sleep(0.005)
            seen.append(server.get("/v1/dumps", Authorization=f"Bearer {token}").status)
    assert seen == [200, 401, 200]
    assert live.stderr.count("no token is accepted until this is mended") == 1


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:9000", 200),
        ("127.0.0.1", 200),
        ("127.9.9.9:1", 200),
        ("[::1]:8787", 200),
        ("evil.example", 421),
        ("evil.example:8787", 421),
        ("127.0.0.1.evil.example", 421),
        ("10.0.0.5", 421),
        ("", 421),
    ],
)
def test_without_tokens_only_this_machines_own_names_are_answered(everyday: Live, host: str, status: int) -> None:
    with Connection(everyday.url) as server:
        assert server.get("/v1/dumps", Host=host).status == status
        assert server.get("/healthz", Host=host).status == 200


@pytest.fixture(scope="module")
def everyday(tmp_path_factory: pytest.TempPathFactory, serve_all_along: Serve) -> Live:
    return serve_all_along(FILE.write(tmp_path_factory.mktemp("dumps") / "vmcore"), *NATIVE)


# What it notices.


def test_a_dump_that_comes_grows_is_replaced_and_goes_is_noticed_while_the_server_runs(path: Path, serve: Serve) -> None:
    live = serve(path.parent, *NATIVE, *QUICK)
    whole, new = path.read_bytes(), path.parent / "host" / "vmcore"
    new.parent.mkdir()
    new.write_bytes(whole[:1000])
    assert until(live, lambda found: "host/vmcore" in found)["host/vmcore"]["state"] == "incomplete"
    with new.open("ab") as file:
        file.write(whole[1000:])
    grown = until(live, lambda found: found["host/vmcore"]["state"] == "ready")["host/vmcore"]
    assert grown["size"] == len(whole)
    File(FILE.segments, machine=40).write(path.parent / "other").rename(new)
    refused = until(live, lambda found: found["host/vmcore"]["state"] == "refused")["host/vmcore"]
    assert (refused["id"], refused["etag"] == grown["etag"]) == (grown["id"], False)
    new.unlink()
    assert list(until(live, lambda found: "host/vmcore" not in found)) == ["vmcore"]


def test_a_directory_that_is_empty_at_first_is_served_as_it_fills(tmp_path: Path, serve: Serve) -> None:
    live = serve(tmp_path, *NATIVE, *QUICK)
    assert "serving 0 dumps" in live.stderr
    FILE.write(tmp_path / "vmcore")
    until(live, lambda found: "vmcore" in found)


# How it ends.


def refuses(where: int) -> bool:
    """Whether nobody listens there any more, within seconds: workers close the socket one after the other."""
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", where), 5).close()
        except ConnectionRefusedError:
            return True
        time.sleep(0.05)
    return False


def test_sigterm_lets_a_running_stream_end_whole_and_takes_nobody_new(large: Path, serve: Serve) -> None:
    live = serve(large, *NATIVE)
    with slow(live) as server, Connection(live.url) as idle:
        link = only(idle)["links"]["self"]
        server.ask("GET", f"{link}/vmcore")
        server.answer_head()
        first = server.read(1 << 20)
        live.process.terminate()
        assert idle.hung_up()
        assert refuses(port(live))
        assert live.process.poll() is None
        assert first + server.read(SIZE - (1 << 20)) == large.read_bytes()
        assert server.hung_up()
    assert live.process.wait(10) == 0
    assert "running streams have 30 s to end" in live.stderr


@pytest.mark.parametrize(("drain", "least", "most"), [("2", 1.9, 3.9), ("0", 0.0, 1.9)])
def test_a_stream_that_takes_longer_than_the_drain_is_cut(
    large: Path, serve: Serve, drain: str, least: float, most: float
) -> None:
    live = serve(large, *NATIVE, "--drain", drain)
    with slow(live) as server:
        server.ask("GET", f"{only(server)['links']['self']}/vmcore")
        server.answer_head()
        begun = time.monotonic()
        live.process.terminate()
        assert live.process.wait(20) == 0
        assert least <= time.monotonic() - begun < most
        with pytest.raises((EOFError, ConnectionError)):
            server.read(SIZE)


def test_a_second_sigterm_ends_at_once(large: Path) -> None:
    process = subprocess.Popen(
        [FARCORED, "serve", large, "--listen", "127.0.0.1:0", *NATIVE], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        url = process.stderr.readline().split()[-1]
        with Connection(url) as server:
            server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
            server.ask("GET", f"{only(server)['links']['self']}/vmcore")
            server.answer_head()
            process.terminate()
            assert "stopping" in process.stderr.readline()
            time.sleep(0.3)
            assert process.poll() is None
            process.terminate()
            assert process.wait(5) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("stop", [subprocess.Popen[bytes].terminate, lambda process: process.send_signal(signal.SIGINT)])
def test_an_idle_server_ends_at_once_with_0(path: Path, serve: Serve, stop: Callable[[subprocess.Popen[bytes]], None]) -> None:
    live = serve(path, *NATIVE)
    with Connection(live.url) as idle, Connection(live.url) as half:
        assert listed(idle)
        half.send(b"GET / HTTP/1.1\r\nHost: loc")
        begun = time.monotonic()
        stop(live.process)
        assert live.process.wait(10) == 0
        assert time.monotonic() - begun < 15


def test_a_request_after_sigterm_on_a_busy_connection_is_not_answered(large: Path, serve: Serve) -> None:
    live = serve(large, *NATIVE)
    with slow(live) as server:
        link = only(server)["links"]["self"]
        server.ask("GET", f"{link}/vmcore")
        server.answer_head()
        live.process.terminate()
        time.sleep(0.2)
        server.ask("GET", f"{link}/vmcore", {"Range": "bytes=0-3"})
        assert len(server.read(SIZE)) == SIZE
        with pytest.raises(CutError):
            server.answer()
    assert live.process.wait(10) == 0


def test_connections_that_come_with_sigterm_do_not_hold_it_up(path: Path, serve: Serve) -> None:
    live = serve(path, *NATIVE)
    kept: list[socket.socket] = []
    over = threading.Event()

    def knock() -> None:
        while not over.is_set():
            try:
                kept.append(socket.create_connection(("127.0.0.1", port(live)), 5))
            except OSError:
                time.sleep(0.001)

    knocking = threading.Thread(target=knock)
    knocking.start()
    try:
        while len(kept) < 50:
            time.sleep(0.01)
        live.process.terminate()
        assert live.process.wait(15) == 0
    finally:
        over.set()
        knocking.join()
        for each in kept:
            each.close()
