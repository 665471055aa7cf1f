"""farcored with several workers: none of them is missed when it dies, all obey a signal, a revoked token and a reload."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from farcore_server.lane import usable
from tests.elfwriter import Dump as File
from tests.elfwriter import load
from tests.http1 import Connection, CutError
from tests.live import STOPS_WITHIN, Live, Serve
from tests.served import only, slow

WITHIN = 20.0
NATIVE = ("--host-arch", "x86_64", "--workers", "2")
SIZE = 24 << 20
CONTENT = os.urandom(1 << 20) * (SIZE >> 20)


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    path = tmp_path / "dumps" / "vmcore"
    path.parent.mkdir()
    File([load(CONTENT, paddr=0, offset=4096)]).write(path)
    return path


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def farcored(*arguments: str | Path) -> str:
    """What ``farcored ARGUMENTS`` prints; it must end with 0."""
    command = [Path(sys.executable).with_name("farcored"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def until(holds: Callable[[], bool], live: Live) -> None:
    give_up = time.monotonic() + WITHIN
    while not holds():
        assert time.monotonic() < give_up, live.stderr
        time.sleep(0.02)


def inodes(pid: int) -> set[str]:
    """Of the sockets that a process has."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(fd))
        except FileNotFoundError:
            continue
    return {link[8:-1] for link in found if link.startswith("socket:")}


def worker_of(connection: Connection, live: Live) -> int:
    """The process that has the other end of a connection which has been answered."""
    ends = [f"0100007F:{port:04X}" for _, port in (connection.socket.getpeername(), connection.socket.getsockname())]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_, inode = line.split()[:10]
        if [local, remote] == ends and state == "01":
            (found,) = [pid for pid in live.workers if inode in inodes(pid)]
            return found
    raise AssertionError("the kernel knows of no such connection")


@contextmanager
def one_each(live: Live, connect: Callable[[Live], Connection] | None = None) -> Iterator[list[Connection]]:
    """A connection to each worker of ``live``, which has been answered on it."""
    with ExitStack() as open_ones:
        found: dict[int, Connection] = {}
        until(lambda: len(live.workers) == 2, live)
        for _ in range(50):
            connection = open_ones.enter_context(connect(live) if connect else Connection(live.url))
            connection.get("/healthz")
            found.setdefault(worker_of(connection, live), connection)
            if len(found) == 2:
                yield list(found.values())
                return
        raise AssertionError(f"50 connections, and all with {found.keys()} of {live.workers}")


def arm(connection: Connection, target: str, **fields: str) -> None:
    """Ask for ranges until the connection's lane would answer them."""
    for first in (0, 4096, 8192):
        answer = connection.get(target, Range=f"bytes={first}-{first + 4095}", **fields)
        assert (answer.status, len(answer.body)) == (206, 4096)


class Load:
    """Threads that ask for ranges, each on a connection of its own that it keeps, or a new one each time."""

    def __init__(self, live: Live, target: str, whole: bytes) -> None:
        self.live, self.target, self.whole = live, target, whole
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._over = threading.Event()
        self._names = ("kept1", "kept2", "kept3", "new1", "new2", "new3")
        self._threads = [threading.Thread(target=self._ask, args=(name,)) for name in self._names]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(WITHIN)

    def _ask(self, name: str) -> None:
        offset = 0
        connection = Connection(self.live.url)
        while not self._over.is_set():
            offset = (offset + 40_960) % (len(self.whole) - 4096)
            try:
                if name.startswith("new"):
                    connection.close()
                    connection = Connection(self.live.url)
                answer = connection.get(self.target, Range=f"bytes={offset}-{offset + 4095}")
                if (answer.status, answer.body) != (206, self.whole[offset : offset + 4096]):
                    self.failures.append(f"{name}: {answer.status}")
            except (CutError, OSError) as error:
                self.failures.append(f"{name}: {error!r}")
                connection.close()
                connection = Connection(self.live.url)
            else:
                self.answers[name] += 1
        connection.close()

    def go_on(self) -> None:
        """Return when every thread has had 20 more answers."""
        before = self.answers.copy()
        until(lambda: all(self.answers[name] >= before[name] + 20 for name in self._names), self.live)


def counted(live: Live, name: str) -> float:
    """A sample of /metrics, by its name and labels; 0 where there is none."""
    with Connection(live.url) as server:
        text = server.get("/metrics").body.decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0


