"""What every Source owes its readers. A new layer gets all of it by saying how it is made:

    class TestWindow(SourceContract):
        def make(self, content: bytes) -> Source:
            return Window(BytesSource(b"head" + content), 4, len(content))

``make`` may return anything whose bytes read as ``content``. What stands on a file gives ``open`` to FileContract instead.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farcore.errors import FaultError, SourceChangedError
from farcore.source import Extent, Source

# Two pages and an odd rest, no two stretches alike: a read from a wrong place cannot look right.
CONTENT = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(256)) + b"an odd end"
SIZE = len(CONTENT)

inside = st.lists(st.integers(0, SIZE), min_size=2, max_size=2).map(sorted).map(lambda two: Extent(two[0], two[1] - two[0]))


class SourceContract:
    """The suite; the oracle is a slice of bytes."""

    def make(self, content: bytes) -> Source:
        """A source that reads as ``content``."""
        raise NotImplementedError

    def test_size_is_the_number_of_bytes(self) -> None:
        assert [self.make(CONTENT[:length]).size for length in (0, 1, 4095, 4096, SIZE)] == [0, 1, 4095, 4096, SIZE]

    @settings(suppress_health_check=[HealthCheck.differing_executors])
    @given(inside)
    def test_a_read_returns_exactly_the_bytes_asked_for(self, extent: Extent) -> None:
        offset, length = extent
        found = self.make(CONTENT).pread(offset, length)
        assert isinstance(found, memoryview)
        assert (found.format, found.ndim, found.contiguous, found.nbytes) == ("B", 1, True, length)
        assert found == CONTENT[offset : offset + length]

    @settings(suppress_health_check=[HealthCheck.differing_executors])
    @given(st.lists(inside, max_size=8))
    def test_a_batch_returns_what_single_reads_return_in_the_order_asked(self, extents: list[Extent]) -> None:
        source = self.make(CONTENT)
        assert source.preadv(iter(extents)) == [CONTENT[offset : offset + length] for offset, length in extents]

    def test_a_read_of_no_bytes_is_empty_anywhere_up_to_the_end(self) -> None:
        source = self.make(CONTENT)
        assert [source.pread(offset, 0).nbytes for offset in (0, 4096, SIZE)] == [0, 0, 0]

    def test_an_empty_source_has_an_empty_read_and_no_other(self) -> None:
        source = self.make(b"")
        assert source.pread(0, 0).nbytes == 0
        with pytest.raises(FaultError):
            source.pread(0, 1)

    @pytest.mark.parametrize(
        ("offset", "length"), [(SIZE - 1, 2), (0, SIZE + 1), (SIZE, 1), (SIZE + 1, 1), (SIZE - 4096, 1 << 62), (1 << 64, 1)]
    )
    def test_a_read_past_the_end_is_a_fault_at_the_first_byte_that_is_not_there(self, offset: int, length: int) -> None:
        with pytest.raises(FaultError) as caught:
            self.make(CONTENT).pread(offset, length)
        assert (caught.value.kind, caught.value.address) == ("absent", max(offset, SIZE))

    @pytest.mark.parametrize(("offset", "length"), [(SIZE + 1, 0), (-1, 1), (-1, 0), (-SIZE, SIZE), (0, -1), (8, -8)])
    def test_no_read_outside_the_source_however_short_or_negative_succeeds(self, offset: int, length: int) -> None:
        with pytest.raises(FaultError):
            self.make(CONTENT).pread(offset, length)

    @pytest.mark.parametrize("bad", [Extent(SIZE, 1), Extent(-1, 1), Extent(0, -1), Extent(SIZE + 1, 0)])
    def test_one_extent_outside_fails_the_batch(self, bad: Extent) -> None:
        with pytest.raises(FaultError):
            self.make(CONTENT).preadv([Extent(0, 16), bad])

    def test_a_fault_does_not_spoil_the_reads_after_it(self) -> None:
        source = self.make(CONTENT)
        with pytest.raises(FaultError):
            source.pread(SIZE, 1)
        assert source.pread(0, SIZE) == CONTENT

    def test_what_was_read_cannot_be_written_to(self) -> None:
        found = self.make(CONTENT).pread(0, 16)
        assert found.readonly
        with pytest.raises(TypeError):
            found[0] = 0

    def test_what_was_read_outlives_the_source(self) -> None:
        source = self.make(CONTENT)
        found = [source.pread(0, SIZE), *source.preadv([Extent(0, 4096)])]
        del source
        gc.collect()
        assert found == [CONTENT, CONTENT[:4096]]

    def test_threads_that_read_at_once_get_their_own_bytes(self) -> None:
        source = self.make(CONTENT)
        cuts = [(n * 37) % SIZE for n in range(400)]
        extents = [Extent(min(two), max(two) - min(two)) for two in pairwise(cuts)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda extent: source.pread(*extent), extents))
        assert found == [CONTENT[offset : offset + length] for offset, length in extents]


class FileContract(SourceContract):
    """The suite for what reads a file, and what it owes when that file changes under it."""

    folder: ClassVar[TemporaryDirectory[str]]
    number: ClassVar[Iterator[int]] = count()

    @classmethod
    def setup_class(cls) -> None:
        cls.folder = TemporaryDirectory()

    @classmethod
    def teardown_class(cls) -> None:
        cls.folder.cleanup()

    def open(self, path: Path) -> Source:
        """A source over the file at ``path``."""
        raise NotImplementedError

    def file(self, content: bytes) -> Path:
        """A new file."""
        path = Path(self.folder.name, str(next(self.number)))
        path.write_bytes(content)
        return path

    def make(self, content: bytes) -> Source:
        return self.open(self.file(content))

    def test_what_was_read_stays_as_it_was_when_the_file_is_written_to(self) -> None:
        path = self.file(CONTENT)
        source = self.open(path)
        found = [source.pread(0, SIZE), *source.preadv([Extent(0, 4096)])]
        with path.open("r+b") as file:
            file.write(bytes(SIZE))
        assert found == [CONTENT, CONTENT[:4096]]

    @pytest.mark.parametrize("left", [0, 1, 4096, 5000, SIZE - 1])
    def test_a_read_past_a_truncation_says_that_the_file_changed(self, left: int) -> None:
        path = self.file(CONTENT)
        source = self.open(path)
        os.truncate(path, left)
        with pytest.raises(SourceChangedError):
            source.pread(0, SIZE)
        with pytest.raises(SourceChangedError):
            source.preadv([Extent(left, 1)])

    def test_what_was_read_outlives_a_truncation(self) -> None:
        path = self.file(CONTENT)
        found = self.open(path).pread(0, SIZE)
        os.truncate(path, 0)
        assert found == CONTENT

    def test_a_file_that_grows_is_not_read_past_the_size_it_was_opened_with(self) -> None:
        path = self.file(CONTENT)
        source = self.open(path)
        with path.open("ab") as file:
            file.write(b"more")
        assert source.size == SIZE
        with pytest.raises(FaultError):
            source.pread(SIZE, 1)
