"""The rule that farcore comes from, in the place it comes from: a crash kernel exports the memory of another architecture.

`make test-vm` runs this without KVM: FARCORE_VM names the folder for packages and logs. Each machine crashes, is read while its
crash kernel is up, and then saves its dump: the amd64 one is flooded until its time is over, the i386 one, which has a key for
TLS, goes on early, since `farcore pull` tells it that its copy is verified.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.vm import analysts, kdump, symbols
from tests.vm.analyst import Analyst, shown
from tests.vm.crashkernel import NATIVE, VIA_I386
from tests.vm.guests import AMD64
from tests.vm.outdir import OutDir
from tests.vm.rescue import DUMP, ended, folder, refused_by, rescue, said

pytestmark = [
    pytest.mark.skipif("FARCORE_VM" not in os.environ, reason="make test-vm"),
    pytest.mark.timeout(1800),
]
FARCORED = Path(sys.executable).with_name("farcored")
SECONDS = 180  # what the crash kernel is told to serve for


@dataclass(frozen=True, slots=True)
class Session:
    """What was seen of one machine from its crash to its end."""

    host: str  # of the crash kernel
    analyst: Analyst
    dump: dict[str, Any]
    ranges: dict[str, bytes]
    copied: Path  # by the analyst
    through: str  # what crash showed through farcore crash
    locally: str  # and on the copy
    saved: Path  # by the kdump action
    serial: str

    def said(self, pattern: str) -> str:
        """The console line that matches."""
        return said(self.serial, pattern)


@pytest.fixture(scope="module", params=["amd64", "i386"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """One crashed machine, read by curl, crash and farcore."""
    return _session(folder(), request.param, tmp_path_factory.mktemp("analyst"))


def _session(out: OutDir, architecture: str, home: Path) -> Session:
    tls = architecture == "i386"
    what, door = (VIA_I386, ("--door", "remote")) if tls else (NATIVE, ())
    crash, vmlinux = analysts.crash(out), symbols.vmlinux(out, AMD64)
    with rescue(out, what, home, SECONDS, tls=tls) as (machine, analyst):
        dump = json.loads(analyst.curl())
        ends = (0, 1 << 20, int(dump["size"]) // 2 - 100, int(dump["size"]) - 70000)
        ranges = {f"{at}-{at + 65535}": analyst.curl("/vmcore", "-r", f"{at}-{at + 65535}") for at in ends}
        through = analyst.crash(crash, vmlinux, *door)
        if tls:
            assert "certificate" in refused_by(analyst)
            analyst.pull_killed()
            copied = analyst.pull()
            machine.machine.wait_for("KDUMP_ACTION", 60)
        else:
            copied = analyst.copy()
            analyst.copy_killed()
            with analyst.flood():
                machine.machine.wait_for("KDUMP_ACTION", SECONDS + 60)
        serial = ended(machine)
    locally = shown([crash, "-s", vmlinux, copied], crash)
    host = dump["verdict"]["host_arch"]
    return Session(host, analyst, dump, ranges, copied, through, locally, machine.disk, serial)


def test_the_verdict_of_the_crash_kernel_says_by_which_test_it_took_the_memory(session: Session) -> None:
    verdict = session.dump["verdict"]["kernel"]
    assert verdict["accepted"]
    assert verdict["by"] == {"x86_64": "native", "i386": "cross"}[session.host]
    assert (session.dump["elf"]["class"], session.dump["elf"]["machine"]) == (64, "EM_X86_64")
    assert ("686-pae" in session.said(r"^CRASHKERNEL (.*)")) == (session.host == "i386")
    checked = subprocess.run(
        [FARCORED, "check", "--json", "--host-arch", session.host, session.copied], capture_output=True, text=True
    )
    assert json.loads(checked.stdout)[0]["verdict"]["kernel"] == verdict


def test_without_the_cross_test_an_i386_crash_kernel_refuses_x86_64(session: Session) -> None:
    expected = {"x86_64": "accepted", "i386": "refused:arch"}[session.host]
    assert session.said(r"^WITHOUT_CROSS=(.*)") == expected


def test_what_was_read_before_anything_was_saved_is_what_the_crash_kernel_then_saves(session: Session) -> None:
    with session.copied.open("rb") as copy:
        assert hashlib.file_digest(copy, "sha256").hexdigest() == session.said(r"^VMCORE_SHA256=(\w+)")
    with session.saved.open("rb") as saved:
        for span, content in session.ranges.items():
            first, last = map(int, span.split("-"))
            saved.seek(first)
            assert content == saved.read(last - first + 1)


def test_crash_shows_of_the_waiting_machine_what_it_shows_of_the_copy(session: Session) -> None:
    assert session.through.splitlines() == session.locally.splitlines()
    assert re.search(r"^ *PANIC: .*sysrq|^ *PANIC: .*Kernel panic", session.through, re.MULTILINE | re.IGNORECASE)
    assert re.search(r"^ *#\d+ \[\w+\] sysrq_handle_crash at ", session.through, re.MULTILINE)


def test_the_etag_is_that_of_the_boot_and_there_is_no_modification_time(session: Session) -> None:
    assert session.dump["modified"] is None
    assert re.fullmatch(r'"[0-9a-f]{32}"', session.dump["etag"])


def test_the_console_has_commands_to_copy_and_no_token_and_warns_where_no_key_was_given(session: Session) -> None:
    scheme, trust = ("https", " --cacert CERT.pem") if session.host == "i386" else ("http", "")
    for verb in ("crash", "pull"):
        command = rf"^farcore:   (farcore {verb} --token-file TOKEN{trust} {scheme}://10\.0\.2\.15:8787/v1/dumps/{DUMP})$"
        assert session.said(command)
    assert bool(session.said("WARNING: no TLS key was given")) == (scheme == "http")
    assert session.analyst.token not in session.serial


def test_the_kdump_action_follows_a_verified_copy_at_once_and_a_flood_when_the_time_is_over(session: Session) -> None:
    after = int(session.said(r"^KDUMP_ACTION after (\d+) s"))
    if session.host == "i386":
        assert session.said("a client has a verified copy; the crash kernel goes on")
        assert after < SECONDS
    else:
        assert session.said("the time is over; the crash kernel goes on")
        assert SECONDS <= after <= SECONDS + 15
    assert session.said("^KDUMP_DONE")


def test_a_64_bit_host_refuses_an_i386_dump_unless_it_is_allowed() -> None:
    dump = kdump.make(folder(), kdump.ON_I386)
    check: list[str | Path] = [FARCORED, "check", "--host-arch", "x86_64", dump]
    refused, allowed = (
        subprocess.run([*check, *more], capture_output=True, text=True) for more in ([], ["--allow-arch", "i386"])
    )
    assert (refused.returncode, allowed.returncode) == (1, 0)
    assert "refused" in refused.stdout
