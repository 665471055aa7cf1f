"""farcore dmesg, against a real server and an odd one."""

from __future__ import annotations

from pathlib import Path

from tests import logwriter
from tests.client.conftest import Farcore, Served
from tests.client.hostile import answer, hostile
from tests.live import Serve
from tests.logwriter import Line

DUMP = "/v1/dumps/vmcore-00000000"


def test_the_log_goes_to_stdout_as_it_is(farcore: Farcore, serve: Serve, tmp_path: Path) -> None:
    logwriter.ring([Line(1_000, b"one\ttab"), Line(2_000, b"\xff")]).dump().write(tmp_path / "vmcore")
    server = serve(tmp_path, "--host-arch", "x86_64")
    url = next(word for word in farcore("ls", server.url).text.split() if word.startswith("http"))
    done = farcore("dmesg", url)
    assert (done.status, done.stdout, done.stderr) == (0, b"[    0.000001] one\ttab\n[    0.000002] \\xff\n", "")


def test_a_dump_without_a_log_is_a_sentence_and_exit_status_1(farcore: Farcore, served: Served) -> None:
    url = next(word for word in farcore("ls", served.url).text.split() if "small-elf" in word)
    done = farcore("dmesg", url)
    assert (done.status, done.stdout) == (1, b"")
    assert done.stderr.startswith("farcore: there is no kernel log of this dump: VMCOREINFO names no kernel log")


def test_what_a_server_says_steers_no_terminal(farcore: Farcore) -> None:
    log = "[    1.0] \x1b[2J\u202egnp\r\n\ttab é\n".encode()
    with hostile({f"GET {DUMP}/dmesg": answer(log, Content_Type="text/plain; charset=utf-8")}) as server:
        done = farcore("dmesg", f"{server.url}{DUMP}")
    assert (done.status, done.text) == (0, "[    1.0] \\x1b[2J\\u202egnp\\r\n\ttab é\n")


def test_what_is_no_text_is_no_log(farcore: Farcore) -> None:
    with hostile({f"GET {DUMP}/dmesg": answer(b"<html>", Content_Type="text/html")}) as server:
        done = farcore("dmesg", f"{server.url}{DUMP}")
    assert (done.status, done.stdout) == (1, b"")
    assert "is this the URL of a farcored?" in done.stderr
