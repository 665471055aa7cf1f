"""Gather: drafts against dumps painted byte by byte, cuts and bounds against arithmetic, zeros against bytes.count."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore import gather, layout
from farcore.batch import Batch, Item, Space
from farcore.elf import Elf
from farcore.errors import SourceChangedError
from farcore.frames import Entry, Found
from farcore.gather import FRAME, GRAIN, PIECES, WINDOW, Draft, Gathered, Plan
from farcore.image import normalised
from farcore.layout import Layout
from farcore.source import BytesSource, Source
from tests.elfwriter import Dump, load
from tests.faulty import Faulty
from tests.painted import EXCLUDED, Painted, dumps

Cell = int | str
SPACES: tuple[Space, ...] = ("physical", "vmcore", "stored")


def plan(items: Iterable[Item | tuple[Space, int, int]], layouts: Mapping[Space, Layout]) -> list[Draft]:
    """The drafts of these items, which must tile the answer."""
    batch = Batch.of(items)
    drafts = list(Plan(batch, layouts))
    at = 0
    for draft in drafts:
        assert draft.at == at
        assert draft.raw == sum(length for _, length in draft.reads) <= FRAME
        assert draft.raw == sum(run.length for run in draft.runs if run.kind == Found.DATA)
        at += sum(run.length for run in draft.runs)
    assert at == batch.total
    return drafts


def unrolled(gathered: Gathered) -> list[Cell]:
    """Byte by byte: a number, or the name of a kind without bytes."""
    content = iter(gathered.content)
    cells: list[Cell] = []
    for kind, length, _ in gathered.runs:
        if kind == Found.DATA:
            cells += [next(content) for _ in range(length)]
        else:
            cells += [0 if kind == Found.ZERO else Found(kind).name] * length
    assert next(content, None) is None
    return cells


def answered(drafts: Iterable[Draft], source: Source, head: bytes = b"") -> list[Cell]:
    """All that the drafts come to."""
    return [cell for draft in drafts for cell in unrolled(gather.collect(source, draft, head))]


class TestPlan:
    @given(dumps(), st.data())
    def test_every_item_of_every_space_is_what_the_dump_has_there(self, painted: Painted, data: st.DataObject) -> None:
        content, memory = painted.content, painted.memory
        source = BytesSource(content)
        elf = Elf.open(source)
        layouts: dict[Space, Layout] = {
            "physical": layout.physical(elf, len(content)),
            "vmcore": layout.stored(len(content), space="vmcore"),
            "stored": layout.stored(len(content)),
        }
        low, high = painted.low, painted.high
        where = {"physical": st.integers(low, high - 60), "vmcore": st.integers(0, len(content) + 9)}
        where["stored"] = where["vmcore"]
        items = data.draw(
            st.lists(st.sampled_from(SPACES).flatmap(lambda s: st.tuples(st.just(s), where[s], st.integers(1, 60))), max_size=8)
        )
        expected: list[Cell] = []
        for space, start, length in items:
            for position in range(start, start + length):
                if space != "physical":
                    expected.append(content[position] if position < len(content) else "ABSENT")
                elif position not in memory:
                    expected.append("ABSENT")
                else:
                    byte = memory[position]
                    expected.append("EXCLUDED" if byte is EXCLUDED else byte)
        used = {space: found for space, found in layouts.items() if any(item[0] == space for item in items)}
        assert answered(plan(items, used), source) == expected

    def test_a_normalised_vmcore_starts_with_its_composed_head(self) -> None:
        page = os.urandom(5000)
        source = BytesSource(Dump([load(page, paddr=0x1234)], phoff=200).tobytes())
        image = normalised(Elf.open(source), source.size, ())
        found = answered(plan([("vmcore", 0, image.size + 9), ("vmcore", 60, 10)], {"vmcore": image}), source, image.head)
        begin = 0x1000 + 0x234
        whole = image.head.ljust(begin, b"\0") + page
        whole = whole.ljust(image.size, b"\0")
        assert found == [*whole, *["ABSENT"] * 9, *whole[60:70]]

    def test_an_image_of_nothing_but_a_head_ends_with_it(self) -> None:
        source = BytesSource(Dump([]).tobytes())
        image = normalised(Elf.open(source), source.size, ())
        found = answered(plan([("vmcore", len(image.head) - 1, 3)], {"vmcore": image}), source, image.head)
        assert image.size == len(image.head)
        assert found == [0, "ABSENT", "ABSENT"]

    def test_the_top_of_the_address_space_is_absent(self) -> None:
        top = (1 << 64) - 1
        (draft,) = plan([("stored", top - 5, 5), ("stored", 0, 1)], {"stored": layout.stored(1)})
        assert draft.runs == [Entry(Found.ABSENT, 5), Entry(Found.DATA, 1)]

    def test_an_empty_file_has_nothing(self) -> None:
        (draft,) = plan([("stored", 0, 5)], {"stored": layout.stored(0)})
        assert draft == Draft(0, 0, [], [Entry(Found.ABSENT, 5)])

    def test_no_items_are_no_drafts(self) -> None:
        assert plan([], {}) == []

    def test_pages_that_follow_each_other_in_the_file_are_one_read(self) -> None:
        items: list[tuple[Space, int, int]] = [("stored", page * GRAIN, GRAIN) for page in (*range(5, 25), 30, 31, 2)]
        (draft,) = plan(items, {"stored": layout.stored(1 << 20)})
        assert draft.reads == [(5 * GRAIN, 20 * GRAIN), (30 * GRAIN, 2 * GRAIN), (2 * GRAIN, GRAIN)]
        assert draft.runs == [Entry(Found.DATA, 23 * GRAIN)]

    @pytest.mark.parametrize("lead", [0, 1, GRAIN])
    def test_a_long_item_is_cut_into_full_frames(self, lead: int) -> None:
        length = 10 * FRAME + 77
        before: list[tuple[Space, int, int]] = [("stored", 5, lead)] if lead else []
        drafts = plan([*before, ("stored", 1000, length)], {"stored": layout.stored(1 << 30)})
        assert [draft.raw for draft in drafts] == [FRAME] * 10 + [77 + lead]
        reads = [read for draft in drafts for read in draft.reads][1 if lead else 0 :]
        assert reads[0][0] == 1000
        assert all(low + size == high for (low, size), (high, _) in pairwise(reads))

    def test_a_hole_of_gigabytes_is_one_run(self) -> None:
        items: list[tuple[Space, int, int]] = [("stored", 1 << 40, (1 << 32) - 1)] * 3
        (draft,) = plan(items, {"stored": layout.stored(9)})
        assert draft.runs == [Entry(Found.ABSENT, 3 * ((1 << 32) - 1))]

    def test_a_draft_has_no_more_pieces_than_its_bound_and_the_windows_lose_none(self) -> None:
        """Bytes that alternate with holes of two kinds, more than a window of them."""
        count = WINDOW + 100
        content = Dump([load(bytes([n % 255 + 1]), paddr=3 * n, memsz=2) for n in range(count)]).tobytes()
        source = BytesSource(content)
        memory = layout.physical(Elf.open(source), len(content))
        drafts = plan([("physical", 0, 3 * count)], {"physical": memory})
        assert max(len(draft.runs) for draft in drafts) == PIECES
        expected: list[Cell] = [cell for n in range(count) for cell in (n % 255 + 1, "EXCLUDED", "ABSENT")]
        # The highest address described is the last one that memory has.
        assert answered(drafts, source) == expected

    def test_cells_bound_what_an_answer_is_made_of_before_it_is_made(self) -> None:
        count = 500
        content = Dump([load(b"x", paddr=2 * n) for n in range(count)]).tobytes()
        memory = layout.physical(Elf.open(BytesSource(content)), len(content))
        batch = Batch.of([("physical", 0, 2 * count)] * 40)
        made = Plan(batch, {"physical": memory})
        pieces = sum(len(draft.runs) for draft in made)
        assert pieces == 40 * (2 * count)
        assert pieces <= made.cells <= 2 * pieces


class TestCollect:
    CONTENT = b"".join(bytes([n + 1]) * GRAIN for n in range(8))

    def draft(self, reads: Sequence[tuple[int, int]]) -> Draft:
        raw = sum(length for _, length in reads)
        return Draft(0, raw, list(reads), [Entry(Found.DATA, raw)])

    def test_what_the_storage_fails_on_is_unreadable_by_blocks_and_the_rest_is_there(self) -> None:
        source = Faulty(BytesSource(self.CONTENT), at={3 * GRAIN + 7: "unreadable"})
        found = unrolled(gather.collect(source, self.draft([(GRAIN, 5 * GRAIN), (7 * GRAIN, 9)])))
        assert [(cell, len(list(same))) for cell, same in groupby(found)] == [
            (2, GRAIN),
            (3, GRAIN),
            ("UNREADABLE", GRAIN),
            (5, GRAIN),
            (6, GRAIN),
            (8, 9),
        ]

    def test_a_read_that_fails_between_two_holes_leaves_them_in_their_places(self) -> None:
        source = Faulty(BytesSource(self.CONTENT), at={0: "unreadable"})
        runs = [Entry(Found.ABSENT, 5), Entry(Found.DATA, 10), Entry(Found.ZERO, 2), Entry(Found.DATA, 3)]
        found = gather.collect(source, Draft(0, 13, [(0, 10), (9, 3)], runs))
        assert [(run.kind, run.length) for run in found.runs] == [
            (Found.ABSENT, 5),
            (Found.UNREADABLE, 10),
            (Found.ZERO, 2),
            (Found.DATA, 3),
        ]
        assert bytes(found.content) == self.CONTENT[9:12]

    def test_nothing_is_read_twice_where_the_storage_is_sound(self) -> None:
        source = Faulty(BytesSource(self.CONTENT))
        gather.collect(source, self.draft([(0, 8 * GRAIN)]))
        assert source.asked == [(0, 8 * GRAIN)]

    def test_a_file_that_changed_is_an_error_and_no_answer(self) -> None:
        source = Faulty(BytesSource(self.CONTENT), at={2 * GRAIN: "changed"})
        with pytest.raises(SourceChangedError):
            gather.collect(source, self.draft([(0, 8 * GRAIN)]))


Stretch = bytes | int
blocks = st.sampled_from((bytes(GRAIN), bytes(GRAIN - 1) + b"\1", b"\1" * GRAIN, bytes(100), b"x"))
stretches: st.SearchStrategy[Stretch] = st.lists(blocks, max_size=8).map(b"".join) | st.integers(1, 9000)


class TestWithoutZeros:
    @given(st.integers(0, 2 * GRAIN), st.lists(stretches, max_size=5))
    def test_whole_blocks_of_zeros_go_and_nothing_else(self, at: int, wanted: list[Stretch]) -> None:
        """Each stretch is data, or a hole of so many bytes; the grid of blocks starts where the answer does."""
        runs: list[Entry] = []
        cells: list[Cell] = []
        data = b""
        for stretch in [some for some in wanted if some]:
            length = stretch if isinstance(stretch, int) else len(stretch)
            runs.append(Entry(Found.ABSENT if isinstance(stretch, int) else Found.DATA, length))
            data += b"" if isinstance(stretch, int) else stretch
            cells += ["ABSENT"] * stretch if isinstance(stretch, int) else list(stretch)
        runs = merged(runs)
        found = gather.without_zeros(at, Gathered(runs, memoryview(bytearray(data))))
        assert unrolled(found) == cells
        place, zeros = at, 0
        for kind, length, _ in found.runs:
            if kind == Found.ZERO:
                assert (place % GRAIN, length % GRAIN) == (0, 0)
                zeros += length // GRAIN
            place += length
        grid = range(-at % GRAIN, len(cells) - GRAIN + 1, GRAIN)
        assert zeros == sum(cells[low : low + GRAIN] == [0] * GRAIN for low in grid)
        assert found.runs == merged(found.runs)

    def test_data_without_zeros_is_not_copied(self) -> None:
        content = memoryview(b"\1" * FRAME)
        assert gather.without_zeros(0, Gathered([Entry(Found.DATA, FRAME)], content)).content is content


def merged(runs: Iterable[Entry]) -> list[Entry]:
    """Neighbours of one kind as one."""
    return [Entry(kind, sum(run.length for run in same)) for kind, same in groupby(runs, lambda run: run.kind)]
