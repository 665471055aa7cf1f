"""Pace on links of every speed: where it ends, and what it asks for on the way."""

from __future__ import annotations

import pytest

from farcore_client.pull.pace import LEVELS, Pace

# What a core of the server makes, in bytes a second of the dump, and how many times less then has to be sent.
MADE: dict[int | None, float] = {None: 3e9, 1: 0.9e9, 3: 0.45e9, 6: 0.15e9}
SHRUNK: dict[int | None, float] = {None: 1, 1: 2.2, 3: 2.35, 6: 2.4}


def rate(level: int | None, link: float) -> float:
    """Bytes of the dump a second over a link of so many bytes a second."""
    return min(MADE[level], link * SHRUNK[level])


def pull(link: float, round_trip: float, works: int = 12) -> tuple[list[int | None], Pace]:
    pace = Pace("auto", round_trip)
    asked = []
    for _ in range(works):
        level = pace.wanted()
        asked.append(level)
        size = 64 << 20 if pace.trying else 1 << 30
        pace.record(level, size, size / rate(level, link))
    return asked, pace


@pytest.mark.parametrize("link", [1e6, 12.5e6, 60e6, 125e6, 400e6, 1.25e9, 3e9])
@pytest.mark.parametrize("round_trip", [0.0001, 0.04])
def test_it_ends_within_a_tenth_of_the_best_level_and_stays(link: float, round_trip: float) -> None:
    asked, pace = pull(link, round_trip)
    best = max(rate(level, link) for level in LEVELS)
    assert rate(pace.level, link) >= min(best / 1.21, 600e6)
    assert not pace.trying
    assert len(set(asked[5:])) == 1


def test_a_far_link_begins_compressed_and_with_all_that_may_repeat() -> None:
    pace = Pace("auto", 0.04)
    assert (pace.wanted(), pace.trying) == (3, False)


def test_a_near_link_begins_plain_with_little_and_a_fast_one_stays_so() -> None:
    pace = Pace("auto", 0.0001)
    assert (pace.wanted(), pace.trying) == (None, True)
    asked, _ = pull(3e9, 0.0001)
    assert set(asked) == {None}


def test_one_connection_tries_a_level_while_the_others_go_on_with_the_best() -> None:
    pace = Pace("auto", 0.0001)
    pace.record(None, 64 << 20, 0.5)
    assert [pace.wanted() for _ in range(4)] == [1, None, None, None]
    assert pace.trying
    pace.fail(1)
    assert [pace.wanted() for _ in range(2)] == [1, None]
    pace.record(1, 64 << 20, 0.1)
    assert [pace.wanted() for _ in range(4)] == [3, 1, 1, 1]
    pace.record(3, 64 << 20, 0.2)
    assert (pace.wanted(), pace.trying) == (1, False)


@pytest.mark.parametrize("wish", [None, -5, 9])
def test_what_is_wished_for_is_what_is_asked_for(wish: int | None) -> None:
    pace = Pace(wish, 0.04)
    for _ in range(3):
        assert (pace.wanted(), pace.trying) == (wish, False)
        pace.record(wish, 1 << 20, 100)
