"""Repeats: what is named stood before and is equal, whatever the table believes."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from farcore.batch import Batch
from farcore.frames import Found
from farcore.gather import GRAIN, Gathered, Plan, collect, without_zeros
from farcore.layout import stored
from farcore.repeats import MAX_SLOTS, Repeats
from farcore.source import BytesSource

PAGES = [bytes(GRAIN), *(random.Random(number).randbytes(GRAIN) for number in range(3))]


def answer(content: bytes, items: list[tuple[int, int]], order: list[int], *, lie: bool = False) -> tuple[bytes, int]:
    """The answer's string, put together again from its frames, and the bytes that had to be sent; frames found in ``order``."""
    source = BytesSource(content)
    batch = Batch.of(("vmcore", start, length) for start, length in items)
    repeats = Repeats(batch.total)
    drafts = list(Plan(batch, {"vmcore": stored(len(content), space="vmcore")}))
    found: dict[int, Gathered] = {}

    def same(offset: int, page: memoryview) -> bool:
        return not lie and bytes(source.pread(offset, len(page))) == bytes(page)

    for number in sorted(range(len(drafts)), key=lambda n: order[n % len(order)] if order else n):
        draft = drafts[number]
        found[number] = repeats.named(draft, without_zeros(draft.at, collect(source, draft)), same)
    string, sent = bytearray(), 0
    for number in range(len(drafts)):
        used = 0
        for kind, length, source_at in found[number].runs:
            if kind == Found.SAME:
                assert source_at + length <= len(string)
                string += string[source_at : source_at + length]
            elif kind == Found.DATA:
                string += found[number].content[used : used + length]
                used += length
            else:
                string += bytes(length) if kind == Found.ZERO else b"?" * length
        assert used == len(found[number].content)
        sent += used
    return bytes(string), sent


@given(
    st.lists(st.sampled_from(PAGES), min_size=1, max_size=300),
    st.lists(st.tuples(st.integers(0, 200 * GRAIN), st.integers(1, 150 * GRAIN)), min_size=1, max_size=5),
    st.lists(st.integers(0, 9), max_size=9),
    st.sampled_from([0, 0, 17]),
)
def test_whatever_repeats_and_in_whatever_order_frames_are_made_the_string_is_the_same(
    pages: list[bytes], items: list[tuple[int, int]], order: list[int], odd: int
) -> None:
    content = bytes(odd) + b"".join(pages)
    wanted = b"".join(content[start : start + length].ljust(length, b"?") for start, length in items)
    assert answer(content, items, order)[0] == wanted


def test_every_page_is_sent_once_and_zeros_never() -> None:
    content = b"".join(random.Random(1).choices(PAGES, k=1000))
    assert answer(content, [(0, len(content))], []) == (content, 3 * GRAIN)


def test_what_is_not_equal_after_all_is_sent() -> None:
    content = PAGES[1] * 10
    assert answer(content, [(0, len(content))], [], lie=True) == (content, 10 * GRAIN)


def test_a_table_has_a_bound_and_pages_that_fall_out_of_it_are_sent() -> None:
    repeats = Repeats(1 << 40)
    assert len(repeats._entry) == len(repeats._offset) == MAX_SLOTS
