"""python -m benchmarks.wan.sessions DIR: sessions of crash and drgn over a long, narrow line, by farcore and by other ways.

DIR is a folder of tests/vm/make-dumps (kdump, cross, vmlinux, crash; and large, for --dump qemu-x86_64-panic-2g.elf). A row's
seconds are those beyond a local session of the same round. No row has a page in a cache; "cold" ones meet a server that has
learned nothing, "warm" ones one that has seen this session, "other boot" one that has seen it on another crash of the same
kernel. Where a machine is not always as fast, `waited` says more than `added`: the seconds in which crash did not compute,
beyond those of a local one. Needs root, iproute2, cc and curl; rows whose programs are not installed are named and left out.
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from benchmarks.wan import Wan, wan
from benchmarks.wan.peers import PEERS, missing, sshd
from benchmarks.wan.sparse import sparse

# What an analyst asks first: "W1", of crash; "W2", of drgn.
COMMANDS: Final = "sys\nbt -a\nps\nlog\nkmem -i\nquit\n"
SCRIPT: Final = """
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.printk import get_dmesg
from drgn.helpers.linux.sched import cpu_curr

for task in for_each_task(prog):
    print(task.pid.value_(), task.comm.string_().decode())
for cpu in for_each_online_cpu(prog):
    print(prog.stack_trace(cpu_curr(prog, cpu)))
print(get_dmesg(prog).decode())
"""
PORT: Final = 8787
# Runs a crash, and leaves in a file beside itself the CPU seconds that it took.
_TIMED: Final = """#!/bin/bash
TIMEFORMAT='%U %S'
{{ time {crash} "$@" 2>&3; }} 3>&2 2>"$0.cpu"
"""
_DIFFERS: Final = " (differs)"
_BIN: Final = Path(sys.executable).parent
# What is no word about the dump (docs/doors.md), and empty lines.
_OWN: Final = re.compile(r"^\s*DUMPFILE: .*\n|^NOTE: setting .*\n|^crash: cannot read vmcoreinfo_data\n|^\n", re.MULTILINE)


Knows = Literal["", "nothing", "this", "another"]


@dataclass(slots=True)
class Row:
    """A way to the dump: shell words, in which {url}, {dump}, {vmlinux}, {crash}, {script} and {tmp} are filled in.

    ``knows``: which session the server has learned from before. ``needs``: programs.
    """

    name: str
    command: str
    knows: Knows = ""
    needs: tuple[str, ...] = ()
    seconds: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)


FUSE: Final = "PATH={bin}:$PATH farcore crash {url} {vmlinux} --door fuse -- -s"
REMOTE: Final = "PATH={bin}:$PATH farcore crash {url} {vmlinux} --door remote -- -s"
DRGN: Final = "farcore drgn {url} -s {vmlinux} -- -q {script}"
# The first of each tool is what the others are held against.
TOOLS: Final[dict[str, tuple[tuple[str, str, Knows], ...]]] = {
    "W1": (
        ("crash, local", "{crash} -s {vmlinux} {dump}", ""),
        ("farcore crash, fuse, cold", FUSE, "nothing"),
        ("farcore crash, fuse, warm", FUSE, "this"),
        ("farcore crash, fuse, other boot", FUSE, "another"),
        ("farcore crash, remote, cold", REMOTE, "nothing"),
        ("farcore crash, remote, warm", REMOTE, "this"),
        ("farcore crash, remote, other boot", REMOTE, "another"),
        ("farcore pull, then local", "farcore pull {url} -o {tmp}/vmcore >&2 && {crash} -s {vmlinux} {tmp}/vmcore", ""),
        ("curl, then local", "curl -sS {url}/stored -o {tmp}/vmcore && {crash} -s {vmlinux} {tmp}/vmcore", ""),
    ),
    "W2": (
        ("drgn, local", "drgn -c {dump} -s {vmlinux} -q {script}", ""),
        ("farcore drgn, cold", DRGN, "nothing"),
        ("farcore drgn, warm", DRGN, "this"),
        ("farcore drgn, other boot", DRGN, "another"),
    ),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything is."""

    line: Wan
    urls: dict[str, str]
    dump: Path
    other: Path
    vmlinux: Path
    crash: Path
    state: Path
    ssh: Path

    def words(self, row: Row, tmp: str, *, other: bool = False) -> list[str]:
        """The row's command, at the analyst's end of the line; on the other dump if so asked."""
        dump = self.other if other else self.dump
        script = Path(tmp, "script.py")
        script.write_text(SCRIPT)
        crash = _timed(tmp)
        crash.parent.mkdir(exist_ok=True)
        crash.write_text(_TIMED.format(crash=self.crash))
        crash.chmod(0o755)
        filled = row.command.format(
            url=self.urls[dump.name],
            dump=dump,
            folder=dump.parent,
            name=dump.name,
            ssh=self.ssh,
            vmlinux=self.vmlinux,
            crash=crash,
            bin=f"{crash.parent}:{_BIN}",
            script=script,
            tmp=tmp,
        )
        return [*self.line.client, "sh", "-c", f"PATH={_BIN}:$PATH; {filled}"]


