"""Ranges: random ranges and whole files, from nginx and from farcore."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from benchmarks import dump
from benchmarks.lab import Lab
from benchmarks.load import Load, Sample
from benchmarks.rounds import in_turns, middle, ratio
from benchmarks.servers import Server, farcored, nginx, responder
from benchmarks.table import Table, latency, others, rate

_BLOCKS: Final = {"4k": 4 << 10, "64k": 64 << 10, "1m": 1 << 20, "whole": 0}
_PAGE: Final = _BLOCKS["4k"]
_DEARER: Final = 1.1  # what the project allows itself of nginx's CPU time
_COLUMNS: Final = (
    "range",
    "nginx",
    "farcore",
    "ratio (least-most)",
    "nginx copying",
    "C epoll",
    "CPU s/GiB",
    "CPU ratio",
    "CPU µs/request",
    "nginx p50/p99 µs",
    "farcore p50/p99",
    "wanted",
)


@dataclass(frozen=True, slots=True)
class Row:
    """A load by its name, what farcore's rate over nginx's must be under cubic, and with how many workers it is measured."""

    name: str
    load: Load
    cubic: float | None
    most_workers: int
    tls: bool = False

    def beside(self, peer: str) -> bool:
        """Whether this peer is measured too: the floor for single pages, nginx without sendfile once for each size."""
        return self.load.block == _PAGE if peer == "C epoll" else self.load.connections == 16

    def goal(self, network: str, workers: int) -> float | None:
        """The least ratio that the project asks of itself."""
        if self.tls or workers > 1:
            return None
        return 1.0 if network == "bbr" else self.cubic if network == "cubic" else None


def _rows() -> Iterator[Row]:
    goals = {"4k-c16": 1.0, "64k-c16": 0.95, "1m-c16": 0.9, "whole-c1": 0.9, "whole-c4": 0.9}
    for block, size in _BLOCKS.items():
        for connections in (1, 16, 64) if size else (1, 4):
            name = f"{block}-c{connections}"
            yield Row(name, Load(size, connections), goals.get(name), 2 if connections > 1 else 1)
    for block, connections in (("4k", 16), ("64k", 16), ("1m", 16), ("whole", 1)):
        yield Row(f"tls-{block}-c{connections}", Load(_BLOCKS[block], connections), None, 1, tls=True)


ROWS: Final = tuple(_rows())


def measure(lab: Lab, workers: int, *, tls: bool) -> Table | None:
    """The rows that were asked for, or nothing where none was."""
    rows = [row for row in ROWS if row.tls == tls and row.most_workers >= workers and lab.wants(row.name)]
    if not rows:
        return None
    with ExitStack() as stack:
        certificate = lab.certificate if tls else None
        servers = [
            stack.enter_context(nginx(lab.root, workers=workers, certificate=certificate)),
            stack.enter_context(farcored(lab.root, workers=workers, certificate=certificate)),
        ]
        peers = []
        if not tls and workers == 1:
            peers = [
                stack.enter_context(nginx(lab.root, name="nginx copying")),
                stack.enter_context(responder(lab.programs.responder, lab.hot)),
            ]
        for server in servers:
            _verify(lab, server, *_BLOCKS.values())
        for server in peers:
            _verify(lab, server, _PAGE)
        scheme, plural = "TLS, " if tls else "", "" if workers == 1 else "s"
        table = Table(f"Ranges: {scheme}{lab.network}, {workers} worker{plural} each", _COLUMNS)
        samples = [sample for row in rows for sample in _row(lab, table, row, workers, servers, peers)]
    table.note(others(samples))
    return table


def _verify(lab: Lab, server: Server, *blocks: int) -> None:
    """Every byte of a short run at each size: a server that sends something else is fast for nothing."""
    dump.keep(lab.hot)
    for block in blocks:
        lab.ranger(lab.hot).verify(server, Load(block, 4))


def _row(lab: Lab, table: Table, row: Row, workers: int, servers: list[Server], peers: list[Server]) -> Iterator[Sample]:
    asked = [*servers, *(server for server in peers if row.beside(server.name))]
    dump.keep(lab.hot)
    samples = in_turns(asked, lab.rounds, lambda server: lab.ranger(lab.hot).quietly(server, row.load, lab.seconds))
    theirs, ours = samples["nginx"], samples["farcore"]
    faster = table.ratios[row.name] = ratio(ours, theirs, lambda sample: sample.bytes)
    gib = [f"{middle(some, lambda sample: sample.cpu_per_gib):.3g}" for some in (theirs, ours)]
    each = [f"{middle(some, lambda sample: sample.cpu_per_request) * 1e6:.1f}" for some in (theirs, ours)]
    dearer = ratio(ours, theirs, lambda sample: sample.cpu_per_gib).median
    table.add(
        row.name,
        rate(theirs, row.load.block),
        rate(ours, row.load.block),
        str(faster),
        *(_against(samples.get(name), theirs) for name in ("nginx copying", "C epoll")),
        " : ".join(gib),
        f"{dearer:.2f}",
        " : ".join(each) if row.load.block else "",
        latency(theirs),
        latency(ours),
        _verdict(row.goal(lab.network, workers), faster.median, dearer),
    )
    for some in samples.values():
        yield from some


def _against(some: list[Sample] | None, theirs: list[Sample]) -> str:
    return f"{ratio(some, theirs, lambda sample: sample.bytes).median:.2f}" if some else ""


def _verdict(goal: float | None, faster: float, dearer: float) -> str:
    if goal is None:
        return ""
    return f"{goal:.2f} {'met' if faster >= goal else 'MISSED'}, CPU {'met' if dearer <= _DEARER else 'MISSED'}"
