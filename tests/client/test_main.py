"""The command line as a whole: help, exit statuses, and what becomes of stdout."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farcore import __version__
from farcore_client.commands import COMMANDS
from tests import elfwriter
from tests.client.conftest import Farcore, Served
from tests.client.hostile import ETAG, JSON, answer, hostile
from tests.client.test_info import dump_url
from tests.live import Serve

SCRIPT = Path(sys.executable).with_name("farcore")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize(
    "name", [*(name for name in COMMANDS if name != "profile"), "profile show", "profile export", "profile import"]
)
def test_every_command_has_help_with_an_example_of_itself(farcore: Farcore, name: str) -> None:
    done = farcore(*name.split(), "--help")
    assert (done.status, done.stderr) == (0, "")
    assert re.search(rf"Examples?: farcore {name} (gdb )?http://", done.text)
    for option in ("--token-file", "--cacert", "--cert", "--key"):
        assert option in done.text


def test_help_names_every_command_and_each_is_a_file() -> None:
    done = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True, timeout=60)
    assert "Example: farcore ls http://" in done.stdout
    assert re.findall(r"^  ([a-z]+)  ", done.stdout, re.MULTILINE) == list(COMMANDS)
    files = Path(sys.modules["farcore_client.commands"].__file__ or "").parent.glob("*.py")
    assert {path.stem for path in files} == {"__init__", *COMMANDS}


def test_help_loads_no_network_no_numpy_and_no_rich() -> None:
    done = subprocess.run(
        [SCRIPT, "--help"], capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert loaded & {"farcore_client", "aiohttp", "ssl", "numpy", "rich"} == {"farcore_client"}


def test_the_version_is_the_packages(farcore: Farcore) -> None:
    assert farcore("--version").text == f"farcore, version {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing command; `farcore --help`"),
        (("nonsense",), "No such command 'nonsense'"),
        (("ls",), "Missing argument 'URL'; `farcore ls --help`"),
        (("ls", "--token", "x"), "No such option"),
        (("ls", "127.0.0.1:8787"), "127.0.0.1:8787 has no scheme: write http://127.0.0.1:8787"),
        (("info", "http://127.0.0.1:8787"), "is not the URL of a dump"),
        (("ls", "http://127.0.0.1:1", "--token-file", "/nonexistent"), "the token file cannot be read"),
        (("ls", "http://127.0.0.1:1", "--key", "k"), "--key is the key of --cert"),
        (("ls", "http://127.0.0.1:1", "--cacert", "ca"), "--cacert and --cert are for TLS"),
    ],
)
def test_wrong_usage_is_status_2_and_one_sentence(farcore: Farcore, arguments: tuple[str, ...], said: str) -> None:
    done = farcore(*arguments)
    assert (done.status, done.stdout) == (2, b"")
    assert done.stderr.startswith("farcore: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_server_that_is_not_there_is_status_1_and_one_sentence(farcore: Farcore, closed_port: int) -> None:
    done = farcore("ls", f"http://127.0.0.1:{closed_port}")
    assert (done.status, done.stdout) == (1, b"")
    assert done.stderr.startswith(f"farcore: nothing listens on 127.0.0.1:{closed_port}: check the URL")


def test_another_server_is_status_1_and_its_page_is_not_shown(farcore: Farcore) -> None:
    with hostile(lambda head: answer(b"<h1>nginx</h1>", "404 Not Found", Content_Type="text/html")) as server:
        for arguments in (["ls", server.url], ["info", f"{server.url}/v1/dumps/x"]):
            done = farcore(*arguments)
            assert (done.status, done.stdout) == (1, b"")
            assert done.stderr.endswith("404 Not Found without farcored's words; is this the URL of a farcored?\n")


def test_what_a_server_says_cannot_command_the_terminal_through_stderr(farcore: Farcore) -> None:
    said = json.dumps({"type": "/problems/\x1b[2J", "title": "x", "detail": "\x1b]0;owned\x07\nfarcore: all is well"}).encode()
    elsewhere = "http://\u202e\x9b2J/".encode().decode("latin-1")
    for script in (
        answer(said, "500 \x9b", Content_Type="application/problem+json"),
        answer(status="302 X", Location=elsewhere),
    ):
        with hostile({"GET /v1/dumps": script}) as server:
            done = farcore("ls", server.url)
        assert (done.status, len(done.stderr.splitlines())) == (1, 1)
        assert done.stderr.rstrip("\n").isprintable()


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
def test_a_server_at_an_address_of_ipv6_is_listed_read_and_pulled(
    farcore: Farcore, serve: Serve, served: Served, tmp_path: Path
) -> None:
    live = serve(served.folder / "small.elf", "--host-arch", "x86_64", listen="[::1]:0")
    assert live.url.startswith("http://[::1]:")
    url = dump_url(farcore, live.url, "small.elf")
    content, copy = (served.folder / "small.elf").read_bytes(), tmp_path / "copy"
    assert farcore("read", url, "--offset", "0", "--length", str(len(content))).stdout == content
    assert farcore("pull", url, "-o", copy).status == 0
    assert copy.read_bytes() == content


def test_a_token_is_asked_for_and_taken_from_its_file_or_the_environment(
    farcore: Farcore, serve: Serve, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests, token = tmp_path / "digests", tmp_path / "token"
    script = Path(sys.executable).with_name("farcored")
    made = subprocess.run([script, "token", "add", "me", "--token-file", digests], capture_output=True, check=True, timeout=60)
    token.write_bytes(made.stdout)
    token.chmod(0o600)
    live = serve(served.folder, "--token-file", digests)
    done = farcore("ls", live.url)
    assert (done.status, done.stdout) == (1, b"")
    assert done.stderr.startswith("farcore: the server wants a token: give --token-file FILE or set FARCORE_TOKEN")
    assert farcore("ls", live.url, "--token-file", token).status == 0
    monkeypatch.setenv("FARCORE_TOKEN", made.stdout.decode())
    assert farcore("ls", live.url).status == 0
    monkeypatch.setenv("FARCORE_TOKEN", "wrong")
    assert "does not take this token" in farcore("ls", live.url).stderr
    assert farcore("ls", live.url, "--token-file", token).status == 0


def test_on_a_terminal_each_dump_has_its_url_below_it_and_colour(served: Served) -> None:
    master, terminal = os.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    subprocess.run(
        [SCRIPT, "ls", served.url], stdout=terminal, check=True, timeout=60, env=environment | {"TERM": "xterm-256color"}
    )
    os.close(terminal)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:  # EIO: all is read
        pass
    os.close(master)
    assert b"\x1b[32mready\x1b[0m" in shown
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["NAME", "cut.elf", lines[2].strip()]
    assert lines[2].startswith(f"  {served.url}/v1/dumps/cut-elf-")
    assert lines[5].startswith("  arch: expected EM_X86_64 in ELF64, found EM_S390")
    assert len(lines) == 1 + 3 * 2 + 1


def test_stdout_that_is_closed_or_full_is_a_sentence(served: Served) -> None:
    for redirection, status, said in (
        (">&-", 2, "stdout is closed: redirect it"),
        (">/dev/full", 1, "the output cannot be written: No space left on device"),
    ):
        done = subprocess.run(
            ["sh", "-c", f"{SCRIPT} ls {served.url} {redirection}"], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, len(done.stderr.splitlines())) == (status, 1)
        assert said in done.stderr


def test_a_name_that_the_terminal_cannot_write_is_escaped(tmp_path: Path, serve: Serve) -> None:
    elfwriter.Dump([elfwriter.load(b"x", paddr=0)]).write(tmp_path / "café.elf")
    live = serve(tmp_path, "--host-arch", "x86_64")
    done = subprocess.run(
        [SCRIPT, "ls", live.url], capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "caf\\xe9.elf" in done.stdout


@pytest.mark.parametrize("waiting_for", ["the server", "the reader"])
def test_ctrl_c_ends_it_with_130_wherever_it_waits(waiting_for: str, tmp_path: Path) -> None:
    body = bytes(1 << 20)
    ranged = answer(body, "206 Partial Content", ETag=ETAG, Content_Range=f"bytes 0-{len(body) - 1}/{len(body)}")
    script = {
        "HEAD /v1/dumps/x/vmcore": answer(ETag=ETAG, Content_Length=str(len(body))),
        "GET /v1/dumps/x/vmcore": None if waiting_for == "the server" else ranged,
    }
    with hostile(script) as server:
        command: list[str | Path] = [SCRIPT, "read", f"{server.url}/v1/dumps/x", "--offset", "0", "--length", str(len(body))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        give_up = time.monotonic() + 60
        while len(server.asked) < 2 and time.monotonic() < give_up:
            time.sleep(0.02)
        time.sleep(0.5)  # until the pipe, which nobody reads, is full
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        assert process.stderr.read().strip() == "farcore: interrupted"
        process.communicate()


@pytest.mark.parametrize("buffered", ["", "1"])
def test_json_goes_through_a_pipe_whole_and_a_reader_that_leaves_is_no_complaint(buffered: str) -> None:
    text = json.dumps({"text": "x" * 3_000_000})
    environment = os.environ | {"PYTHONUNBUFFERED": buffered}
    with hostile({"GET /v1/dumps/x": answer(text.encode(), Content_Type=JSON)}) as server:
        command = f"{SCRIPT} info --json {server.url}/v1/dumps/x"
        done = subprocess.run(command.split(), capture_output=True, check=True, timeout=60, env=environment)
        assert json.loads(done.stdout) == json.loads(text)
        told = f'{command} | head -1; echo "${{PIPESTATUS[0]}}"'
        done = subprocess.run(["bash", "-c", told], capture_output=True, timeout=60, env=environment)
        assert (done.stdout, done.stderr) == (b"{\n141\n", b"")


def test_a_list_that_nobody_reads_is_no_complaint(served: Served) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([SCRIPT, "ls", served.url], stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_program_ends_at_once_with_its_status_and_with_all_that_was_said() -> None:
    program = (
        "import atexit, threading; from farcore_client import main\n"
        "atexit.register(print, 'at the end')\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "main.main = lambda: print('said') or 3\n"
        "main.run()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\nat the end\n", "")
