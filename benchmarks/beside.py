"""Beside: how long a reader of hot pages waits while others read what is on disk, or whole files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import dump, process
from benchmarks.lab import Lab
from benchmarks.load import WARM_UP, Load, Sample
from benchmarks.rounds import in_turns, middle, ratio
from benchmarks.servers import Server, farcored, nginx
from benchmarks.table import Table

ROWS: Final = ("cold", "streams")
_HOT: Final = Load(4 << 10, 4)
_COLD: Final = Load(1 << 20, 4)
_STREAMS: Final = Load(0, 2)
_COLUMNS: Final = ("beside", "server", "p50 µs", "p99 µs", "p99 to nginx", "rate", "theirs", "from disk", "wanted")


@dataclass(frozen=True, slots=True)
class Beside:
    """The hot readers' sample, the other readers' bytes a second, and what part of those came from the disk."""

    hot: Sample
    rate: float
    disk: float


def measure(lab: Lab) -> Table | None:
    """Hot readers beside four cold ones, and beside two streams."""
    if not any(map(lab.wants, ROWS)):
        return None
    table = Table(f"4 KiB on 4 connections beside others: {lab.network}, 1 worker each", _COLUMNS)
    with ExitStack() as stack:
        plain = stack.enter_context(nginx(lab.root))
        threads = stack.enter_context(nginx(lab.root, name="nginx aio"))
        ours = stack.enter_context(farcored(lab.root))
        if lab.wants("cold"):
            _compare(lab, table, "cold", [plain, threads, ours])
        if lab.wants("streams"):
            _compare(lab, table, "streams", [plain, ours])
    return table


def _compare(lab: Lab, table: Table, row: str, servers: list[Server]) -> None:
    file, load = (lab.cold, _COLD) if row == "cold" else (lab.hot, _STREAMS)
    samples = in_turns(servers, lab.rounds, lambda server: _beside(lab, server, file, load))
    for name, some in samples.items():
        against = ratio(some, samples["nginx"], lambda each: each.hot.p99)
        table.add(
            row,
            name,
            f"{middle(some, lambda each: each.hot.p50):.0f}",
            f"{middle(some, lambda each: each.hot.p99):.0f}",
            str(against) if name != "nginx" else "",
            f"{middle(some, lambda each: each.hot.requests) / 1e3:.1f} k/s",
            f"{middle(some, lambda each: each.rate) / 1e9:.2f} GB/s",
            f"{middle(some, lambda each: each.disk):.0%}" if row == "cold" else "",
            _verdict(row, some, against.median) if name == "farcore" else "",
        )


def _verdict(row: str, some: list[Beside], against: float) -> str:
    if row == "cold" and middle(some, lambda each: each.disk) < 0.5:
        return "it was not cold"  # $BENCH_DIR is on tmpfs, or its filesystem does not say
    wanted, met = ("0.90", against <= 0.9) if row == "cold" else ("10 ms", middle(some, lambda each: each.hot.p99) <= 10_000)
    return f"{wanted} {'met' if met else 'MISSED'}"


def _beside(lab: Lab, server: Server, file: Path, load: Load) -> Beside:
    dump.keep(lab.hot)
    family = server.family
    with ExitStack() as stack:
        if file == lab.cold:
            stack.enter_context(_forgotten(file))
        read = process.disk_bytes(family)
        end = stack.enter_context(lab.ranger(file).beside(server, load, lab.seconds + 2 * WARM_UP))
        hot = lab.ranger(lab.hot).measure(server, _HOT, lab.seconds)
        seen = end()
        read = process.disk_bytes(family) - read
    return Beside(hot, seen["bytes"] / seen["seconds"], read / max(1, seen["bytes"]))


@contextmanager
def _forgotten(file: Path) -> Iterator[None]:
    """Keep dropping the file's pages from memory, as fast as its readers bring them in."""
    descriptor = os.open(file, os.O_RDONLY)
    ended = threading.Event()
    dropper = threading.Thread(target=_drop, args=(descriptor, ended.is_set))
    _drop(descriptor, lambda: True)
    dropper.start()
    try:
        yield
    finally:
        ended.set()
        dropper.join()
        os.close(descriptor)


def _drop(descriptor: int, ended: Callable[[], bool]) -> None:
    while True:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if ended():
            return
        time.sleep(0.2)
