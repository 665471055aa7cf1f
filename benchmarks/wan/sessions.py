"""python -m benchmarks.wan.sessions DIR: a session of crash over a long, narrow line, by farcore and by what else there is.

DIR is a folder of tests/vm/make-dumps (kdump, vmlinux, crash). Each row is a fresh session with no cache; its seconds are those
beyond a local session of the same round. Needs root, iproute2, a C compiler and curl.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.wan import Wan, wan

# What an analyst asks first; "W1".
COMMANDS: Final = "sys\nbt -a\nps\nlog\nkmem -i\nquit\n"
PORT: Final = 8787
_BIN: Final = Path(sys.executable).parent
# What is no word about the dump (docs/doors.md), and empty lines.
_OWN: Final = re.compile(r"^\s*DUMPFILE: .*\n|^NOTE: setting .*\n|^crash: cannot read vmcoreinfo_data\n|^\n", re.MULTILINE)


@dataclass(slots=True)
class Row:
    """A way to the dump: shell words, in which {url}, {dump}, {vmlinux}, {crash}, {address} and {tmp} are filled in."""

    name: str
    command: str
    seconds: list[float] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)


ROWS: Final = (
    ("local", "{crash} -s {vmlinux} {dump}"),
    ("farcore crash --door fuse", "PATH={bin}:$PATH farcore crash {url} {vmlinux} --door fuse -- -s"),
    ("farcore crash --door remote", "PATH={bin}:$PATH farcore crash {url} {vmlinux} --door remote -- -s"),
    ("farcore pull, then local", "farcore pull {url} -o {tmp}/vmcore >&2 && {crash} -s {vmlinux} {tmp}/vmcore"),
    ("curl, then local", "curl -sS {url}/stored -o {tmp}/vmcore && {crash} -s {vmlinux} {tmp}/vmcore"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything is."""

    line: Wan
    url: str
    dump: Path
    vmlinux: Path
    crash: Path

    def words(self, row: Row, tmp: str) -> list[str]:
        """The row's command, at the analyst's end of the line."""
        filled = row.command.format(
            url=self.url, dump=self.dump, vmlinux=self.vmlinux, crash=self.crash, bin=f"{self.crash.parent}:{_BIN}", tmp=tmp
        )
        return [*self.line.client, "sh", "-c", f"PATH={_BIN}:$PATH; {filled}"]


def main() -> int:
    """Measure; 0 done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wan.sessions", description=__doc__)
    parser.add_argument("dumps", type=Path)
    parser.add_argument("--dump", default="kdump-x86_64.elf")
    parser.add_argument("--crash", default="crash-8.0.6/crash")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rtt", type=float, default=0.040)
    parser.add_argument("--mbit", type=float, default=100)
    given = parser.parse_args()
    dumps: Path = given.dumps
    with wan("crash", rtt=given.rtt, mbit=given.mbit) as line, _served(line, dumps / given.dump) as url:
        place = Place(line, url, dumps / given.dump, dumps / "vmlinux-x86_64", dumps / given.crash)
        rows = [Row(*words) for words in ROWS]
        _read(place.dump, place.vmlinux)
        for _ in range(given.rounds):
            expected = ""
            for row in rows:
                shown = _session(place, row)
                expected = expected or shown
                if shown != expected:
                    raise SystemExit(f"{row.name} shows something else than a local crash:\n{shown[:2000]}")
    _print(rows)
    return 0


@contextmanager
def _served(line: Wan, dump: Path) -> Iterator[str]:
    """farcored at the far end; the dump's URL."""
    command = [*line.server, str(_BIN / "farcored"), "serve", str(dump), "--listen", f"{line.address}:{PORT}", "--insecure"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            while "serving" not in (said := server.stderr.readline()):
                if not said:
                    raise SystemExit("farcored ended before it listened")
            listing = [*line.client, str(_BIN / "farcore"), "ls", f"http://{line.address}:{PORT}"]
            shown = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
            yield next(word for word in shown.split() if "/v1/dumps/" in word)
        finally:
            server.terminate()


def _session(place: Place, row: Row) -> str:
    """One session, entered in the row; what it showed."""
    with TemporaryDirectory(prefix="farcore-wan-") as tmp:
        requests, received = _requests(place), place.line.received()
        started = time.monotonic()
        done = subprocess.run(place.words(row, tmp), input=COMMANDS, capture_output=True, text=True, errors="replace")
        row.seconds.append(time.monotonic() - started)
        row.received.append(place.line.received() - received)
        row.requests.append(_requests(place) - requests)
        if done.returncode:
            raise SystemExit(f"{row.name}: {done.stderr[-500:]}")
    return _OWN.sub("", done.stdout).replace(f"{tmp}/", "")


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


def _print(rows: Sequence[Row]) -> None:
    local = rows[0].seconds
    print(f"{'W1 by':32} {'seconds':>8} {'x local':>8} {'added s':>8} {'MB':>7} {'requests':>9}")
    for row in rows:
        ratio = statistics.median(one / floor for one, floor in zip(row.seconds, local, strict=True))
        added = statistics.median(one - floor for one, floor in zip(row.seconds, local, strict=True))
        megabytes, requests = statistics.median(row.received) / 1e6, statistics.median(row.requests)
        print(f"{row.name:32} {statistics.median(row.seconds):8.1f} {ratio:8.2f} {added:8.1f} {megabytes:7.2f} {requests:9.0f}")


if __name__ == "__main__":
    sys.exit(main())
