"""Read-ahead and the link: what a read calls for, by the reads before it and what the way to the server is worth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore_client.exchange import Transfer
from farcore_client.remote.link import Link
from farcore_client.remote.readahead import MAX_HEADS, NONE, Head, Pages, advise

BLOCK, WINDOW = 16, 256


def walk(reads: list[Pages], heads: tuple[Head, ...] = ()) -> tuple[tuple[Head, ...], set[int], int]:
    """The heads after these reads, the pages that were brought, and how often a read missed."""
    held: set[int] = set()
    missed = 0
    for read in reads:
        lacks = not held.issuperset(range(*read))
        missed += lacks
        heads, fetch = advise(heads, read, missed=lacks, block=BLOCK, window=WINDOW)
        held |= {*range(*read), *range(*fetch)}
    return heads, held, missed


def test_a_single_miss_brings_the_block_around_it() -> None:
    _, held, _ = walk([Pages(1005, 1006)])
    assert held == set(range(992, 1008))


def test_a_reader_in_sequence_misses_once_and_its_window_grows_to_the_most() -> None:
    heads, held, missed = walk([Pages(page, page + 1) for page in range(992, 3000)])
    assert missed == 1
    assert heads[0].window == WINDOW
    assert max(held) < 3000 + 2 * WINDOW


def test_several_readers_in_sequence_do_not_disturb_each_other() -> None:
    starts = (0, 100_000, 200_000, 300_000)
    reads = [Pages(start + page, start + page + 1) for page in range(500) for start in starts]
    _, _, missed = walk(reads)
    assert missed == len(starts)


def test_reads_without_order_bring_a_block_each_and_heads_stay_few() -> None:
    reads = [Pages(7919 * n % 1_000_000, 7919 * n % 1_000_000 + 1) for n in range(500)]
    heads, held, _ = walk(reads)
    assert len(heads) == MAX_HEADS
    assert len(held) <= 500 * BLOCK


def test_threads_of_one_reader_may_overtake_each_other() -> None:
    order = [n ^ 3 for n in range(1200)]
    _, _, missed = walk([Pages(page, page + 1) for page in order])
    assert missed <= 4


def test_a_hit_that_belongs_to_no_head_calls_for_nothing() -> None:
    assert advise((), Pages(5, 6), missed=False, block=BLOCK, window=WINDOW) == ((), NONE)


@given(st.lists(st.builds(lambda start, length: Pages(start, start + length), st.integers(0, 400), st.integers(1, 40))))
def test_nothing_is_asked_for_beyond_a_window_of_what_was_read(reads: list[Pages]) -> None:
    heads: tuple[Head, ...] = ()
    for read in reads:
        heads, fetch = advise(heads, read, missed=True, block=BLOCK, window=WINDOW)
        assert len(heads) <= MAX_HEADS
        assert read.start - BLOCK <= fetch.start or fetch == NONE
        assert fetch.stop - fetch.start <= max(WINDOW, BLOCK + read.stop - read.start)


def link(rtt: float, rate: float) -> Link:
    return Link(rtt, rate)


@pytest.mark.parametrize(
    ("way", "block", "level"),
    [
        (link(30e-6, 2e9), 16 << 10, None),  # loopback
        (link(200e-6, 1.2e9), 16 << 10, None),  # 10 Gbit/s
        (link(300e-6, 12e6), 16 << 10, None),  # an old switch, or loopback of a machine that is busy
        (link(40e-3, 12.5e6), 512 << 10, 3),
        (link(40e-3, 125e6), 512 << 10, 1),
        (link(5e-3, 12.5e6), 256 << 10, 3),
        (link(0.6, 1e6), 512 << 10, 3),  # a satellite
    ],
)
def test_blocks_and_compression_follow_the_link(way: Link, block: int, level: int | None) -> None:
    assert (way.block, way.level) == (block, level)
    assert 4 << 20 <= way.window <= 8 << 20


def test_the_round_trip_is_the_kernels_unless_something_in_between_answers_for_the_server() -> None:
    busy = Link().after(Transfer(12e-3, 0, 100, 30e-6), packed=False)
    tunnel = Link().after(Transfer(41e-3, 0, 100, 30e-6), packed=False)
    unknown = Link().after(Transfer(41e-3, 0, 100, None), packed=False)
    assert (busy.rtt, tunnel.rtt, unknown.rtt) == (30e-6, 41e-3, 41e-3)


def test_what_compressing_takes_is_not_held_against_the_link() -> None:
    way = link(30e-6, 1e9).after(Transfer(1e-3, 0.1, 1 << 20, 30e-6), packed=True)
    assert way.rate == 1e9
    assert way.after(Transfer(1e-3, 0.1, 1 << 20, 30e-6), packed=False).rate < 1e9
