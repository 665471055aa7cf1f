"""python -m benchmarks.formats [ELF]: compressed dumps through a server, beside drgn and makedumpfile on the same files.

The ELF (tests/data's x86_64-panic unless another is named) is written with LZO and zlib by makedumpfile -d 1, and with zstd by
tests/kdumpwriter. All run in turns, ROUNDS times, and the median counts. A random read is of 4 KiB of a page that is there; CPU
is the server's, or the peer's own. Last: a sparse dump of 1 TiB, and one in three million fragments, from the start of their
inspection to the first byte.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from benchmarks.process import cpu_seconds, family
from farcore.elf import Elf
from farcore.file import FileSource
from farcore.notes import read as read_notes
from farcore.runs import Kind
from farcore.space import PhysicalSpace
from tests import kdumpwriter, pages_wire
from tests.http1 import Connection
from tests.live import Live, farcored
from tests.samples import unpack
from tests.served import listed

ROUNDS: Final = 5
READS: Final = 1000
PAGE: Final = 4096

# Reads the pages that stdin names, one by one, then all runs; prints seconds of CPU and of the clock for both.
DRGN: Final = """
import json, sys
from time import perf_counter, process_time
from drgn import Program
program = Program()
program.set_core_dump(sys.argv[1])
asked = json.load(sys.stdin)
def timed(reads):
    begun = process_time(), perf_counter()
    for address, length in reads:
        program.read(address, length, True)
    return process_time() - begun[0], perf_counter() - begun[1]
print(json.dumps([timed(asked["random"]), timed(asked["all"])]))
"""


class Cost(NamedTuple):
    """Seconds of CPU and of the clock."""

    cpu: float
    wall: float


class Memory(NamedTuple):
    """What the dumps hold: the pages to read at random, and the runs that are all of it, in pieces of 256 KiB."""

    pages: list[int]
    pieces: list[tuple[int, int]]

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return sum(length for _, length in self.pieces)


def whole_pages(elf: Path) -> tuple[Memory, dict[int, bytes]]:
    """The whole pages of an ELF core, and their content by frame."""
    source = FileSource(os.open(elf, os.O_RDONLY), elf.stat().st_size)
    memory = PhysicalSpace(source, Elf.open(source))
    content: dict[int, bytes] = {}
    pieces: list[tuple[int, int]] = []
    for run in memory.layout.runs.walk(0, memory.size):
        first, stop = -(-run.start // PAGE) * PAGE, run.stop // PAGE * PAGE
        if run.kind is Kind.DATA and first < stop:
            content |= {at // PAGE: bytes(memory.pread(at, PAGE)) for at in range(first, stop, PAGE)}
            pieces += [(at, min(256 << 10, stop - at)) for at in range(first, stop, 256 << 10)]
    pages = random.Random(1).sample(sorted(content), min(READS, len(content)))
    return Memory([frame * PAGE for frame in pages], pieces), content


def write(elf: Path, content: dict[int, bytes], folder: Path) -> None:
    """The dump in three compressed forms."""
    for name, flag in (("lzo", "-l"), ("zlib", "-c")):
        subprocess.run(["makedumpfile", flag, "-d", "1", elf, folder / name], capture_output=True, check=True)
    source = FileSource(os.open(elf, os.O_RDONLY), elf.stat().st_size)
    # Without notes, and with the writer's own time of the crash, drgn takes it for no dump.
    notes = b"".join(bytes(source.pread(*extent)) for extent in read_notes(source, Elf.open(source)).extents)
    written = kdumpwriter.Kdump(pages=content, compress="zstd", notes=notes, microseconds=5)
    (folder / "zstd").write_bytes(written.tobytes())


@contextmanager
def timed(live: Live) -> Iterator[list[Cost]]:
    """Fills the list with what the body cost the server."""
    pids = family(live.process.pid)
    cost: list[Cost] = []
    before = cpu_seconds(pids), time.perf_counter()
    yield cost
    cost.append(Cost(cpu_seconds(pids) - before[0], time.perf_counter() - before[1]))


def singly(server: Connection, links: dict[str, str], memory: Memory) -> None:
    """One request a page, one after the other."""
    for at in memory.pages:
        assert server.get(links["physical"], Range=f"bytes={at}-{at + PAGE - 1}").status == 206


def batched(server: Connection, links: dict[str, str], memory: Memory) -> None:
    """All pages in one request."""
    body = pages_wire.request([("physical", at, PAGE) for at in memory.pages])
    assert server.request("POST", f"{links['self']}/pages", {"Content-Type": pages_wire.MEDIA_TYPE}, body).status == 200


def told(server: Connection, links: dict[str, str], memory: Memory) -> None:
    """The memory map: which pages are zero."""
    assert server.get(links["map"]).body.endswith(b"]}\n")


def streamed(server: Connection, links: dict[str, str], memory: Memory) -> None:
    """The whole vmcore."""
    assert len(server.get(links["vmcore"]).body) > memory.size


WAYS: Final[dict[str, Callable[[Connection, dict[str, str], Memory], None]]] = {
    "GET": singly,
    "/pages": batched,
    "/vmcore": streamed,
    "/map": told,
}


def by_farcore(folder: Path, name: str, memory: Memory) -> dict[str, Cost]:
    """What each way costs a server that has just started: no page is in its cache."""
    costs = {}
    for way, read in WAYS.items():
        with farcored(folder / name, "--workers", "1") as live, Connection(live.url, timeout=300) as server:
            links = next(iter(listed(server).values()))["links"]
            server.get(links["vmcore"], Range="bytes=0-63")
            with timed(live) as cost:
                read(server, links, memory)
            costs[way] = cost[0]
    return costs


def by_drgn(path: Path, memory: Memory) -> dict[str, Cost]:
    """drgn, on the file."""
    asked = json.dumps({"random": [(at, PAGE) for at in memory.pages], "all": memory.pieces})
    done = subprocess.run([sys.executable, "-c", DRGN, path], input=asked, capture_output=True, text=True)
    if done.returncode:
        return {}
    few, every = json.loads(done.stdout)
    return {"drgn, random": Cost(*few), "drgn, all": Cost(*every)}


def by_makedumpfile(path: Path, folder: Path) -> dict[str, Cost]:
    """makedumpfile, which reads every page and writes it raw: it makes no ELF of a compressed dump."""
    before, begun = os.times(), time.perf_counter()
    done = subprocess.run(["makedumpfile", "-f", "-d", "0", path, folder / "again"], capture_output=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {} if done.returncode else {"makedumpfile": Cost(cpu, time.perf_counter() - begun)}


def beside(way: str, rounds: list[dict[str, Cost]]) -> str:
    """The CPU beside drgn's for the same, as the median of the rounds' own ratios, and their range."""
    peer = {"/pages": "drgn, random", "GET": "drgn, random", "/vmcore": "drgn, all"}.get(way)
    if peer is None or peer not in rounds[0]:
        return ""
    ratios = sorted(each[way].cpu / each[peer].cpu for each in rounds)
    return f"   {median(ratios):.2f} of drgn's CPU ({ratios[0]:.2f}-{ratios[-1]:.2f})"


def first_byte(folder: Path) -> None:
    """From nothing to the head of a vmcore: of a dump of 1 TiB of which a few pages were kept, and of one in many fragments."""
    kept = dict.fromkeys(range(0, 1 << 28, 1 << 18), b"x" * PAGE)
    sparse = folder / "sparse"
    sparse.write_bytes(kdumpwriter.Kdump(pages=kept, compress="raw", max_frame=1 << 28).tobytes())
    crowded = folder / "crowded"
    crowded.write_bytes(kdumpwriter.fragments(3_000_000))
    print()
    for path, said in ((sparse, f"1 TiB, {len(kept):,} pages kept"), (crowded, "24 GiB, every second page kept")):
        opened, first, held, peak = opening(path)
        print(
            f"{said}: opened in {opened:.0f} ms, the first byte {first:.2f} ms later; {held:.0f} MiB held, {peak:.0f} at most"
        )


def opening(path: Path) -> list[float]:
    """Milliseconds until it is open and from there to the first byte; MiB held then, and at most."""
    script = """
