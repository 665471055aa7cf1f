"""python -m benchmarks.opening: what opening costs, by the number of PT_LOADs and not by the size of the dump.

Each dump is opened in a process of its own, ROUNDS times, and the fastest time counts. Memory is what the process has more
of afterwards (RSS) and had at most (peak). The peer, readelf -lW, reads and prints the same program headers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

ROUNDS: Final = 5


@dataclass(frozen=True, slots=True)
class Case:
    """A dump of ``loads`` PT_LOADs in ``size`` bytes, nearly all of them holes; ``worst``: its notes go to every limit."""

    name: str
    loads: int
    size: int
    worst: bool = False


CASES: Final = (
    Case("64 MiB, 1 PT_LOAD", 1, 64 << 20),
    Case("4 TiB, 1 PT_LOAD", 1, 4 << 40),
    Case("4 TiB, 5,000 PT_LOADs", 5_000, 4 << 40),
    Case("4 TiB, 70,000 PT_LOADs", 70_000, 4 << 40),
    Case("every limit", (1 << 18) - 1, 1 << 30, worst=True),
)

# Opens sys.argv[1]: seconds for inspect(), for the layout of physical memory and of the image, for all of its JSON.
PROGRAM: Final = """
import json, re, sys
from pathlib import Path
from time import perf_counter
from farcore.arch import ANY, Policy
from farcore.hosts import this_host
from farcore_server import describe
from farcore_server.inspection import Rules, inspect
from farcore_server.search import Place

def memory(field):
    return int(re.search(rf"{field}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

rules, place = Rules(this_host(), Policy("cross", frozenset({ANY}))), Place(sys.argv[1], "vmcore", None)
small, _ = inspect(place._replace(path=sys.argv[2]), rules)  # everything once before: imports are not what is measured
small.layout("physical"), small.layout("normalised"), list(describe.text(small))
Path("/proc/self/clear_refs").write_text("5")
before, clock = memory("VmRSS"), [perf_counter()]
dump, files = inspect(place, rules)
clock.append(perf_counter())
after, peak = memory("VmRSS"), memory("VmHWM")
assert dump.elf is not None, dump.reason
dump.layout("physical")
clock.append(perf_counter())
dump.layout("normalised")
clock.append(perf_counter())
sum(map(len, describe.text(dump)))
clock.append(perf_counter())
print(json.dumps([*(later - sooner for sooner, later in zip(clock, clock[1:])), after - before, peak - before]))
"""


def write(case: Case, path: Path) -> Path:
    """The dump, sparse."""
    from tests.elfwriter import Dump, load, note

    first = 32 << 20
    step = (case.size - first) // case.loads // 4096 * 4096
    notes = [note(("CORE", 1, bytes(336)))]
    if case.worst:
        # As many notes as are read, and as many bytes of them: 62 long ones, and short ones.
        notes = [note(*(("CORE", 1, bytes(240 << 10)) for _ in range(62)), *((str(n % 10), 1, b"") for n in range(65_000)))]
    loads = [load(paddr=n * step, offset=first + n * step, filesz=step, memsz=step) for n in range(case.loads)]
    return Dump([*notes, *loads], size=case.size).write(path)


def measured(path: Path, small: Path) -> list[float]:
    """The fastest of ROUNDS for each time, the median of the memory."""
    rows = []
    for _ in range(ROUNDS):
        done = subprocess.run([sys.executable, "-c", PROGRAM, path, small], capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout))
    columns = list(zip(*rows, strict=True))
    return [*map(min, columns[:4]), *(sorted(column)[ROUNDS // 2] for column in columns[4:])]


def readelf(path: Path) -> float | None:
    """Seconds that readelf needs for the program headers; None where it is not installed."""
    if shutil.which("readelf") is None:
        return None
    times = []
    for _ in range(ROUNDS):
        begun = perf_counter()
        subprocess.run(["readelf", "-lW", path], capture_output=True, check=True)
        times.append(perf_counter() - begun)
    return min(times)


def main() -> None:
    """Print the table."""
    names = ("open ms", "physical ms", "image ms", "JSON ms", "RSS MiB", "peak MiB", "readelf ms", "open / readelf")
    print(f"{'':24}" + "".join(f"{name:>15}" for name in names))
    with TemporaryDirectory(prefix="opening-") as folder:
        small = write(CASES[0], Path(folder, "small"))
        for case in CASES:
            path = write(case, Path(folder, "vmcore"))
            *times, rss, peak = measured(path, small)
            peer = readelf(path)
            cells = [*(f"{each * 1000:.1f}" for each in times), f"{rss:.1f}", f"{peak:.1f}"]
            cells += ["", ""] if peer is None else [f"{peer * 1000:.1f}", f"{times[0] / peer:.2f}"]
            print(f"{case.name:24}" + "".join(f"{cell:>15}" for cell in cells), flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
