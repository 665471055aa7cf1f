"""What analysts do with a dump, as programs and their commands: to see what they read, and that a cut shows the same."""

from __future__ import annotations

import difflib
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import analysts, coreelf
from .outdir import OutDir, say
from .packages import Apt, need

DUMP = "{dump}"
SCRIPTS = Path(__file__).parent / "scripts"
# makedumpfile would map the dump, which strace cannot follow, and refuses to print.
DMESG = 'makedumpfile --non-mmap --dump-dmesg -f "$1" "$2" >/dev/null && cat "$2"'


@dataclass(frozen=True, slots=True)
class Session:
    """A program with its arguments, DUMP standing for the dump, and what it reads on its standard input."""

    name: str
    argv: tuple[str, ...]
    commands: str = ""

    def on(self, dump: Path) -> list[str]:
        """The command line for one dump."""
        return [x.replace(DUMP, str(dump)) for x in self.argv]

    def shows(self, dump: Path) -> str:
        """What it prints on a dump, less what cannot be the same on another file or in another run."""
        done = subprocess.run(self.on(dump), input=self.commands.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        text = done.stdout.decode(errors="replace")
        if done.returncode:
            raise SystemExit(f"{self.name}: exit {done.returncode}: {text[-400:]}")
        return plain(text, dump)


def plain(text: str, dump: Path) -> str:
    """A session's output without the dump's name and without crash's own addresses."""
    text = text.replace(str(dump), "DUMP")
    return re.sub(r"(?m)^\[.*\] error trace:.*$", "[error trace]", text)


def x86_64(out: OutDir, vmlinux: Path, core: coreelf.Core) -> list[Session]:
    """Both versions of crash, drgn, gdb, makedumpfile and vmcore-dmesg on an x86_64 kdump."""
    need(out, "makedumpfile", "gdb")
    found: list[Session] = []
    for crash in analysts.crashes(out):
        for script in ("first", "wide"):
            argv = (str(crash), "-s", str(vmlinux), DUMP)
            found.append(Session(f"{crash.parent.name} {script}", argv, (SCRIPTS / f"{script}.crash").read_text()))
    offset = coreelf.vmcoreinfo(core)["KERNELOFFSET"]
    asks = (f"symbol-file {vmlinux} -o 0x{offset}", "info registers", "info threads", "bt", "x/s linux_banner", "x/4i panic")
    gdb = ("gdb", "-nx", "-batch", "-c", DUMP, *(x for ask in asks for x in ("-ex", ask)))
    log = ("sh", "-c", DMESG, "sh", DUMP, str(out.scratch("dmesg.txt")))
    tour = drgn(out, vmlinux, "tour.py")
    return [*found, tour, Session("gdb", gdb), Session("makedumpfile", log), vmcore_dmesg(out)]


def drgn(out: OutDir, vmlinux: Path, script: str) -> Session:
    """drgn with a script of this folder."""
    argv = (str(analysts.drgn(out)), "-q", "-c", DUMP, "-s", str(vmlinux), str(SCRIPTS / script))
    return Session(f"drgn {script}", argv)


def registers(out: OutDir, architecture: str) -> Session:
    """gdb's view of the notes, of a machine that is not this one."""
    need(out, "gdb-multiarch")
    asks = (f"set architecture {architecture}", f"core-file {DUMP}", "info registers", "info threads")
    return Session("gdb-multiarch", ("gdb-multiarch", "-nx", "-batch", *(x for ask in asks for x in ("-ex", ask))))


def vmcore_dmesg(out: OutDir) -> Session:
    """kexec-tools' own reader of the log: of any class, byte order and machine."""
    apt = Apt(out, "amd64")
    root = apt.unpack(*apt.download("kexec-tools"), into=apt.home / "kexec")
    return Session("vmcore-dmesg", (str(root / "sbin/vmcore-dmesg"), DUMP))


def prove(sessions: Iterable[Session], whole: Path, part: Path) -> None:
    """Fails unless every session prints the same on both dumps."""
    for session in sessions:
        expected, found = session.shows(whole), session.shows(part)
        if expected != found:
            lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), whole.name, part.name, lineterm="", n=0)
            raise SystemExit(f"{session.name}: the cut shows something else\n" + "\n".join(list(lines)[:40]))
        say(f"{part.name}: {session.name} prints the same {len(found.splitlines())} lines as of {whole.name}")
