"""BytesSource and Window, and that Faulty, which the other tests lean on, fails as planned and no other way."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from farcore.errors import FaultError, SourceChangedError
from farcore.source import BytesSource, Extent, Source, Window
from tests.faulty import Faulty
from tests.source_contract import CONTENT, SIZE, SourceContract


class TestBytesSource(SourceContract):
    def make(self, content: bytes) -> Source:
        return BytesSource(content)


class TestBytesSourceOverAMemoryview(SourceContract):
    def make(self, content: bytes) -> Source:
        return BytesSource(memoryview(content))


class TestWindowInTheMiddle(SourceContract):
    def make(self, content: bytes) -> Source:
        return Window(BytesSource(b"before" + content + b"behind"), 6, len(content))


class TestWindowOverAll(SourceContract):
    def make(self, content: bytes) -> Source:
        return Window(BytesSource(content), 0, len(content))


class TestWindowOfAWindow(SourceContract):
    def make(self, content: bytes) -> Source:
        return Window(Window(BytesSource(b"before" + content + b"behind"), 3, len(content) + 6), 3, len(content))


class TestFaultyWithoutAPlan(SourceContract):
    def make(self, content: bytes) -> Source:
        return Faulty(BytesSource(content))


class Batches(Source):
    """Keeps every batch that is passed down to it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked: list[list[Extent]] = []

    def pread(self, offset: int, length: int) -> memoryview:
        return memoryview(bytes(length))

    def preadv(self, extents: Iterable[Extent]) -> list[memoryview]:
        self.asked.append(list(extents))
        return [memoryview(bytes(length)) for _, length in self.asked[-1]]


def test_a_window_passes_a_batch_down_as_one_with_its_offsets_moved() -> None:
    below = Batches(100)
    Window(below, 10, 50).preadv([Extent(40, 10), Extent(0, 5)])
    assert below.asked == [[(50, 10), (10, 5)]]


def test_a_batch_that_does_not_fit_a_window_reads_nothing_below() -> None:
    below = Batches(100)
    with pytest.raises(FaultError):
        Window(below, 10, 50).preadv([Extent(0, 5), Extent(48, 3)])
    assert below.asked == []


@pytest.mark.parametrize(("offset", "size"), [(0, SIZE + 1), (1, SIZE), (SIZE + 1, 0), (-1, 2), (5, -1)])
def test_a_window_lies_inside_what_it_looks_at(offset: int, size: int) -> None:
    with pytest.raises(FaultError):
        Window(BytesSource(CONTENT), offset, size)


def test_a_fault_names_the_bytes_its_space_and_its_kind() -> None:
    with pytest.raises(FaultError) as caught:
        BytesSource(bytes(100)).pread(60, 50)
    assert (caught.value.address, caught.value.space, caught.value.kind) == (100, "stored", "absent")
    assert isinstance(caught.value, LookupError)
    assert "10 bytes at stored address 0x64 are absent" in str(caught.value)


def test_faulty_fails_reads_that_touch_a_planned_byte_and_only_those() -> None:
    source = Faulty(BytesSource(CONTENT), at={100: "unreadable", 200: "changed"})
    assert source.preadv([Extent(0, 100), Extent(101, 99), Extent(100, 0), Extent(201, 9)])[1] == CONTENT[101:200]
    with pytest.raises(FaultError) as caught:
        source.pread(90, 200)
    assert (caught.value.address, caught.value.length, caught.value.kind) == (100, 190, "unreadable")
    with pytest.raises(SourceChangedError):
        source.pread(200, 1)


def test_faulty_fails_the_planned_calls_and_only_those() -> None:
    source = Faulty(BytesSource(CONTENT), calls={2: "changed"})
    assert source.pread(0, 8) == CONTENT[:8]
    with pytest.raises(SourceChangedError):
        source.pread(0, 8)
    assert source.pread(0, 8) == CONTENT[:8]
    assert source.asked == [(0, 8)] * 3