def link(live: Live) -> str:
    with Connection(live.url) as server:
        return f"{only(server)['links']['self']}/vmcore"


def test_the_server_says_once_where_it_listens_and_every_worker_answers_there(dump: Path, serve: Serve) -> None:
    live = serve(dump.parent, "--host-arch", "x86_64", "--workers", "3")
    until(lambda: counted(live, "farcore_workers") == 3, live)
    assert len(live.workers) == 3
    assert live.stderr.count("farcored: serving 1 dump on http://127.0.0.1:") == 1


def test_connections_are_shared_out_evenly(dump: Path, serve: Serve) -> None:
    live = serve(dump.parent, *NATIVE)
    until(lambda: counted(live, "farcore_workers") == 2, live)
    with ExitStack() as open_ones:
        burst = [open_ones.enter_context(Connection(live.url)) for _ in range(32)]
        for connection in burst:
            connection.get("/healthz")
        shares = Counter(worker_of(connection, live) for connection in burst)
        # Without the acceptor's care one of two workers had all of a burst of 16.
        assert min(shares[pid] for pid in live.workers) >= 8, shares
        # One more is the connection that asks.
        assert counted(live, "farcore_connections") == 33


def test_a_worker_that_hangs_keeps_no_new_connection_from_the_others(dump: Path, serve: Serve) -> None:
    live = serve(dump.parent, *NATIVE)
    until(lambda: counted(live, "farcore_workers") == 2, live)
    hanging, other = live.workers
    os.kill(hanging, signal.SIGSTOP)
    try:
        with ExitStack() as open_ones:
            for _ in range(20):
                connection = open_ones.enter_context(Connection(live.url, timeout=5))
                assert connection.get("/healthz").status == 200
                assert worker_of(connection, live) == other
    finally:
        os.kill(hanging, signal.SIGCONT)


def test_metrics_are_those_of_all_workers_whichever_is_asked(dump: Path, serve: Serve) -> None:
    live = serve(dump.parent, *NATIVE)
    target = link(live)
    asked = {'route="vmcore",status="206"': 0, 'route="vmcore",status="416"': 0}
    with one_each(live) as connections:
        for i, connection in enumerate(connections):
            for first in range(25 + i):
                assert connection.get(target, Range=f"bytes={first * 10}-{first * 10 + 9999}").status == 206
                asked['route="vmcore",status="206"'] += 1
            assert connection.get(target, Range=f"bytes={SIZE * 2}-").status == 416
            asked['route="vmcore",status="416"'] += 1
        texts = [connection.get("/metrics").body.decode() for connection in connections]
    assert asked == {'route="vmcore",status="206"': 51, 'route="vmcore",status="416"': 2}
    for text in texts:
        for labels, count in asked.items():
            assert f"farcore_requests_total{{{labels}}} {count}.0\n" in text
        assert f'farcore_sent_bytes_total{{route="vmcore"}} {51 * 10_000}.0\n' in text


def test_a_killed_worker_costs_its_own_connections_alone_and_is_replaced(dump: Path, serve: Serve) -> None:
    live = serve(dump.parent, *NATIVE)
    target, whole = link(live), dump.read_bytes()
    with one_each(live) as (doomed, spared), Load(live, target, whole) as load:
        load.go_on()
        arm(spared, target)
        victim, survivor = worker_of(doomed, live), worker_of(spared, live)
        before = counted(live, 'farcore_requests_total{route="vmcore",status="206"}')
        os.kill(victim, signal.SIGKILL)
        for first in range(0, 400_000, 4096):
            assert spared.get(target, Range=f"bytes={first}-{first + 4095}").body == whole[first : first + 4096]
        assert doomed.hung_up()
        until(lambda: len(set(live.workers) - {victim}) == 2, live)
        until(lambda: counted(live, "farcore_workers") == 2, live)
        load.go_on()
        assert survivor in live.workers
        # The requests of the moment are lost, one a connection at most; no new connection is refused.
        assert len(load.failures) <= 6, load.failures
        assert counted(live, 'farcore_requests_total{route="vmcore",status="206"}') >= before + 97
        assert counted(live, "farcore_worker_ends_total") == 1
    assert f"(pid {victim}) was killed by SIGKILL; another takes its place" in live.stderr


