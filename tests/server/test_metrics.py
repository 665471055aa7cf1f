"""Metrics: what workers count in their rows is what anyone of them shows, and a row outlives its worker."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from farcore.arch import Policy
from farcore.hosts import host
from farcore_server.access import Access
from farcore_server.app import make_app
from farcore_server.catalogue import Catalogue
from farcore_server.inspection import Rules
from farcore_server.metrics import ROUTES, Metrics, Rows, exposition

Shown = dict[tuple[str, ...], float]


def shown(metrics: Metrics, name: str) -> Shown:
    """The samples of that name, by their labels' values."""
    families = text_string_to_metric_families(exposition(metrics, ()).decode())
    return {tuple(each.labels.values()): each.value for family in families for each in family.samples if each.name == name}


def test_a_server_that_has_done_nothing_shows_nothing_but_zeros() -> None:
    metrics = Metrics()
    assert shown(metrics, "farcore_requests_total") == {}
    assert shown(metrics, "farcore_sent_bytes_total") == {}
    names = ("cut_bodies_total", "streams", "connections", "workers", "worker_ends_total")
    assert [shown(metrics, f"farcore_{name}") for name in names] == [{(): 0}] * len(names)


answers = st.tuples(st.integers(0, 2), st.sampled_from(ROUTES), st.integers(100, 599), st.integers(0, 1 << 40))


@given(st.lists(answers, max_size=30))
def test_the_text_is_the_sum_over_all_workers_whichever_of_them_is_asked(made: list[tuple[int, str, int, int]]) -> None:
    rows = Rows(3)
    workers = [Metrics(rows, number) for number in range(3)]
    requests: Counter[tuple[str, str]] = Counter()
    sent: Counter[tuple[str]] = Counter()
    for number, route, status, length in made:
        workers[number].count(route, status, length)
        requests[route, str(status)] += 1
        sent[route,] += length
    for worker in workers:
        assert shown(worker, "farcore_requests_total") == requests
        assert shown(worker, "farcore_sent_bytes_total") == +sent


def test_bytes_that_are_counted_apart_from_their_answer_are_bytes_of_its_route() -> None:
    metrics = Metrics()
    metrics.count("vmcore", 206, 0)
    metrics.count_sent("vmcore", 5)
    metrics.count_sent("stored", 7)
    assert shown(metrics, "farcore_sent_bytes_total") == {("vmcore",): 5, ("stored",): 7}
    assert metrics.requests == {("vmcore", 206): 1}


def test_a_route_without_a_place_of_its_own_counts_as_none() -> None:
    metrics = Metrics()
    for route in ("", "none", "of a later version"):
        metrics.count(route, 404, 1)
    assert shown(metrics, "farcore_requests_total") == {("none", "404"): 3}
    assert shown(metrics, "farcore_sent_bytes_total") == {("none",): 3}


def test_every_route_of_the_application_has_a_place_of_its_own() -> None:
    rules = Rules(host("x86_64"), Policy("cross"), 0)
    app: web.Application = make_app(Catalogue((), rules), Access(None), Metrics())
    assert {route.name for route in app.router.routes()} <= set(ROUTES)


def test_what_there_is_of_each_worker_is_added_up() -> None:
    rows = Rows(2)
    first, second = Metrics(rows, 0), Metrics(rows, 1)
    first.streams += 3
    first.streams -= 1
    second.streams += 4
    first.cut += 1
    second.cut += 1
    first.connections, second.connections = 10, 20
    first.ready(5, 2)
    told = [shown(second, f"farcore_{name}") for name in ("streams", "cut_bodies_total", "connections", "workers")]
    assert told == [{(): 6}, {(): 2}, {(): 30}, {(): 1}]
    first.retire()
    assert shown(second, "farcore_workers") == {(): 0}


# Three processes count at the same time; one of them is killed in the middle of something.
FORKED = """
import os, signal
from farcore_server.metrics import Metrics, Rows, exposition
rows = Rows(3)
for number in range(3):
    if os.fork() == 0:
        metrics = Metrics(rows, number)
        metrics.ready(1, 0)
        metrics.connections = metrics.streams = 7
        for _ in range(20000):
            metrics.count("vmcore", 206, 4096)
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
for _ in range(3):
    os.wait()
rows.bury(2)
Metrics(rows, 2).count("vmcore", 206, 4096)  # who takes its place
print(exposition(Metrics(rows, 0), ()).decode())
"""


def test_counts_of_processes_at_work_at_once_are_whole_and_those_of_a_killed_one_are_kept() -> None:
    text = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, timeout=60).stdout
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert float(lines['farcore_requests_total{route="vmcore",status="206"}']) == 60_001
    assert float(lines['farcore_sent_bytes_total{route="vmcore"}']) == 60_001 * 4096
    # Of what it had nothing is left.
    assert [float(lines[f"farcore_{name}"]) for name in ("connections", "streams", "workers")] == [14, 14, 2]
    assert float(lines["farcore_worker_ends_total"]) == 1


@pytest.mark.parametrize(
    ("own", "other", "busier"),
    [(0, 0, False), (1, 0, True), (1, 1, False), (7, 6, True), (8, 7, False), (8, 6, True), (80, 70, False), (80, 69, True)],
)
def test_a_worker_knows_when_another_should_take_the_next_connection(own: int, other: int, busier: bool) -> None:
    rows = Rows(3)
    mine, theirs, starting = (Metrics(rows, number) for number in range(3))
    mine.ready(1, 0)
    mine.connections, theirs.connections, starting.connections = own, other, 0
    assert not mine.busier(), "nobody else accepts connections yet"
    theirs.ready(1, 0)
    assert mine.busier() is busier
    theirs.retire()
    assert not mine.busier()
