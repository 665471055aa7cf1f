"""Load: so many connections asking for ranges of one size, and what a server made of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import BenchmarkError, process
from benchmarks.servers import Server

GIB: Final = 1 << 30
WARM_UP: Final = 0.3  # seconds before a figure is taken
# A sample that others disturbed, by more of the machine than this, is taken again, so often at most.
QUIET: Final = 0.05
ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Load:
    """``block`` bytes at random places, 0 for the whole file, asked for on each of ``connections`` as soon as the last came."""

    block: int
    connections: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: per second, latencies in µs, the server's CPU seconds, what others took of the machine (0 to 1)."""

    requests: float
    bytes: float
    p50: float
    p99: float
    cpu_per_request: float
    cpu_per_gib: float
    others: float


@dataclass(frozen=True, slots=True)
class Ranger:
    """The load client, aimed at one file."""

    program: Path
    file: Path

    def quietly(self, server: Server, load: Load, seconds: float) -> Sample:
        """The least disturbed of some samples, or the first that was not; by what others did, never by its figures."""
        samples: list[Sample] = []
        while len(samples) < ATTEMPTS and (not samples or samples[-1].others > QUIET):
            samples.append(self.measure(server, load, seconds))
        return min(samples, key=lambda sample: sample.others)

    def measure(self, server: Server, load: Load, seconds: float) -> Sample:
        """``seconds`` of it, after a warm-up in which connections are made, and which no figure is about."""
        family = server.family
        machine, cold = process.machine_seconds(), process.cpu_seconds(family)
        child = self._start(server, load, seconds, WARM_UP)
        _await_warmth(child)
        warm = process.cpu_seconds(family)
        seen = _finish(child)
        end = process.cpu_seconds(family)
        if not seen["bytes"]:
            raise BenchmarkError(f"{server.name} sent nothing in {seconds:g} s")
        others = process.machine_seconds() - machine - (end - cold) - seen["client_cpu"]
        return Sample(
            requests=seen["requests"] / seen["seconds"],
            bytes=seen["bytes"] / seen["seconds"],
            p50=seen["p50_us"],
            p99=seen["p99_us"],
            cpu_per_request=(end - warm) / max(1, seen["requests"]),
            cpu_per_gib=(end - warm) / seen["bytes"] * GIB,
            others=max(0.0, others) / (seen["seconds"] + WARM_UP) / (os.cpu_count() or 1),
        )

    def verify(self, server: Server, load: Load) -> None:
        """BenchmarkError unless every byte that comes is the file's."""
        _finish(self._start(server, load, 0.2, 0, "-V", str(self.file)))

    @contextmanager
    def beside(self, server: Server, load: Load, seconds: float) -> Iterator[Callable[[], dict[str, Any]]]:
        """The load for about the time of the body; the call ends it, and tells what it saw."""
        child = self._start(server, load, seconds, 0)
        try:
            yield lambda: _finish(child)
        finally:
            child.kill()
            child.wait()

    def _start(self, server: Server, load: Load, seconds: float, warm_up: float, *more: str) -> subprocess.Popen[str]:
        options: Mapping[str, object] = {
            "-p": server.port,
            "-u": server.paths[self.file.name],
            "-s": self.file.stat().st_size,
            "-b": load.block,
            "-c": load.connections,
            "-d": seconds,
            "-w": warm_up,
        }
        words = [str(word) for option in options.items() for word in option]
        command = ["setpriv", "--pdeathsig", "KILL", str(self.program), *words, *(["-T"] if server.tls else []), *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _await_warmth(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    child.stdout.readline()


def _finish(child: subprocess.Popen[str]) -> dict[str, Any]:
    """What it saw, once it has ended; it does not outlive an interruption."""
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        # Not communicate(), which would lose what the pipe's buffer holds since the first line was read.
        out, err = child.stdout.read(), child.stderr.read()
        child.wait()
    except BaseException:
        child.kill()
        raise
    if child.returncode:
        raise BenchmarkError(f"ranger ended with {child.returncode}: {err.strip()}")
    seen: dict[str, Any] = json.loads(out.splitlines()[-1])
    return seen
