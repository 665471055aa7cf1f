"""Metrics: plain integers that any path may add to, shown in the Prometheus text format.

They lie in memory that all workers share, a row each. A worker writes its own row alone, so that nothing is locked, and any
worker can show the sum. A row outlives its worker: the one that takes its place goes on counting in it.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterable
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from farcore.arrays import Array
from farcore_server.dump import Dump

# The names of app.py's routes; what goes by no name, or by one that is not here, counts as "none".
ROUTES: Final = (
    "none",
    "catalogue",
    "dumps",
    "dump",
    "vmcore",
    "stored",
    "physical",
    "pages",
    "map",
    "dmesg",
    "manifest",
    "verified",
    "profile",
    "healthz",
    "readyz",
    "metrics",
    "openapi",
)
# Cells of a row. Of each route: its bytes, then, at the place of its number, each status (100 to 599).
_EACH: Final = 600
_AT: Final = {route: i * _EACH for i, route in enumerate(ROUTES)}
# Behind them, of the worker: what it has counted, what there is of it now, and what it says of itself.
CUT: Final = len(ROUTES) * _EACH
ENDED, STREAMS, CONNECTIONS, READY, SERVED, REFUSED, WIDTH = range(CUT + 1, CUT + 8)


class Rows:
    """The counts of so many workers, in anonymous memory that processes forked from this one share with it."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._memory = mmap.mmap(-1, workers * WIDTH * 8)
        self._cells = memoryview(self._memory).cast("Q")

    def row(self, worker: int) -> memoryview[int]:
        """The cells of one worker."""
        return self._cells[worker * WIDTH : (worker + 1) * WIDTH]

    def column(self, cell: int) -> list[int]:
        """That cell of every worker."""
        return self._cells[cell::WIDTH].tolist()

    def total(self) -> Array[np.uint64]:
        """(WIDTH,): each cell's sum over all workers, as of now and without waiting for any."""
        total: Array[np.uint64] = np.frombuffer(self._memory, np.uint64).reshape(self.workers, WIDTH).sum(axis=0)
        return total

    def bury(self, worker: int) -> None:
        """The worker has ended: what it counted stays, what it had is gone with it."""
        row = self.row(worker)
        row[ENDED] += 1
        for cell in (STREAMS, CONNECTIONS, READY):
            row[cell] = 0


class Metrics:
    """What one worker counts."""

    __slots__ = ("_row", "rows")

    def __init__(self, rows: Rows | None = None, worker: int = 0) -> None:
        self.rows = rows or Rows(1)
        self._row = self.rows.row(worker)

    def count(self, route: str, status: int, sent: int, answers: int = 1) -> None:
        """So many answers with ``sent`` bytes of body in all."""
        row = self._row
        at = _AT.get(route, 0)
        row[at + status] += answers
        row[at] += sent

    def count_sent(self, route: str, sent: int) -> None:
        """Bytes of a body whose answer is counted elsewhere."""
        self._row[_AT.get(route, 0)] += sent

    @property
    def requests(self) -> dict[tuple[str, int], int]:
        """Answers of this worker by (route, status), as far as there were any."""
        return dict(_answers(np.array(self._row, np.uint64)))

    @property
    def cut(self) -> int:
        """Bodies cut because their dump changed."""
        return self._row[CUT]

    @cut.setter
    def cut(self, count: int) -> None:
        self._row[CUT] = count

    @property
    def streams(self) -> int:
        """Bodies being sent."""
        return self._row[STREAMS]

    @streams.setter
    def streams(self, count: int) -> None:
        self._row[STREAMS] = count

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return self._row[CONNECTIONS]

    @connections.setter
    def connections(self, count: int) -> None:
        self._row[CONNECTIONS] = count

    def ready(self, served: int, refused: int) -> None:
        """This worker accepts connections, and has these dumps."""
        row = self._row
        row[SERVED], row[REFUSED], row[READY] = served, refused, 1

    def retire(self) -> None:
        """It accepts none any more."""
        self._row[READY] = 0

    def busier(self) -> bool:
        """Whether another worker that accepts connections has clearly fewer of them: by one below 8, later by an eighth."""
        own = self._row[CONNECTIONS]
        if own == 0:
            return False
        rows = self.rows
        others = (count for count, ready in zip(rows.column(CONNECTIONS), rows.column(READY), strict=True) if ready)
        return min(others, default=own) + own // 8 < own


def _answers(cells: Array[np.uint64]) -> Iterable[tuple[tuple[str, int], int]]:
    for route, at in _AT.items():
        for status in np.flatnonzero(cells[at + 1 : at + _EACH]) + 1:
            yield (route, int(status)), int(cells[at + status])


class _Reading(Collector):
    def __init__(self, rows: Rows, dumps: Iterable[Dump]) -> None:
        self.rows, self.dumps = rows, dumps

    def collect(self) -> Iterable[Metric]:
        total = self.rows.total()
        requests = CounterMetricFamily("farcore_requests", "Answers by route and status.", labels=("route", "status"))
        for (route, status), count in _answers(total):
            requests.add_metric((route, str(status)), count)
        sent = CounterMetricFamily("farcore_sent_bytes", "Bytes of dumps sent.", labels=("route",))
        for route, at in _AT.items():
            if total[at]:
                sent.add_metric((route,), int(total[at]))
        # Each worker searches for itself: this is what the one that answers has found.
        dumps = GaugeMetricFamily("farcore_dumps", "Dumps in the catalogue.", labels=("state",))
        for state, count in Counter(dump.state for dump in self.dumps).items():
            dumps.add_metric((state,), count)
        return (
            requests,
            sent,
            dumps,
            CounterMetricFamily("farcore_cut_bodies", "Bodies cut because their dump changed.", value=int(total[CUT])),
            GaugeMetricFamily("farcore_streams", "Bodies being sent.", value=int(total[STREAMS])),
            GaugeMetricFamily("farcore_connections", "Connections that are open.", value=int(total[CONNECTIONS])),
            GaugeMetricFamily("farcore_workers", "Workers that accept connections.", value=int(total[READY])),
            CounterMetricFamily("farcore_worker_ends", "Workers that ended unasked.", value=int(total[ENDED])),
        )


def exposition(metrics: Metrics, dumps: Iterable[Dump]) -> bytes:
    """Prometheus text format 0.0.4: the sum of all workers."""
    registry = CollectorRegistry()
    registry.register(_Reading(metrics.rows, dumps))
    return generate_latest(registry)
