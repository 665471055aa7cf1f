"""GET /dmesg of a live server."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import logwriter
from tests.elfwriter import Dump, load, note
from tests.http1 import Connection
from tests.live import Serve
from tests.logwriter import Line
from tests.served import QUICK, listed, only, until

LINES = [Line(1_000, b"Linux version 6.1.0"), Line(4_469_195_000, b"Kernel panic - not syncing: \x1b[2Joops")]
TEXT = b"[    0.000001] Linux version 6.1.0\n[    4.469195] Kernel panic - not syncing: \\x1b[2Joops\n"
WITHOUT = Dump([note(("CORE", 1, bytes(336))), load(b"page", paddr=0x1000)])
ANY = ("--host-arch", "x86_64", "--allow-arch", "any", *QUICK)


def test_the_log_is_text_and_says_what_it_was_read_from(tmp_path: Path, serve: Serve) -> None:
    plain = b"<5>[    0.000001] Linux version 6.1.0\n<0>[    4.469195] Kernel panic - not syncing: \x1b[2Joops\n"
    forms = {
        "a": (logwriter.ring(LINES), "ring"),
        "b": (logwriter.ring(LINES, word=4, order=">"), "ring"),
        "c": (logwriter.records(LINES), "records"),
        "d": (logwriter.plain(plain), "text"),
    }
    for name, (memory, _) in forms.items():
        memory.dump().write(tmp_path / name)
    with Connection(serve(tmp_path, *ANY).url) as server:
        for name, dump in listed(server).items():
            answer = server.get(dump["links"]["dmesg"])
            assert (answer.status, answer.get("Content-Type")) == (200, "text/plain; charset=utf-8")
            assert (answer.get("Farcore-Log"), answer.body) == (forms[name][1], TEXT)


def test_the_log_has_the_dumps_etag_and_conditions_decide(tmp_path: Path, serve: Serve) -> None:
    logwriter.ring(LINES).dump().write(tmp_path / "vmcore")
    with Connection(serve(tmp_path, *ANY).url) as server:
        dump = only(server)
        link, etag = dump["links"]["dmesg"], dump["etag"]
        assert server.get(link).get("ETag") == etag
        assert server.get(link, **{"If-Match": etag}).status == 200
        assert server.get(link, **{"If-None-Match": etag}).status == 304
        refused = server.get(link, **{"If-Match": '"another"'})
        assert (refused.status, json.loads(refused.body)["type"]) == (412, "/problems/changed")


def test_the_log_beside_a_dump_is_given_where_its_own_cannot_be_read_and_says_so(tmp_path: Path, serve: Serve) -> None:
    beside = {
        "a/vmcore": "vmcore-dmesg.txt",
        "b/vmcore": "vmcore-dmesg-incomplete.txt",
        "c/dump.202511251105": "dmesg.202511251105",
    }
    for dump, log in beside.items():
        (tmp_path / dump).parent.mkdir()
        WITHOUT.write(tmp_path / dump)
        (tmp_path / dump).with_name(log).write_bytes(b"[    1.0] Kernel panic - not syncing: here\n\x1b]0;title\x07\n")
    live = serve(tmp_path, *ANY)
    found = until(live, lambda found: all(one["panic"] for one in found.values()))
    assert {name: dump["panic"] for name, dump in found.items()} == dict.fromkeys(beside, "Kernel panic - not syncing: here")
    with Connection(live.url) as server:
        for name, log in beside.items():
            answer = server.get(found[name]["links"]["dmesg"])
            first, *rest = answer.body.split(b"\n")
            assert first.startswith(f"# from {log}, which lies beside the dump; ".encode())
            assert b"no VMCOREINFO" in first
            assert rest == [b"[    1.0] Kernel panic - not syncing: here", b"\\x1b]0;title\\x07", b""]
            assert (answer.get("ETag"), answer.get("Farcore-Log")) == (None, "file")


@pytest.mark.parametrize("named", [True, False])
def test_a_log_beside_a_dump_that_leads_elsewhere_is_not_read(tmp_path: Path, serve: Serve, named: bool) -> None:
    (tmp_path / "dumps").mkdir()
    path = WITHOUT.write(tmp_path / "dumps" / "vmcore")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "dumps" / "vmcore-dmesg.txt").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "dumps" / "dmesg.txt")
    with Connection(serve(path if named else tmp_path / "dumps", *ANY).url) as server:
        answer = server.get(only(server)["links"]["dmesg"])
    assert (answer.status, json.loads(answer.body)["type"]) == (404, "/problems/no-log")


def test_a_dump_without_any_log_is_404_with_what_is_missing(tmp_path: Path, serve: Serve) -> None:
    memory = logwriter.ring(LINES)
    memory.lines = [line for line in memory.lines if "prb_desc.state_var" not in line]
    memory.dump().write(tmp_path / "vmcore")
    with Connection(serve(tmp_path, *ANY).url) as server:
        answer = server.get(only(server)["links"]["dmesg"])
    said = json.loads(answer.body)
    assert (answer.status, said["type"]) == (404, "/problems/no-log")
    assert said["detail"] == (
        "VMCOREINFO lacks OFFSET(prb_desc.state_var), without which the kernel log cannot be read; "
        "no vmcore-dmesg.txt lies beside the dump."
    )


def test_why_the_kernel_crashed_is_said_soon_after_the_dump_was_found(
    tmp_path: Path, serve: Serve, sample: Callable[[str], Path]
) -> None:
    live = serve(tmp_path, *ANY)
    os.link(sample("x86_64-panic.elf"), tmp_path / "vmcore")
    found = until(live, lambda found: any(dump["panic"] for dump in found.values()))
    assert found["vmcore"]["panic"] == "Kernel panic - not syncing: sysrq triggered crash"
    with Connection(live.url) as server:
        page = server.get("/", Accept="text/html").body.decode()
    assert "Kernel panic - not syncing: sysrq triggered crash" in page