import resource, sys
from time import perf_counter
from farcore.hosts import host
from farcore.arch import Policy
from farcore_server.inspection import Rules, inspect
from farcore_server.search import Place
def held():
    return int(open("/proc/self/statm").read().split()[1]) / 256
before = held()
begun = perf_counter()
dump, files = inspect(Place(sys.argv[1], "sparse", None), Rules(host("x86_64"), Policy()))
opened = perf_counter()
files.space(dump, "vmcore").pread(0, 64)
first = perf_counter() - opened
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print((opened - begun) * 1000, first * 1000, held() - before, most - before)
"""
    rows = [
        subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True) for _ in range(ROUNDS)
    ]
    return [median(float(row.stdout.split()[i]) for row in rows) for i in range(4)]


def main() -> None:
    """Print the table."""
    if shutil.which("makedumpfile") is None:
        raise SystemExit("makedumpfile is needed: apt-get install makedumpfile")
    print(f"{'':20}{'CPU us a page':>16}{'us a page':>14}{'MB a s of CPU':>16}{'MB/s':>10}")
    with TemporaryDirectory(prefix="formats-") as temporary:
        folder = Path(temporary)
        elf = Path(sys.argv[1]) if len(sys.argv) > 1 else unpack("x86_64-panic.elf", folder)
        memory, content = whole_pages(elf)
        write(elf, content, folder)
        for name in ("lzo", "zlib", "zstd"):
            rounds = [
                by_farcore(folder, name, memory) | by_drgn(folder / name, memory) | by_makedumpfile(folder / name, folder)
                for _ in range(ROUNDS)
            ]
            print(f"{name}, {memory.size >> 20} MiB")
            for way in rounds[0]:
                cpu, wall = (median(each[way][i] for each in rounds) for i in (0, 1))
                if way in ("GET", "/pages", "drgn, random"):
                    cells = f"{cpu / len(memory.pages) * 1e6:16.0f}{wall / len(memory.pages) * 1e6:14.0f}{'':26}"
                else:
                    cells = f"{'':30}{memory.size / max(cpu, 0.01) / 1e6:16.0f}{memory.size / wall / 1e6:10.0f}"
                print(f"  {way:18}{cells}{beside(way, rounds)}", flush=True)
        first_byte(folder)


if __name__ == "__main__":
    main()
