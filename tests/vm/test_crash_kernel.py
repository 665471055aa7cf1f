"""The rule that farcore comes from, in the place it comes from: a crash kernel exports the memory of another architecture.

`make test-vm` runs this, in ten minutes without KVM: FARCORE_VM names the folder for packages and logs. Each machine crashes,
is read while its crash kernel is up, and then saves its dump: the amd64 one is flooded until its time is over, the i386 one
goes on early, since `farcore pull` tells it that its copy is verified.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from farcore_server import tokens
from tests.vm import kdump
from tests.vm.crashkernel import NATIVE, VIA_I386, Crashed, crashed
from tests.vm.outdir import OutDir
from tests.vm.packages import need

pytestmark = [
    pytest.mark.skipif("FARCORE_VM" not in os.environ, reason="make test-vm"),
    pytest.mark.timeout(1200),
]
DUMP = "vmcore-822557f8"
SECONDS = 180  # what the crash kernel is told to serve for
FLOOD = 200  # connections
MATTERS = re.compile(r"^(CRASHKERNEL|WITHOUT_CROSS|FARCORED_|Mem|farcore:|KDUMP|VMCORE).*|.*farcored: serving.*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Session:
    """What was seen of one machine from its crash to its end."""

    token: str
    dump: dict[str, Any]
    ranges: dict[str, bytes]
    pulled: bytes  # SHA-256
    copied: Path  # what the kdump action wrote
    serial: str

    def said(self, pattern: str) -> str:
        """The console line that matches, "" without one; of groups the first."""
        found = re.search(pattern, self.serial, re.MULTILINE)
        return found[found.re.groups and 1] if found else ""


@pytest.fixture(scope="module", params=[NATIVE, VIA_I386], ids=["amd64", "i386"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """One crashed machine, read and flooded."""
    return _session(OutDir(Path(os.environ["FARCORE_VM"]).resolve()), request.param, tmp_path_factory.mktemp("analyst"))


def _session(out: OutDir, what: kdump.Kdump, home: Path) -> Session:
    need(out, "curl")
    (home / "token").touch(0o600)
    (home / "token").write_text(token := tokens.add(home / "tokens", "analyst"))
    with crashed(out, what, home / "tokens", SECONDS) as machine:
        machine.machine.wait_for("farcored: serving", 300)
        url = f"http://127.0.0.1:{machine.port}/v1/dumps/{DUMP}"
        dump = json.loads(_curl(token, url))
        ends = (0, 1 << 20, int(dump["size"]) // 2 - 100, int(dump["size"]) - 70000)
        ranges = {f"{at}-{at + 65535}": _curl(token, f"{url}/vmcore", "-r", f"{at}-{at + 65535}") for at in ends}
        if what == VIA_I386:
            pulled = _pull(url, home)
            machine.machine.wait_for("KDUMP_ACTION", SECONDS)
        else:
            pulled = hashlib.sha256(_curl(token, f"{url}/vmcore")).digest()
            with _flood(machine, token):
                machine.machine.wait_for("KDUMP_ACTION", SECONDS + 60)
        serial = machine.machine.wait(300)
    print(*(found[0] for found in MATTERS.finditer(serial)), sep="\n")
    return Session(token, dump, ranges, pulled, machine.disk, serial)


def _curl(token: str, *arguments: str) -> bytes:
    command = ["curl", "-sS", "--fail", "--config", "-", *arguments]
    done = subprocess.run(command, input=f'header = "Authorization: Bearer {token}"'.encode(), capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _pull(url: str, home: Path) -> bytes:
    farcore = Path(sys.executable).with_name("farcore")
    started = time.monotonic()
    command: list[str | Path] = [farcore, "pull", url, "-o", home / "vmcore", "--token-file", home / "token"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    print(f"farcore pull: {(home / 'vmcore').stat().st_size >> 20} MiB in {time.monotonic() - started:.0f} s")
    with (home / "vmcore").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    (home / "vmcore").unlink()
    return digest


@contextlib.contextmanager
def _flood(machine: Crashed, token: str) -> Iterator[None]:
    """Clients that ask for everything and read nothing, and some that never finish a request."""
    asks = f"GET /v1/dumps/{DUMP}/vmcore HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n".encode()
    with contextlib.ExitStack() as stack:
        for number in range(FLOOD):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", machine.port), timeout=30))
            client.sendall(asks + b"\r\n" * (number % 4 != 0))
        yield


def test_the_verdict_of_the_crash_kernel_says_by_which_test_it_took_the_memory(session: Session) -> None:
    by = {"x86_64": "native", "i386": "cross"}
    host = session.dump["verdict"]["host_arch"]
    assert session.dump["verdict"]["kernel"]["accepted"]
    assert session.dump["verdict"]["kernel"]["by"] == by[host]
    assert session.dump["elf"]["class"] == 64
    assert session.dump["elf"]["machine"] == "EM_X86_64"
    assert ("686-pae" in session.said(r"^CRASHKERNEL (.*)")) == (host == "i386")


def test_without_the_cross_test_an_i386_crash_kernel_refuses_x86_64(session: Session) -> None:
    expected = {"x86_64": "accepted", "i386": "refused:arch"}[session.dump["verdict"]["host_arch"]]
    assert session.said(r"^WITHOUT_CROSS=(.*)") == expected


def test_what_was_read_before_anything_was_saved_is_what_the_crash_kernel_then_saves(session: Session) -> None:
    assert session.pulled.hex() == session.said(r"^VMCORE_SHA256=(\w+)")
    with session.copied.open("rb") as copy:
        for span, content in session.ranges.items():
            first, last = map(int, span.split("-"))
            copy.seek(first)
            assert content == copy.read(last - first + 1)


def test_the_etag_is_that_of_the_boot_and_there_is_no_modification_time(session: Session) -> None:
    assert session.dump["modified"] is None
    assert re.fullmatch(r'"[0-9a-f]{32}"', session.dump["etag"])


def test_the_console_has_a_command_to_copy_and_no_token(session: Session) -> None:
    assert session.said(rf"^farcore:   farcore pull --token-file TOKEN (http://10\.0\.2\.15:8787/v1/dumps/{DUMP})$")
    assert session.said("WARNING: no TLS key was given")
    assert session.token not in session.serial


def test_the_kdump_action_follows_a_verified_copy_at_once_and_a_flood_when_the_time_is_over(session: Session) -> None:
    after = int(session.said(r"^KDUMP_ACTION after (\d+) s"))
    if session.dump["verdict"]["host_arch"] == "i386":
        assert session.said("a client has a verified copy; the crash kernel goes on")
        assert after < SECONDS
    else:
        assert session.said("the time is over; the crash kernel goes on")
        assert SECONDS <= after <= SECONDS + 15
    assert session.said("^KDUMP_DONE")


def test_a_64_bit_host_refuses_an_i386_dump_unless_it_is_allowed() -> None:
    dump = kdump.make(OutDir(Path(os.environ["FARCORE_VM"]).resolve()), kdump.ON_I386)
    check: list[str | Path] = [Path(sys.executable).with_name("farcored"), "check", "--host-arch", "x86_64", dump]
    refused, allowed = (
        subprocess.run([*check, *more], capture_output=True, text=True) for more in ([], ["--allow-arch", "i386"])
    )
    assert (refused.returncode, allowed.returncode) == (1, 0)
    assert "refused" in refused.stdout
