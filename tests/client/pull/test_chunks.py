"""Chunks: whatever is done, fetched in whatever pieces, every byte is asked for once and nothing is whole before it is."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from farcore_client.pull.chunks import CHUNK, PAGE, Chunks, Step, Work

sizes = st.one_of(st.integers(0, 3 * PAGE), st.integers(0, 40 * CHUNK))
shifts = st.one_of(st.just(0), st.integers(0, PAGE - 1))


@given(sizes, st.lists(st.tuples(st.integers(0, 45), st.integers(0, 9)), max_size=4), st.integers(0, 9 * CHUNK), shifts)
def test_any_plan_covers_every_byte_that_is_not_proved_once(
    size: int, proved: list[tuple[int, int]], most: int, shift: int
) -> None:
    chunks = Chunks(size, proved)
    known = {chunk for first, count in proved for chunk in range(first, first + count)}
    bytes_known = sum(min(CHUNK, size - chunk * CHUNK) for chunk in known if chunk * CHUNK < size)
    assert chunks.proved == bytes_known
    asked: list[tuple[int, int]] = []
    while (work := chunks.next(most, shift)) is not None:
        assert 0 < work.length <= max(most, CHUNK)
        asked += [(offset, offset + length) for offset, length in work.items()]
        chunks.arrived(work, work.length)
    assert chunks.missing == 0
    asked.sort()
    covered = [chunk * CHUNK for chunk in known if chunk * CHUNK < size]
    assert all(low < high for low, high in asked)
    assert all(before[1] <= after[0] for before, after in pairwise(asked))
    assert sum(high - low for low, high in asked) == size - bytes_known
    assert not any(low < at + CHUNK and at < high for low, high in asked for at in covered)


@given(st.integers(0, 3), st.integers(1, 4 * CHUNK), shifts, st.data())
def test_a_chunk_is_whole_when_its_last_byte_has_come_and_not_before(
    first: int, length: int, shift: int, data: st.DataObject
) -> None:
    work = Work(first * CHUNK, first * CHUNK + length, shift)
    at = data.draw(st.one_of(st.integers(0, length), st.sampled_from([0, length, max(0, length - work.lead)])))
    came: list[tuple[int, int]] = [(offset, offset + size) for offset, size in work.places(0, at)]
    low, high = work.whole(at)
    last = -(-work.stop // CHUNK)
    for chunk in range(first, last):
        needed = min((chunk + 1) * CHUNK, work.stop) - chunk * CHUNK
        held = sum(max(0, min(stop, (chunk + 1) * CHUNK) - max(start, chunk * CHUNK)) for start, stop in came)
        if low <= chunk < high:
            assert held == needed
        else:
            # Only a chunk whose first page comes last may be kept waiting though nothing of it is missing.
            assert held < needed or at < length


@given(st.integers(1, 4 * CHUNK), shifts, st.data())
def test_the_rest_of_a_work_is_what_has_not_come(length: int, shift: int, data: st.DataObject) -> None:
    work = Work(CHUNK, CHUNK + length, shift)
    at = data.draw(st.integers(0, length))
    pieces = sorted([*work.places(0, at), *work.places(at, length - at)])
    assert (pieces[0].offset, pieces[-1].offset + pieces[-1].length) == (work.start, work.stop)
    assert all(before.offset + before.length == after.offset for before, after in pairwise(pieces))
    assert list(work.places(at, length - at)) == work.items(at)
    # Pages stay on the grid on which repeats and zeros are looked for.
    assert work.items()[0].offset % PAGE in (shift, 0)


def test_what_was_given_back_is_asked_for_again_and_what_was_whole_is_not() -> None:
    chunks = Chunks(5 * CHUNK)
    work = chunks.next(4 * CHUNK)
    assert work == Work(0, 4 * CHUNK)
    chunks.arrived(work, 2 * CHUNK + 5)
    assert chunks.busy
    chunks.give_back(work)
    assert (chunks.busy, chunks.runs(Step.WHOLE)) == (False, [(0, 2)])
    assert chunks.next(10 * CHUNK) == Work(2 * CHUNK, 5 * CHUNK)
    chunks.prove([(0, 2)])
    assert (chunks.proved, chunks.done, chunks.next(CHUNK)) == (2 * CHUNK, False, None)
