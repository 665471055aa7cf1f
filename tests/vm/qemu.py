"""A QEMU process: its serial line in a file, its monitor (QMP) on a socket pair, its memory dumps."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


class Machine:
    """A running virtual machine; leaving the `with` block ends it, and so does the end of this process, however it comes.

    The serial line goes to the character device `line`: without `-nodefaults` to a serial port as usual, with it
    to whatever device of the command line says `chardev=line`.
    """

    def __init__(self, argv: Sequence[str], serial: Path) -> None:
        serial.unlink(missing_ok=True)
        self.serial = serial
        ours, theirs = socket.socketpair()
        console = ["-chardev", f"file,id=line,path={serial}"]
        if not any("chardev=line" in x for x in argv):
            console += ["-serial", "chardev:line"]
        monitor = ["-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"]
        with theirs, serial.with_suffix(".err").open("wb") as errors:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *argv, "-display", "none", "-no-reboot", *console, *monitor],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
        ours.settimeout(120)
        self._socket = ours
        self._monitor = ours.makefile("rwb")

    def __enter__(self) -> Self:
        self._reply()
        self.command("qmp_capabilities")
        return self

    def __exit__(self, kind: type[BaseException] | None, what: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        self._monitor.close()
        self._socket.close()

    def _fail(self, what: str) -> SystemExit:
        errors = self.serial.with_suffix(".err").read_text(errors="replace")[-400:].strip()
        return SystemExit(f"{self.process.args!r}: {what}, see {self.serial}: {errors}")

    def _reply(self) -> dict[str, object]:
        line = self._monitor.readline()
        if not line:
            raise self._fail("the monitor has gone")
        reply: dict[str, object] = json.loads(line)
        return reply

    def command(self, name: str, **arguments: object) -> object:
        """What QMP returns for a command; events before the answer are skipped."""
        self._monitor.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        self._monitor.flush()
        while "return" not in (reply := self._reply()):
            if "error" in reply:
                raise self._fail(f"{name}: {reply['error']}")
        return reply["return"]

    def said(self) -> str:
        """The serial line up to now."""
        return self.serial.read_text(errors="replace").replace("\r", "") if self.serial.exists() else ""

    def wait_for(self, text: str, seconds: float) -> None:
        """Returns when the serial line holds `text`."""
        end = time.monotonic() + seconds
        while text not in self.said():
            if self.process.poll() is not None:
                raise self._fail(f"ended before it said {text!r}")
            if time.monotonic() > end:
                raise self._fail(f"did not say {text!r} in {seconds:.0f} s")
            time.sleep(0.05)

    def wait(self, seconds: float) -> str:
        """The whole serial line of a machine that powers itself off."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self._fail(f"still runs after {seconds:.0f} s") from None
        return self.said()

    def dump(self, path: Path, form: str = "elf", *, paging: bool = False) -> None:
        """dump-guest-memory of the stopped machine. QEMU makes the file 0400 and never replaces one."""
        path.unlink(missing_ok=True)
        self.command("stop")
        other = {} if form == "elf" else {"format": form}
        self.command("dump-guest-memory", paging=paging, protocol=f"file:{path}", **other)
