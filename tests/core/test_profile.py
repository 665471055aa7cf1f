from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore.errors import BadProfileError
from farcore.profile import KINDS, MAX_DUMPS, MAX_PAGES, MAX_SIZE, Pages, Profile

NUMBERS = st.sets(st.integers(0, 200), max_size=60)
KIND = st.sampled_from(KINDS)


def session(kinds: dict[str, set[int]], dumps: dict[str, set[int]] | None = None) -> Profile:
    pages = {kind: Pages.of(sorted(numbers)) for kind, numbers in kinds.items()}
    return Profile(1, pages, {etag: Pages.of(sorted(numbers)) for etag, numbers in (dumps or {}).items()})


@given(st.lists(st.dictionaries(KIND, NUMBERS), max_size=5))
def test_a_profile_has_what_any_session_read_and_who_read_it_last(sessions: list[dict[str, set[int]]]) -> None:
    profile = Profile()
    for one in sessions:
        profile = Profile.parse(profile.merged(session(one)).pack())
    assert profile.sessions == len(sessions)
    for kind in KINDS:
        last = {page: number for number, one in enumerate(sessions, 1) for page in one.get(kind, ())}
        found = profile.of(kind)
        assert dict(zip(found.number.tolist(), found.seen.tolist(), strict=True)) == dict(sorted(last.items()))


def test_of_more_pages_than_are_kept_those_go_that_were_read_longest_ago() -> None:
    first = session({"memmap": set(range(0, MAX_PAGES, 2))})
    merged = first.merged(session({"memmap": set(range(1, MAX_PAGES + 20, 2))}))
    kept = merged.of("memmap")
    assert len(kept) == MAX_PAGES
    assert {1, MAX_PAGES + 19} <= set(kept.number.tolist())
    assert int((kept.seen == 2).sum()) == MAX_PAGES // 2 + 10


def test_only_the_last_dumps_pages_are_kept() -> None:
    profile = Profile()
    for number in range(MAX_DUMPS + 3):
        profile = profile.merged(session({}, {f'"{number}"': {number}}))
        profile = profile.merged(session({}, {'"0"': {7}}))
    assert list(profile.dumps)[-1] == '"0"'
    assert len(profile.dumps) == MAX_DUMPS
    assert '"1"' not in profile.dumps


def test_kinds_that_are_not_known_are_passed_over() -> None:
    said = {"version": 1, "sessions": 1, "kinds": {"heap": [[0, 1, 1]], "image": [[4, 2, 1]]}, "dumps": {}}
    profile = Profile.parse(json.dumps(said).encode())
    assert profile.of("image").number.tolist() == [4, 5]
    assert set(profile.kinds) == {"image"}


RUN = [3, 2, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"sessions": -1},
        {"sessions": True},
        {"sessions": 1 << 33},
        {"kinds": []},
        {"kinds": {"image": 7}},
        {"kinds": {"image": [[3, 2]]}},
        {"kinds": {"image": [[3, 2, 2]]}},
        {"kinds": {"image": [[3, 0, 1]]}},
        {"kinds": {"image": [[-1, 2, 1]]}},
        {"kinds": {"image": [RUN, [4, 1, 1]]}},
        {"kinds": {"image": [[0.5, 2, 1]]}},
        {"kinds": {"image": [[1 << 52, 1, 1]]}},
        {"kinds": {"image": [[0, MAX_PAGES + 1, 1]]}},
        {"kinds": {"image": [[0, 1 << 51, 1], [1 << 51, 1, 1]]}},
        {"dumps": {str(number): [] for number in range(MAX_DUMPS + 1)}},
        {"dumps": {'"etag"': "pages"}},
    ],
)
def test_what_is_no_profile_is_refused(change: dict[str, Any]) -> None:
    said = {"version": 1, "sessions": 1, "kinds": {"image": [RUN]}, "dumps": {}}
    assert Profile.parse(json.dumps(said).encode()).of("image").number.tolist() == [3, 4]
    with pytest.raises(BadProfileError):
        Profile.parse(json.dumps(said | change).encode())


def test_what_is_no_json_or_too_large_is_refused_and_the_largest_profile_is_not() -> None:
    for raw in (b"", b"[" * 100_000, b"[]", b" " * (MAX_SIZE + 1)):
        with pytest.raises(BadProfileError):
            Profile.parse(raw)
    spread = {kind: set(range(0, 2 * MAX_PAGES, 2)) for kind in KINDS}
    largest = session(spread, {f'"{number}"': set(range(0, 2 * MAX_PAGES, 2)) for number in range(MAX_DUMPS)})
    assert len(Profile.parse(largest.pack()).of("memmap")) == MAX_PAGES
