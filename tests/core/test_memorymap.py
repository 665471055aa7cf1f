"""The memory map against bytes painted one by one, and against pages counted in a file."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcore import layout, memorymap
from farcore.elf import Elf
from farcore.errors import FaultError
from farcore.file import FileSource
from farcore.kdump import Kdump
from farcore.runs import Kind, Run
from farcore.source import BytesSource, Source
from farcore.space import PhysicalSpace, Space
from tests import kdumpwriter
from tests.elfwriter import Dump, load, note
from tests.painted import Painted, dumps

PAGE = 4096


def mapped(source: Source) -> list[Run]:
    """The whole map of an ELF."""
    elf = Elf.open(source)
    physical = layout.physical(elf, source.size)
    steps = list(memorymap.steps(Space(source, physical), physical.runs, physical.size))
    return [run for step in steps for run in step]


def demand_whole(runs: list[Run], size: int) -> None:
    """From 0 to the end, each run up to the next, no two neighbours of one kind."""
    edges = [(run.start, run.stop) for run in runs]
    assert [start for start, _ in edges] == [0, *(stop for _, stop in edges)][: len(edges)]
    assert (edges[-1][1] if edges else 0) == size
    assert all(low < high for low, high in edges)
    assert all(one.kind is not other.kind for one, other in pairwise(runs))


@given(dumps())
def test_every_byte_is_of_the_kind_that_was_painted(painted: Painted) -> None:
    runs = mapped(BytesSource(painted.content))
    demand_whole(runs, painted.span)
    for address in range(painted.low, min(painted.high, painted.span)):
        (run,) = [run for run in runs if run.start <= address < run.stop]
        there = address in painted.memory
        expected = "data" if painted.memory.get(address) is not None else "excluded" if there else "absent"
        assert memorymap.NAMES[run.kind].replace("zero", "data") == expected


def demand_told(content: bytes, paddr: int) -> None:
    """Each page of the content is zero or data as its bytes say."""
    runs = mapped(BytesSource(Dump([load(content, paddr=paddr)]).tobytes()))
    demand_whole(runs, paddr + len(content))
    found = {page: run.kind for run in runs for page in range(run.start // PAGE, -(-run.stop // PAGE))}
    for page in range(paddr // PAGE, -(-(paddr + len(content)) // PAGE)):
        own = content[max(0, page * PAGE - paddr) : (page + 1) * PAGE - paddr]
        assert found[page] is (Kind.DATA if any(own) else Kind.ZERO)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 4)), min_size=1, max_size=6), st.integers(0, PAGE - 1), st.integers(0, 99)
)
def test_zeros_are_told_from_data_page_by_page(pages: list[tuple[bool, int]], shift: int, cut: int) -> None:
    content = b"".join((bytes(PAGE) if zero else bytes(PAGE - 1) + b"x") * count for zero, count in pages)
    content = content[shift:]
    demand_told(content[: max(1, len(content) - cut)], 0x10000 + shift)


def test_zeros_on_both_sides_of_a_pieces_end_are_one_run() -> None:
    zeros = bytes(memorymap.PIECE + 3 * PAGE)
    demand_told(b"x" * PAGE + zeros + b"x" + zeros + b"x", 0x10000)


def test_a_step_is_bounded_however_many_runs_there_are() -> None:
    pages = [load(b"x" * (n % 2 * 8 or 1), paddr=n * 2 * PAGE) for n in range(memorymap.STEP_RUNS)]
    source = BytesSource(Dump(pages).tobytes())
    elf = Elf.open(source)
    physical = layout.physical(elf, source.size)
    steps = [len(step) for step in memorymap.steps(Space(source, physical), physical.runs, physical.size)]
    assert max(steps) <= memorymap.STEP_RUNS + memorymap.PIECE // PAGE
    assert len(steps) > 1


class Failing(BytesSource):
    """Storage that fails at some place."""

    def pread(self, offset: int, length: int) -> memoryview:
        """All but byte 5000 of the file."""
        if offset <= 5000 < offset + length:
            raise FaultError(address=5000, length=1, space="stored", kind="unreadable")
        return super().pread(offset, length)


def test_what_cannot_be_read_counts_as_data() -> None:
    source = Failing(Dump([load(bytes(64 * PAGE), paddr=0), load(bytes(PAGE), paddr=80 * PAGE)]).tobytes())
    kinds = [(run.stop // PAGE, run.kind) for run in mapped(source)]
    assert kinds == [(64, Kind.DATA), (80, Kind.ABSENT), (81, Kind.ZERO)]


@pytest.mark.parametrize("name", ["x86_64-panic.elf", "i386-panic.elf", "s390x-idle.elf"])
def test_a_real_dump_has_as_many_zero_pages_as_are_counted_one_by_one(sample: Callable[[str], Path], name: str) -> None:
    path = sample(name)
    source = FileSource(os.open(path, os.O_RDONLY), path.stat().st_size)
    elf = Elf.open(source)
    runs = mapped(source)
    space = PhysicalSpace(source, elf)
    whole = [run for run in runs if run.kind in (Kind.DATA, Kind.ZERO)]
    pages = {page for run in whole for page in range(run.start, run.stop // PAGE * PAGE, PAGE)}
    zero = sum(not any(space.pread(page, PAGE)) for page in pages)
    assert zero == sum((run.stop - run.start) // PAGE for run in runs if run.kind is Kind.ZERO)


def test_no_memory_is_an_empty_map() -> None:
    assert mapped(BytesSource(Dump([note(("CORE", 1, bytes(336)))]).tobytes())) == []


@pytest.mark.parametrize("compress", ["raw", "zlib", "lzo", "snappy", "zstd"])
def test_a_kdumps_descriptors_tell_what_reading_its_pages_tells(compress: str) -> None:
    rng = random.Random(compress)
    contents = (bytes(PAGE), b"x".rjust(PAGE, b"\0"), rng.randbytes(PAGE), b"text" * 1024)
    pages = {frame: rng.choice(contents) for frame in range(700) if rng.random() < 0.9}
    excluded = {frame for frame in range(700) if frame not in pages and frame % 2}
    damaged = 650
    written = kdumpwriter.Kdump(
        pages={**pages, damaged: b"y" * PAGE},
        excluded=excluded,
        compress=compress,
        descriptors={damaged: (PAGE, 9, 1)},
    ).tobytes()
    memory = Kdump.open([BytesSource(written)])
    size = memory.pages.size
    runs = [run for step in memorymap.steps(memory, memory.pages.runs, size) for run in step]
    demand_whole(runs, size)
    kinds = {page: run.kind for run in runs for page in range(run.start // PAGE, run.stop // PAGE)}
    for page in {*range(700)} - {damaged}:
        there = Kind.EXCLUDED if page in excluded else Kind.ABSENT
        expected = (Kind.DATA if any(pages[page]) else Kind.ZERO) if page in pages else there
        assert kinds[page] is expected, page
    assert kinds[damaged] is Kind.DATA


def test_a_page_whose_size_lies_is_data_and_is_not_read() -> None:
    lies = {1: (4096, 8192, 0), 2: (4096, 100, 0)}
    written = kdumpwriter.Kdump(pages=dict.fromkeys(range(4), bytes(PAGE)), descriptors=lies).tobytes()
    memory = Kdump.open([BytesSource(written)])
    kinds = [run.kind for step in memorymap.steps(memory, memory.pages.runs, memory.pages.size) for run in step]
    assert kinds == [Kind.ZERO, Kind.DATA, Kind.ZERO]