def test_a_reload_under_load_loses_nothing_and_keeps_every_connection(dump: Path, tmp_path: Path, serve: Serve) -> None:
    config = tmp_path / "farcored.toml"
    config.write_text(f"paths = ['{dump}']\nrescan = 3600\n")
    live = serve("--config", config, *NATIVE)
    target, whole = link(live), dump.read_bytes()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "vmcore-2").write_bytes(File([load(b"x" * 4096, paddr=0)]).tobytes())
    with one_each(live, slow) as streams, one_each(live) as kept, Load(live, target, whole) as under:
        for stream in streams:
            stream.ask("GET", target)
            stream.answer_head()
        under.go_on()
        workers = live.workers
        for i in range(5):
            config.write_text(f"paths = ['{dump}'" + f", '{tmp_path / 'more'}'" * (i % 2 == 0) + "]\nrescan = 3600\n")
            live.process.send_signal(signal.SIGHUP)
            for connection in kept:
                until(lambda c=connection, n=2 - i % 2: len(json.loads(c.get("/v1/dumps").body)["dumps"]) == n, live)  # type: ignore[misc]
            under.go_on()
        assert live.workers == workers
        for stream in streams:
            assert stream.read(len(whole)) == whole
    assert under.failures == []
    assert live.stderr.count("INFO farcore_server.serve: the settings were read again") == 5


def test_what_was_granted_before_a_reload_is_asked_for_again(
    dump: Path, tmp_path: Path, token_file: Path, serve: Serve
) -> None:
    token = farcored("token", "add", "me", "--token-file", token_file)
    config = tmp_path / "farcored.toml"
    config.write_text(f"paths = ['{dump}']\n")
    live = serve("--config", config, *NATIVE)
    target = link(live)
    with one_each(live) as connections:
        for connection in connections:
            arm(connection, target)
        config.write_text(f"paths = ['{dump}']\ntoken_file = '{token_file}'\n")
        live.process.send_signal(signal.SIGHUP)
        for connection in connections:
            # Nothing but the range differs from what was granted.
            until(lambda c=connection: c.get(target, Range="bytes=4096-8191").status == 401, live)  # type: ignore[misc]
            assert connection.get(target, Range="bytes=0-9", Authorization=f"Bearer {token}").status == 206


UNUSABLE = {
    "paths = 1": "paths must be a list",
    "paths = []": "there is nothing to serve",
    "paths = ['/no/such/place']": "/no/such/place: there is no such file or directory",
    "paths = ['{dump}']\ntoken_file = '/no/such/tokens'": "/no/such/tokens: there is no such token file",
    "paths = ['{dump}']\ntls_cert = '/no/c'\ntls_key = '/no/k'": "/no/c: this file for TLS cannot be read",
}


def test_settings_that_cannot_be_used_change_nothing(dump: Path, tmp_path: Path, serve: Serve) -> None:
    config = tmp_path / "farcored.toml"
    config.write_text(f"paths = ['{dump}']\n")
    live = serve("--config", config, *NATIVE)
    target = link(live)
    with one_each(live) as connections:
        workers = live.workers
        for i, (text, why) in enumerate(UNUSABLE.items(), 1):
            config.write_text(text.format(dump=dump))
            live.process.send_signal(signal.SIGHUP)
            until(lambda n=i: live.stderr.count("ERROR farcore_server.serve: the settings stay as they were: ") == n, live)  # type: ignore[misc]
            assert why in live.stderr
            assert [connection.get(target, Range="bytes=0-9").status for connection in connections] == [206, 206]
        assert live.workers == workers
        # Nor do they matter for a worker that is started now.
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: len(set(live.workers) - {workers[0]}) == 2, live)
        until(lambda: counted(live, "farcore_workers") == 2, live)
    with one_each(live) as connections:
        assert [connection.get(target, Range="bytes=0-9").status for connection in connections] == [206, 206]


def test_where_it_listens_and_how_many_workers_it_has_do_not_change_by_a_reload(
    dump: Path, tmp_path: Path, serve: Serve
) -> None:
    config = tmp_path / "farcored.toml"
    config.write_text(f"paths = ['{dump}']\nworkers = 2\n")
    live = serve("--config", config, "--host-arch", "x86_64")
    until(lambda: counted(live, "farcore_workers") == 2, live)
    config.write_text(f"paths = ['{dump}']\nworkers = 1\n")
    live.process.send_signal(signal.SIGHUP)
    until(lambda: "the settings were read again" in live.stderr, live)
    assert "WARNING farcore_server.serve: listen and workers change only when farcored is started again" in live.stderr
    assert len(live.workers) == 2


