"""Pages: 2,008 scattered pages, what a cold start of crash reads, in each way that a server has of giving them.

Over loopback, and over a line with a round trip of 40 ms.
"""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from benchmarks import BenchmarkError, dump, process
from benchmarks.lab import Lab
from benchmarks.rounds import in_turns, middle, ratio
from benchmarks.servers import Server, farcored, nginx
from benchmarks.table import Table
from benchmarks.wan import wan
from farcore.batch import Batch
from farcore.frames import MEDIA_TYPE, Decoder

ROWS: Final = ("pages", "pages-far")
COUNT: Final = 2008
PASSES: Final = 10  # of the whole list, a round; the first is left out
# What nginx takes as one line of a request's head unless it is told otherwise (large_client_header_buffers 4 8k).
LINE: Final = 8 << 10
ROUND_TRIP: Final = 0.040  # seconds
RATE: Final = 100  # Mbit/s
# As many bytes side by side in the file: what sending them costs alone, by whatever server.
FLOOR: Final = "nginx, one such range"
_COLUMNS: Final = ("way", "requests", "ms", "CPU ms", "MB received", "to the batch", "wanted")
_PART: Final = b"\r\nContent-Range: "


@dataclass(frozen=True, slots=True)
class Way:
    """Requests that together ask for all the pages, and over how many connections."""

    name: str
    server: Server
    connections: int
    requests: int
    file: Path


@dataclass(frozen=True, slots=True)
class Passed:
    """One round's median of seconds from the first request to the last byte, CPU seconds, bytes of bodies."""

    seconds: float
    cpu: float
    bytes: int


def measure(lab: Lab) -> Table | None:
    """Time and CPU of each way over loopback; farcore's batch is what each is held against."""
    if not lab.wants("pages"):
        return None
    offsets = _offsets(lab)
    with ExitStack() as stack:
        theirs, ours = stack.enter_context(nginx(lab.root)), stack.enter_context(farcored(lab.root))
        ways = [*_nginx_ways(lab, theirs, offsets), *_farcore_ways(lab, ours, offsets)]
        dump.keep(lab.hot)
        for way in ways:
            _verify(lab, way, offsets)
        title = f"{COUNT:,} scattered pages: {lab.network}, 1 worker each"
        return _table(title, ways, in_turns(ways, lab.rounds, lambda way: _pass(lab, way, PASSES)), judged=True)


def measure_far(lab: Lab) -> Table | None:
    """The same over a line, by connections that are made for it; needs root."""
    if not lab.wants("pages-far"):
        return None
    offsets = _offsets(lab)
    with ExitStack() as stack:
        line = stack.enter_context(wan("pages", rtt=ROUND_TRIP, mbit=RATE))
        stack.enter_context(line.at_client())
        theirs, ours = stack.enter_context(nginx(lab.root, line=line)), stack.enter_context(farcored(lab.root, line=line))
        ways = [*_nginx_ways(lab, theirs, offsets), *_farcore_ways(lab, ours, offsets)]
        # One after the other they take 80 s of round trips, whoever answers.
        ways = [way for way in ways if way.connections > 1 or way.requests < COUNT]
        dump.keep(lab.hot)
        title = f"{COUNT:,} scattered pages over a round trip of {ROUND_TRIP * 1e3:.0f} ms, {RATE} Mbit/s: cubic, 1 worker each"
        return _table(title, ways, in_turns(ways, min(lab.rounds, 3), lambda way: _pass(lab, way, 0)), judged=False)


def _offsets(lab: Lab) -> list[int]:
    chosen: list[int] = np.random.default_rng(COUNT).choice(dump.filled(lab.hot), COUNT, replace=False).tolist()
    return sorted(chosen)


def _table(title: str, ways: Sequence[Way], passed: Mapping[str, Sequence[Passed]], *, judged: bool) -> Table:
    table = Table(title, _COLUMNS)
    for way in ways:
        some = passed[way.name]
        against = ratio(some, passed["farcore batch"], _seconds)
        table.add(
            way.name,
            f"{way.requests:,}",
            f"{middle(some, _seconds) * 1e3:.1f}",
            f"{middle(some, lambda each: each.cpu) * 1e3:.1f}",
            f"{some[0].bytes / 1e6:.2f}",
            "" if way.name == "farcore batch" else str(against),
            _verdict(way, against.median, middle(some, _seconds)) if judged else "",
        )
    return table


def _seconds(passed: Passed) -> float:
    return passed.seconds


def _verdict(way: Way, against: float, seconds: float) -> str:
    """What the project asks of itself: the batch 8 times quicker than each way of nginx's, and zstd in 15 ms."""
    if way.name == FLOOR:
        return "the floor"
    if way.server.name == "nginx":
        return f"8 {'met' if against >= 8 else 'MISSED'}"
    return f"15 ms {'met' if seconds <= 0.015 else 'MISSED'}" if way.name == "farcore zstd 1" else ""


