"""Pages: 2,008 scattered pages, what a cold start of crash reads, in each way that a server has of giving them."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Sequence
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
from farcore.batch import Batch
from farcore.frames import MEDIA_TYPE, Decoder

ROWS: Final = ("pages",)
COUNT: Final = 2008
PASSES: Final = 10  # of the whole list, a round; the first is left out
_COLUMNS: Final = ("way", "ms", "CPU ms", "MB received", "times quicker", "wanted")


@dataclass(frozen=True, slots=True)
class Way:
    """Requests that together ask for all the pages, and over how many connections."""

    name: str
    server: Server
    connections: int
    requests: Path


@dataclass(frozen=True, slots=True)
class Passed:
    """One round's median of seconds from the first request to the last byte, CPU seconds, bytes of bodies."""

    seconds: float
    cpu: float
    bytes: int


def measure(lab: Lab) -> Table | None:
    """Time and CPU of each way; nginx's best is what farcore is held against."""
    if not lab.wants("pages"):
        return None
    offsets = np.sort(np.random.default_rng(2008).choice(dump.filled(lab.hot), COUNT, replace=False)).tolist()
    with ExitStack() as stack:
        theirs, ours = stack.enter_context(nginx(lab.root)), stack.enter_context(farcored(lab.root))
        ways = [*_nginx_ways(lab, theirs, offsets), *_farcore_ways(lab, ours, offsets)]
        dump.keep(lab.hot)
        for way in ways:
            _verify(lab, way, offsets)
        table = Table(f"{COUNT:,} scattered pages: {lab.network}, 1 worker each", _COLUMNS)
        passed = in_turns(ways, lab.rounds, lambda way: _pass(lab, way))
    best = min((some for name, some in passed.items() if name.startswith("nginx")), key=lambda some: middle(some, _seconds))
    for name, some in passed.items():
        quicker = ratio(best, some, _seconds)
        table.add(
            name,
            f"{middle(some, _seconds) * 1e3:.1f}",
            f"{middle(some, lambda each: each.cpu) * 1e3:.1f}",
            f"{some[0].bytes / 1e6:.2f}",
            str(quicker) if name.startswith("farcore") else "",
            _verdict(name, quicker.median, middle(some, _seconds)),
        )
    return table


def _seconds(passed: Passed) -> float:
    return passed.seconds


def _verdict(name: str, quicker: float, seconds: float) -> str:
    goals = {"farcore batch": ("8 times", quicker >= 8), "farcore zstd 1": ("15 ms", seconds <= 0.015)}
    wanted, met = goals.get(name, ("", True))
    return wanted and f"{wanted} {'met' if met else 'MISSED'}"


def _nginx_ways(lab: Lab, server: Server, offsets: Sequence[int]) -> list[Way]:
    ranges = [f"{at}-{at + dump.PAGE - 1}" for at in offsets]
    head = f"GET {server.paths[lab.hot.name]} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nRange: bytes="
    single = _written(lab, "single", [f"{head}{each}\r\n\r\n".encode() for each in ranges])
    many = _written(lab, "multi-range", [f"{head}{','.join(ranges)}\r\n\r\n".encode()])
    ways = [Way(f"nginx single c{connections}", server, connections, single) for connections in (1, 16, 64)]
    return [*ways, Way("nginx multi-range", server, 1, many)]


def _farcore_ways(lab: Lab, server: Server, offsets: Sequence[int]) -> list[Way]:
    path = server.paths[lab.hot.name].removesuffix("/vmcore") + "/pages"
    ways = []
    for name, level in (("batch", None), ("zstd 1", 1)):
        body = Batch.of([("vmcore", at, dump.PAGE) for at in offsets], level).pack()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: {MEDIA_TYPE}\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        ways.append(Way(f"farcore {name}", server, 1, _written(lab, name, [request])))
    return ways


def _written(lab: Lab, name: str, requests: Sequence[bytes]) -> Path:
    """A file of requests as c/batch.c reads it."""
    path = lab.root.parent / f"{name}.requests"
    path.write_bytes(b"".join(struct.pack("<I", len(request)) + request for request in requests))
    return path


def _run(lab: Lab, way: Way, connections: int, passes: int, *more: str) -> tuple[list[float], int]:
    options = ["-p", str(way.server.port), "-i", str(way.requests), "-c", str(connections), "-n", str(passes), *more]
    done = subprocess.run([lab.programs.batch, *options], capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"{way.name}: {done.stderr.strip()}")
    said = json.loads(done.stdout)
    return said["seconds"], said["bytes"]


def _pass(lab: Lab, way: Way) -> Passed:
    family = way.server.family
    cpu = process.cpu_seconds(family)
    seconds, received = _run(lab, way, way.connections, PASSES + 1)
    return Passed(median(seconds[1:]), (process.cpu_seconds(family) - cpu) / len(seconds), received)


def _verify(lab: Lab, way: Way, offsets: Sequence[int]) -> None:
    """BenchmarkError unless the bodies are the file's pages."""
    bodies = lab.root.parent / "bodies"
    _run(lab, way, 1, 1, "-o", str(bodies))
    received = bodies.read_bytes()
    content = np.memmap(lab.hot, "u1", "r")
    wanted = [content[at : at + dump.PAGE].tobytes() for at in offsets]
    if way.server.name == "farcore":
        decoder = Decoder(COUNT * dump.PAGE, zstd=True)
        received = b"".join(bytes(piece.content) for piece in decoder.feed(received))
        decoder.finish()
    elif way.name == "nginx multi-range":
        received = _parts(received)
    if received != b"".join(wanted):
        raise BenchmarkError(f"{way.name}: these are not the pages that were asked for")


def _parts(body: bytes) -> bytes:
    """The pages of a multipart/byteranges body, one after the other."""
    pages, at = [], body.find(b"\r\n\r\n")
    while at >= 0:
        pages.append(body[at + 4 : at + 4 + dump.PAGE])
        at = body.find(b"\r\n\r\n", at + 4 + dump.PAGE)
    return b"".join(pages)
