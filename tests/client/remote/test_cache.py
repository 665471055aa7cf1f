"""PageCache: pages of fixed memory, against a dict that has no bound; and how much memory a reader of everything costs."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore.errors import FaultError
from farcore_client.remote.cache import LEAST, PAGE, Hole, PageCache, key, place

SLOTS = PageCache(LEAST).slots
BODY = os.urandom(PAGE)


def page(number: int) -> bytes:
    """What page ``number`` holds."""
    return number.to_bytes(8, "little") + BODY[8:]


numbers = st.integers(0, 3 * SLOTS)
steps = st.tuples(st.sampled_from(["put", "zeros", "hole", "read"]), numbers, st.integers(1, 40))


@given(st.lists(steps, max_size=60))
def test_what_it_has_is_what_was_put_there_last_and_memory_does_not_grow(steps: list[tuple[str, int, int]]) -> None:
    cache = PageCache(0)
    kinds: dict[int, str] = {}
    for what, first, count in steps:
        if what == "put":
            cache.put(key("vmcore", first), memoryview(b"".join(page(n) for n in range(first, first + count))))
            kinds.update(dict.fromkeys(range(first, first + count), "put"))
        elif what == "zeros":
            # What it has of a page is not thrown away for the same page again.
            for n in range(first, first + count):
                if not (cache.has(key("vmcore", n)) and kinds[n] == "put"):
                    kinds[n] = "zeros"
            cache.put_zeros(key("vmcore", first), count)
        elif what == "hole":
            cache.put_holes(key("vmcore", first), (Hole(0, PAGE, "absent"),), None)
            kinds[first] = "hole"
        else:
            for n in range(first, first + count):
                if cache.has(key("vmcore", n)):
                    check(cache, n, kinds[n])


def check(cache: PageCache, number: int, kind: str) -> None:
    if kind == "hole":
        with pytest.raises(FaultError) as caught:
            cache.read("vmcore", number * PAGE, PAGE)
        assert (caught.value.address, caught.value.length) == (number * PAGE, PAGE)
    else:
        assert cache.read("vmcore", number * PAGE, PAGE) == (page(number) if kind == "put" else bytes(PAGE))


def test_as_many_pages_as_it_was_given_room_for_stay() -> None:
    cache = PageCache(LEAST)
    assert LEAST * 0.95 < SLOTS * PAGE < LEAST
    for n in range(SLOTS):
        cache.put(key("vmcore", n), memoryview(page(n)))
    assert all(cache.read("vmcore", n * PAGE, PAGE) == page(n) for n in range(SLOTS))
    cache.put(key("vmcore", SLOTS), memoryview(page(SLOTS)))
    assert sum(cache.has(key("vmcore", n)) for n in range(SLOTS + 1)) == SLOTS


def test_what_is_read_again_and_again_outlives_what_is_read_once() -> None:
    cache = PageCache(LEAST)
    cache.put(key("vmcore", 0), memoryview(page(0)))
    for n in range(1, 10 * SLOTS):
        assert cache.read("vmcore", 0, PAGE) == page(0)
        cache.put(key("vmcore", n), memoryview(page(n)))


def test_a_hole_in_a_page_leaves_what_is_around_it() -> None:
    cache = PageCache(0)
    cache.put_holes(key("physical", 1), (Hole(100, 200, "excluded"),), memoryview(page(1)))
    cache.put_holes(key("physical", 2), (Hole(0, PAGE, "absent"),), None)
    assert cache.read("physical", PAGE, 100) == page(1)[:100]
    assert cache.read("physical", PAGE + 200, PAGE - 200) == page(1)[200:]
    for offset, length, address, missing, kind in (
        (PAGE, PAGE, PAGE + 100, 100, "excluded"),
        (PAGE + 150, 10, PAGE + 150, 10, "excluded"),
        (PAGE + 200, 2 * PAGE - 200, 2 * PAGE, PAGE, "absent"),
    ):
        with pytest.raises(FaultError) as caught:
            cache.read("physical", offset, length)
        assert (caught.value.address, caught.value.length, caught.value.kind) == (address, missing, kind)


@given(st.sampled_from(["physical", "vmcore", "stored"]), st.integers(0, (1 << 52) - 1))
def test_a_key_is_one_page_of_one_space(space: str, number: int) -> None:
    assert place(key(space, number)) == (space, number)  # type: ignore[arg-type]
