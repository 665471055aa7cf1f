"""FileSource. Its failing disk is /proc/self/mem: the kernel answers EIO for an address that is not mapped."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
from pathlib import Path

import pytest

from farcore.errors import FaultError, SourceChangedError
from farcore.file import FileSource
from farcore.source import Source
from tests.source_contract import CONTENT, SIZE, FileContract


def opened(path: Path) -> FileSource:
    """A FileSource with the size that the file has now."""
    fd = os.open(path, os.O_RDONLY)
    return FileSource(fd, os.fstat(fd).st_size)


class TestFileSource(FileContract):
    def open(self, path: Path) -> Source:
        return opened(path)


def test_a_file_that_became_shorter_is_told_by_where_it_ends_and_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(bytes(10_000))
    source = opened(path)
    os.truncate(path, 5_000)
    with pytest.raises(SourceChangedError, match=r"ends at byte 5,000; it had 10,000"):
        source.pread(4_000, 2_000)


def test_a_file_that_was_removed_or_replaced_is_still_read_as_it_was(tmp_path: Path) -> None:
    path, other = tmp_path / "vmcore", tmp_path / "other"
    path.write_bytes(CONTENT)
    source = opened(path)
    other.write_bytes(bytes(SIZE))
    other.replace(path)
    assert source.pread(0, SIZE) == CONTENT
    path.unlink()
    assert source.pread(0, SIZE) == CONTENT


def test_storage_that_fails_is_a_fault_at_the_first_byte_it_did_not_give() -> None:
    two_pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    two_pages.write(b"x" * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(two_pages))
    gc.collect()  # the exported pointer would keep the map from shrinking
    two_pages.resize(mmap.PAGESIZE)
    source = FileSource(os.open("/proc/self/mem", os.O_RDONLY), 1 << 62)
    assert source.pread(address, mmap.PAGESIZE) == b"x" * mmap.PAGESIZE
    with pytest.raises(FaultError) as caught:
        source.pread(address, mmap.PAGESIZE + 100)
    assert (caught.value.address, caught.value.length, caught.value.kind) == (address + mmap.PAGESIZE, 100, "unreadable")


def test_close_gives_the_descriptor_back_and_may_be_called_twice(tmp_path: Path) -> None:
    (tmp_path / "vmcore").write_bytes(CONTENT)
    source = opened(tmp_path / "vmcore")
    source.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(source.fd)
    source.close()


def test_the_last_reference_gives_the_descriptor_back(tmp_path: Path) -> None:
    (tmp_path / "vmcore").write_bytes(CONTENT)
    source = opened(tmp_path / "vmcore")
    fd = source.fd
    del source
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_sparse_file_of_terabytes_reads_at_any_offset(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    with path.open("wb") as file:
        os.pwrite(file.fileno(), b"the last", (4 << 40) - 8)
    source = opened(path)
    assert source.size == 4 << 40
    assert source.pread((4 << 40) - 16, 16) == bytes(8) + b"the last"