def main() -> int:
    """Measure; 0 done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wan.sessions", description=__doc__)
    parser.add_argument("dumps", type=Path)
    parser.add_argument("--dump", default="kdump-x86_64.elf")
    parser.add_argument("--other", default="kdump-x86_64-via-i386.elf", help="another crash of the same kernel")
    parser.add_argument("--crash", default="crash-8.0.6/crash")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", action="append", metavar="GLOB", help="only rows of such names, and the local ones")
    parser.add_argument("--sparse", type=int, metavar="GIB", help="the dumps have so many GiB of zeros more, as holes")
    parser.add_argument("--rtt", type=float, default=0.040)
    parser.add_argument("--mbit", type=float, default=100)
    given = parser.parse_args()
    with TemporaryDirectory(prefix="farcore-state-") as folder, wan("crash", rtt=given.rtt, mbit=given.mbit) as line:
        dump, other = (_prepared(given.dumps / name, Path(folder), given.sparse) for name in (given.dump, given.other))
        vmlinux, state = given.dumps / "vmlinux-x86_64", Path(folder, "state")
        with _served(line, str(state), dump, other) as urls, sshd(line, Path(folder)) as ssh:
            place = Place(line, urls, dump, other, vmlinux, given.dumps / given.crash, state, ssh)
            rows = {tool: list(_chosen(tool, given.rows)) for tool in TOOLS}
            _read(given.dumps / given.dump, given.dumps / given.other, vmlinux)
            for _ in range(given.rounds):
                for ways in rows.values():
                    _round(place, ways)
    for tool, ways in rows.items():
        _print(tool, ways)
    return 0


def _prepared(dump: Path, folder: Path, gib: int | None) -> Path:
    if gib is None:
        return dump
    sparse(dump, folder / dump.name, gib)
    return folder / dump.name


def _chosen(tool: str, globs: Sequence[str] | None) -> Iterator[Row]:
    """The rows of a tool that can be had here, the local one first."""
    peers = [Row(peer.name, peer.command, needs=peer.needs) for peer in PEERS] if tool == "W1" else []
    for number, row in enumerate([*(Row(*words) for words in TOOLS[tool]), *peers]):
        wanted = number == 0 or globs is None or any(fnmatch(row.name, glob) for glob in globs)
        if wanted and (lacks := missing(row.needs)):
            print(f"{row.name}: left out, there is no {', '.join(lacks)} here", flush=True)
        elif wanted:
            yield row


def _round(place: Place, rows: Sequence[Row]) -> None:
    expected = ""
    for row in rows:
        shown = _session(place, row)
        expected = expected or shown
        if shown != expected and row.needs:
            row.name = f"{row.name.removesuffix(_DIFFERS)}{_DIFFERS}"
        elif shown != expected:
            raise SystemExit(f"{row.name} shows something else than a local session:\n{shown[:2000]}")


@contextmanager
def _served(line: Wan, state: str, *dumps: Path) -> Iterator[dict[str, str]]:
    """farcored at the far end; each dump's URL by the file's name."""
    command = [*line.server, "env", f"STATE_DIRECTORY={state}", str(_BIN / "farcored"), "serve", *map(str, dumps)]
    command += ["--listen", f"{line.address}:{PORT}", "--insecure"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            while "serving" not in (said := server.stderr.readline()):
                if not said:
                    raise SystemExit("farcored ended before it listened")
            base = f"http://{line.address}:{PORT}"
            listing = [*line.client, str(_BIN / "farcore"), "ls", "--json", base]
            listed = json.loads(subprocess.run(listing, capture_output=True, text=True, check=True).stdout)
            yield {dump["name"]: f"{base}{dump['links']['self']}" for dump in listed}
        finally:
            server.terminate()


def _session(place: Place, row: Row) -> str:
    """One session, entered in the row; what it showed."""
    with TemporaryDirectory(prefix="farcore-wan-") as tmp:
        if row.knows:
            shutil.rmtree(place.state / "profiles", ignore_errors=True)
        if row.knows in ("this", "another"):
            _run(row, place.words(row, tmp, other=row.knows == "another"))
        requests, received = _requests(place), place.line.received()
        started = time.monotonic()
        shown = _run(row, place.words(row, tmp))
        row.seconds.append(time.monotonic() - started)
        computed = Path(f"{_timed(tmp)}.cpu")
        row.waited.append(row.seconds[-1] - sum(map(float, computed.read_text().split())) if computed.exists() else math.nan)
        row.received.append(place.line.received() - received)
        row.requests.append(_requests(place) - requests)
    return _OWN.sub("", shown).replace(f"{tmp}/", "")


def _timed(tmp: str) -> Path:
    """The crash of a session."""
    return Path(tmp, "bin", "crash")


def _run(row: Row, words: Sequence[str]) -> str:
    done = subprocess.run(words, input=COMMANDS, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise SystemExit(f"{row.name}: {done.stderr[-500:]}")
    return done.stdout


def _requests(place: Place) -> int:
    """How many requests the server has answered, its own metrics less."""
    command = [*place.line.server, "curl", "-sS", f"http://{place.line.address}:{PORT}/metrics"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^farcore_requests_total\{([^}]*)\} (\S+)", shown, re.MULTILINE)
    return int(sum(float(count) for labels, count in found if "metrics" not in labels))


def _read(*paths: Path) -> None:
    """Have the files in the page cache."""
    for path in paths:
        with path.open("rb") as file:
            while file.read(1 << 22):
                pass


def _print(tool: str, rows: Sequence[Row]) -> None:
    local, floor = rows[0].seconds, rows[0].waited
    head = ("seconds", "x local", "added s", "waited s", "MB", "requests")
    print(f"{tool + ' by':42}" + "".join(f"{each:>9}" for each in head))
    for row in rows:
        added = statistics.median(map(operator.sub, row.seconds, local))
        waited = statistics.median(map(operator.sub, row.waited, floor))
        cells = (
            f"{statistics.median(row.seconds):.1f}",
            f"{statistics.median(map(operator.truediv, row.seconds, local)):.2f}",
            f"{added:.1f}",
            "" if math.isnan(waited) else f"{waited:.1f}",
            f"{statistics.median(row.received) / 1e6:.2f}",
            f"{statistics.median(row.requests):.0f}",
        )
        print(f"{row.name:42}" + "".join(f"{each:>9}" for each in cells))


if __name__ == "__main__":
    sys.exit(main())
