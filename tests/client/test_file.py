"""farcore_client.open and farcore:// : a dump on a server where Python expects a file, or memory as arrays."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import farcore_client
from farcore.errors import FaultError
from farcore_client.errors import RefusedError
from farcore_client.file import RemoteFile
from tests.client.conftest import HIGH, LOW, SMALL, Served
from tests.client.remote.conftest import dump_url

CONTENT = SMALL.tobytes()


@pytest.fixture(scope="module")
def file(served: Served) -> Iterator[RemoteFile]:
    with farcore_client.open(str(dump_url(served.url, "small.elf"))) as file:
        yield file


reads = st.lists(st.tuples(st.sampled_from(["read", "seek", "end"]), st.integers(0, len(CONTENT) + 9)), max_size=8)


@given(reads)
def test_any_seeks_and_reads_are_those_of_a_file_in_memory(file: RemoteFile, steps: list[tuple[str, int]]) -> None:
    local = io.BytesIO(CONTENT)
    file.seek(0)
    for what, number in steps:
        if what == "read":
            assert file.read(number) == local.read(number)
        else:
            whence, offset = (os.SEEK_SET, number) if what == "seek" else (os.SEEK_END, -min(number, len(CONTENT)))
            assert file.seek(offset, whence) == local.seek(offset, whence)
        assert file.tell() == local.tell()


def test_it_is_a_binary_file_that_cannot_be_written_to(file: RemoteFile) -> None:
    file.seek(0)
    assert (file.readable(), file.seekable(), file.writable(), file.size) == (True, True, False, len(CONTENT))
    assert file.readall() == CONTENT
    buffered = io.BufferedReader(file)
    assert (buffered.seek(4), buffered.read(60)) == (4, CONTENT[4:64])
    buffered.detach()
    with pytest.raises(ValueError, match="in front of the file"):
        file.seek(-1)


def test_physical_memory_is_sliced_as_arrays_and_a_hole_is_a_fault(file: RemoteFile) -> None:
    found = file.physical[0x1000:0x2000]
    assert (found.dtype, found.tobytes()) == (np.dtype(np.uint8), LOW)
    assert file.physical[0x4FF0:].tobytes() == HIGH[-16:]
    assert len(file.physical) == 0x5000
    assert file.physical[7:7].size == 0
    with pytest.raises(FaultError) as caught:
        file.physical[0x1FFF:0x2001]
    assert (caught.value.address, caught.value.kind) == (0x2000, "excluded")
    with pytest.raises(ValueError, match="leave out the step"):
        file.physical[0:16:2]


def test_a_closed_file_is_closed(served: Served) -> None:
    file = farcore_client.open(str(dump_url(served.url, "small.elf")))
    file.close()
    file.close()
    for read in (file.readall, lambda: file.pread(0, 4), lambda: file.seek(0)):
        with pytest.raises(ValueError, match="closed"):
            read()


def test_a_dump_that_is_not_there_is_the_servers_word(served: Served) -> None:
    with pytest.raises(RefusedError, match="no dump with this id"):
        farcore_client.open(f"{served.url}/v1/dumps/nothing-00000000")


def test_fsspec_lists_opens_and_reads_ranges(served: Served) -> None:
    url = dump_url(served.url, "small.elf")
    path = f"{url.server.place}/{url.id}"
    with fsspec.open(f"farcore://{path}") as opened:
        assert opened.read() == CONTENT
    system = fsspec.filesystem("farcore")
    assert system.info(path)["size"] == len(CONTENT)
    listed = {entry["name"]: entry for entry in system.ls(f"farcore://{url.server.place}")}
    assert listed[path]["type"] == "file"
    assert len(listed) == 3
    assert system.cat_ranges([path, path, path], [0, 8, -4], [4, 8, None]) == [CONTENT[:4], b"", CONTENT[-4:]]
    assert system.cat_file(path, 64, 80) == CONTENT[64:80]
    assert system.exists(path)
    assert not system.exists(f"{url.server.place}/nothing-00000000")
    with pytest.raises(OSError, match="never written to"):
        system.open(path, "wb")


def test_fsspec_reads_a_dump_for_who_wants_blocks(served: Served, tmp_path: Path) -> None:
    url = dump_url(served.url, "small.elf")
    fsspec.filesystem("farcore").get_file(f"{url.server.place}/{url.id}", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == CONTENT