def _nginx_ways(lab: Lab, server: Server, offsets: Sequence[int]) -> list[Way]:
    ranges = [f"{at}-{at + dump.PAGE - 1}" for at in offsets]
    head = f"GET {server.paths[lab.hot.name]} HTTP/1.1\r\nHost: {server.address}:{server.port}\r\nRange: bytes="
    grouped = _lines(ranges, LINE - len("Range: bytes=\r\n"))
    single, several, whole = (
        _written(lab, name, [f"{head}{','.join(each)}\r\n\r\n".encode() for each in groups])
        for name, groups in (("single", [[each] for each in ranges]), ("several", grouped), ("multi-range", [ranges]))
    )
    ways = [Way(f"nginx single c{connections}", server, connections, COUNT, single) for connections in (1, 16, 64)]
    ways += [Way(f"nginx multi-range 8k c{connections}", server, connections, len(grouped), several) for connections in (1, 16)]
    one = _written(lab, "one", [f"{head}{dump.PAGE}-{(COUNT + 1) * dump.PAGE - 1}\r\n\r\n".encode()])
    return [*ways, Way("nginx multi-range 64k", server, 1, 1, whole), Way(FLOOR, server, 1, 1, one)]


def _lines(ranges: Sequence[str], room: int) -> list[list[str]]:
    """The ranges in groups, each of which is at most ``room`` characters long."""
    groups: list[list[str]] = [[]]
    left = room
    for each in ranges:
        if len(each) > left:
            groups.append([])
            left = room
        groups[-1].append(each)
        left -= len(each) + 1
    return groups


def _farcore_ways(lab: Lab, server: Server, offsets: Sequence[int]) -> list[Way]:
    path = server.paths[lab.hot.name].removesuffix("/vmcore") + "/pages"
    ways = []
    for name, level in (("batch", None), ("zstd 1", 1)):
        body = Batch.of([("vmcore", at, dump.PAGE) for at in offsets], level).pack()
        head = f"POST {path} HTTP/1.1\r\nHost: {server.address}:{server.port}\r\nContent-Type: {MEDIA_TYPE}\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        ways.append(Way(f"farcore {name}", server, 1, 1, _written(lab, name, [request])))
    return ways


def _written(lab: Lab, name: str, requests: Sequence[bytes]) -> Path:
    """A file of requests as c/batch.c reads it."""
    path = lab.root.parent / f"{name}.requests"
    path.write_bytes(b"".join(struct.pack("<I", len(request)) + request for request in requests))
    return path


def _run(lab: Lab, way: Way, connections: int, passes: int, *more: str) -> tuple[list[float], int]:
    options = [
        "-a",
        way.server.address,
        "-p",
        str(way.server.port),
        "-i",
        str(way.file),
        "-c",
        str(connections),
        "-n",
        str(passes),
        *more,
    ]
    done = subprocess.run([lab.programs.batch, *options], capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"{way.name}: {done.stderr.strip()}")
    said = json.loads(done.stdout)
    return said["seconds"], said["bytes"]


def _pass(lab: Lab, way: Way, passes: int) -> Passed:
    """All the pages once, and then, if there are more ``passes``, those alone."""
    family = way.server.family
    cpu = process.cpu_seconds(family)
    seconds, received = _run(lab, way, way.connections, 1 + passes)
    return Passed(median(seconds[min(passes, 1) :]), (process.cpu_seconds(family) - cpu) / len(seconds), received)


def _verify(lab: Lab, way: Way, offsets: Sequence[int]) -> None:
    """BenchmarkError unless the bodies are the file's pages."""
    bodies = lab.root.parent / "bodies"
    _run(lab, way, 1, 1, "-o", str(bodies))
    received = bodies.read_bytes()
    content = np.memmap(lab.hot, "u1", "r")
    if way.name == FLOOR:
        offsets = range(dump.PAGE, (COUNT + 1) * dump.PAGE, dump.PAGE)
    wanted = [content[at : at + dump.PAGE].tobytes() for at in offsets]
    if way.server.name == "farcore":
        decoder = Decoder(COUNT * dump.PAGE, zstd=True)
        received = b"".join(bytes(piece.content) for piece in decoder.feed(received))
        decoder.finish()
    elif way.requests < COUNT and way.name != FLOOR:
        received = _parts(received)
    if received != b"".join(wanted):
        raise BenchmarkError(f"{way.name}: these are not the pages that were asked for")


def _parts(bodies: bytes) -> bytes:
    """The pages of multipart/byteranges bodies, one after the other."""
    pages, at = [], bodies.find(_PART)
    while at >= 0:
        begin = bodies.find(b"\r\n\r\n", at) + 4
        pages.append(bodies[begin : begin + dump.PAGE])
        at = bodies.find(_PART, begin + dump.PAGE)
    return b"".join(pages)