def test_a_revoked_token_is_refused_by_every_worker_at_its_next_request(dump: Path, token_file: Path, serve: Serve) -> None:
    bearer = f"Bearer {farcored('token', 'add', 'me', '--token-file', token_file)}"
    other = f"Bearer {farcored('token', 'add', 'other', '--token-file', token_file)}"
    live = serve(dump, *NATIVE, "--token-file", token_file)
    with Connection(live.url) as server:
        (found,) = json.loads(server.get("/v1/dumps", Authorization=bearer).body)["dumps"]
    target = f"{found['links']['self']}/vmcore"
    with one_each(live) as connections:
        for connection in connections:
            arm(connection, target, Authorization=bearer)
        farcored("token", "revoke", "me", "--token-file", token_file)
        for connection in connections:
            assert connection.get(target, Range="bytes=4096-8191", Authorization=bearer).status == 401
            assert connection.get(target, Range="bytes=4096-8191", Authorization=other).status == 206


@contextmanager
def running(*arguments: str | Path, log: Path) -> Iterator[Live]:
    """A server that the body ends, in whatever way."""
    with log.open("wb") as output:
        command = [Path(sys.executable).with_name("farcored"), "serve", *arguments, "--listen", "127.0.0.1:0"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    live = Live("", process, log)
    try:
        until(lambda: "farcored: serving " in live.stderr, live)
        (url,) = re.findall(r"farcored: serving .* on (\S+)\n", live.stderr)
        yield Live(url, process, log)
    finally:
        process.kill()
        process.wait(WITHIN)
        sys.stderr.write(live.stderr)


def refused(url: str) -> bool:
    to = urlsplit(url)
    try:
        socket.create_connection((to.hostname, to.port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_sigterm_lets_the_streams_of_every_worker_end(dump: Path, tmp_path: Path) -> None:
    whole = dump.read_bytes()
    with running(dump, *NATIVE, log=tmp_path / "log") as live:
        target = link(live)
        with one_each(live, slow) as streams, one_each(live) as idle:
            for stream in streams:
                stream.ask("GET", target)
                stream.answer_head()
            live.process.terminate()
            until(lambda: refused(live.url), live)
            assert all(connection.hung_up() for connection in idle)
            assert [stream.read(len(whole)) == whole for stream in streams] == [True, True]
        assert live.process.wait(STOPS_WITHIN) == 0
        assert live.stderr.count("farcored: stopping; running streams have 30 s to end\n") == 1


@pytest.mark.parametrize("drain", [0, 3])
def test_a_stream_that_has_not_ended_when_its_time_is_over_is_cut(drain: int, dump: Path, tmp_path: Path) -> None:
    with running(dump, *NATIVE, "--drain", str(drain), log=tmp_path / "log") as live:
        target = link(live)
        with one_each(live, slow) as streams:
            for stream in streams:
                stream.ask("GET", target)
                stream.answer_head()
            begun = time.monotonic()
            live.process.terminate()
            assert live.process.wait(STOPS_WITHIN) == 0
            assert drain <= time.monotonic() - begun < drain + 2.5, "not once for each thing that is waited for"
            with pytest.raises((EOFError, ConnectionError)):
                streams[0].read(SIZE)
        assert "Traceback" not in live.stderr


def test_a_ctrl_c_that_all_processes_get_is_one_request_to_stop(dump: Path, tmp_path: Path) -> None:
    whole = dump.read_bytes()
    with running(dump, *NATIVE, log=tmp_path / "log") as live:
        target = link(live)
        with one_each(live, slow) as streams:
            for stream in streams:
                stream.ask("GET", target)
                stream.answer_head()
            os.killpg(live.process.pid, signal.SIGINT)
            until(lambda: refused(live.url), live)
            assert [stream.read(len(whole)) == whole for stream in streams] == [True, True]
        assert live.process.wait(STOPS_WITHIN) == 0
        assert "Traceback" not in live.stderr


def test_a_second_sigterm_ends_streams_at_once(dump: Path, tmp_path: Path) -> None:
    with running(dump, *NATIVE, log=tmp_path / "log") as live:
        target = link(live)
        with one_each(live, slow) as streams:
            for stream in streams:
                stream.ask("GET", target)
                stream.answer_head()
            workers = live.workers
            live.process.terminate()
            until(lambda: "farcored: stopping" in live.stderr, live)
            live.process.terminate()
            assert live.process.wait(10) == -signal.SIGTERM
            assert all(gone(pid) for pid in workers)


def test_workers_stop_when_their_supervisor_is_killed(dump: Path, tmp_path: Path) -> None:
    whole = dump.read_bytes()
    with running(dump, *NATIVE, log=tmp_path / "log") as live:
        target = link(live)
        workers = live.workers
        with one_each(live, slow) as streams:
            streams[0].ask("GET", target)
            streams[0].answer_head()
            live.process.kill()
            until(lambda: refused(live.url), live)
            assert streams[0].read(len(whole)) == whole, "as after SIGTERM"
        until(lambda: all(gone(pid) for pid in workers), live)


NOT_HTTP = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 the start of TLS\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
    b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nand then something else\r\n\r\n",
    b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    b"GET http://[::1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
]


def fling(live: Live) -> None:
    for raw in NOT_HTTP:
        for reset in (False, True):
            with Connection(live.url, timeout=5) as stranger:
                stranger.send(raw)
                if reset:
                    stranger.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    # aiohttp 3.8 repeats the stranger's version, and has no answer to a target that is no URL.
                    old = rb"9\.9 400|1\.1 400" if not usable() else rb"1\.0 400"
                    said = stranger.socket.recv(1 << 16)
                    assert re.match(rb"HTTP/(1\.0 400|1\.1 405|1\.1 200|%b) " % old, said) or (not usable() and not said)
    with Connection(live.url) as server:
        assert server.get("/healthz").status == 200


def test_a_stranger_who_sends_what_is_not_http_does_not_fill_the_log(dump: Path, serve: Serve) -> None:
    live = serve(dump, *NATIVE)
    fling(live)
    assert live.stderr.splitlines() == [f"farcored: serving 1 dump on {live.url}"]


def test_who_asks_for_details_gets_a_line_for_each_that_says_what_was_wrong(dump: Path, serve: Serve) -> None:
    live = serve(dump, *NATIVE, "--log-level", "debug")
    fling(live)
    lines = [line for line in live.stderr.splitlines() if "aiohttp.server" in line]
    assert 8 <= len(lines) <= 2 * len(NOT_HTTP)
    assert all(line.startswith("DEBUG aiohttp.server: ") and len(line) < 400 for line in lines)
    assert any("Invalid header token" in line for line in lines)
    assert not any("gzip" in line for line in lines), "a body that nobody wants is not inflated"
    assert "Traceback" not in live.stderr


@pytest.mark.tools
@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl")
def test_a_reload_brings_a_new_certificate_and_leaves_connections_alone(dump: Path, tmp_path: Path, serve: Serve) -> None:
    def certify(name: str) -> None:
        new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout key.pem -out cert.pem"
        subprocess.run([*new.split(), "-subj", f"/CN={name}"], check=True, capture_output=True, cwd=tmp_path)

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def connect(live: Live) -> Connection:
        connection = Connection(live.url)
        connection.socket = context.wrap_socket(connection.socket)
        return connection

    def shown(live: Live) -> bytes:
        with connect(live) as connection:
            assert isinstance(connection.socket, ssl.SSLSocket)
            certificate = connection.socket.getpeercert(binary_form=True)
            assert certificate is not None
            return certificate

    certify("before.example")
    live = serve(dump, *NATIVE, "--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem")
    with one_each(live, connect) as kept:
        assert b"before.example" in shown(live)
        certify("after.example")
        live.process.send_signal(signal.SIGHUP)
        until(lambda: all(b"after.example" in shown(live) for _ in range(8)), live)
        assert [connection.get("/healthz").status for connection in kept] == [200, 200]


def test_workers_serve_without_uvloop_as_well(dump: Path, tmp_path: Path, serve: Serve) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError('as on a machine without it')\n")
    live = serve(dump, *NATIVE, environment={"PYTHONPATH": str(tmp_path)})
    target, whole = link(live), dump.read_bytes()
    with one_each(live) as connections:
        workers = live.workers
        for connection in connections:
            assert connection.get(target).body == whole
        live.process.send_signal(signal.SIGHUP)
        until(lambda: "the settings were read again" in live.stderr, live)
        assert [connection.get(target, Range="bytes=0-9").body for connection in connections] == [whole[:10]] * 2
        assert live.workers == workers
