"""A dump in Python's hands: slices of memory against bytes painted by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

import farcore_server
from farcore.arch import Policy
from farcore.errors import BadDumpError, FaultError
from farcore_server import Memory, open_dump
from tests.elfwriter import Dump as File
from tests.elfwriter import load, note

FIRST, SECOND, THIRD = map(Random(0).randbytes, (0x1000, 0x1000, 0x800))
# Two PT_LOADs that continue each other in memory but not in the file, a tail that was left out, and then a hole.
FILE = File(
    [
        note(("CORE", 1, bytes(336))),
        load(SECOND, paddr=0x3000),
        load(FIRST, paddr=0x2000),
        load(THIRD, paddr=0x8000, memsz=0x1000),
    ]
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return FILE.write(tmp_path / "vmcore")


@pytest.fixture
def physical(path: Path) -> Memory:
    return open_dump(path).physical


@pytest.mark.parametrize(
    ("start", "stop", "content"),
    [
        (0x2000, 0x3000, FIRST),
        (0x2010, 0x2011, FIRST[0x10:0x11]),
        (0x3000, 0x4000, SECOND),
        (0x2000, 0x4000, FIRST + SECOND),
        (0x2FFF, 0x3001, FIRST[-1:] + SECOND[:1]),
        (0x8000, 0x8800, THIRD),
        (0x8800, 0x8800, b""),
        (0x2000, 0x1000, b""),
    ],
)
def test_a_slice_is_read_only_bytes_by_physical_address(physical: Memory, start: int, stop: int, content: bytes) -> None:
    found = physical[start:stop]
    assert (found.dtype, found.shape, found.tobytes()) == (np.dtype(np.uint8), (len(content),), content)
    assert not found.flags.writeable


def test_slices_of_one_extent_share_memory_and_slices_across_two_are_copies(physical: Memory) -> None:
    inside, across = physical[0x2000:0x3000], physical[0x2000:0x4000]
    assert np.shares_memory(inside, physical[0x2800:0x2900])
    assert not np.shares_memory(inside, across)
    assert not np.shares_memory(physical[0x2000:0x4000], across)


def test_what_is_written_to_the_file_shows_in_a_slice_that_shares_its_pages(path: Path, physical: Memory) -> None:
    inside, across = physical[0x2000:0x3000], physical[0x2000:0x4000]
    at = path.read_bytes().index(FIRST)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([FIRST[0] ^ 0xFF]))
    assert (inside[0], across[0]) == (FIRST[0] ^ 0xFF, FIRST[0])


@pytest.mark.parametrize(
    ("start", "stop", "address", "kind"),
    [
        (0, 0x10, 0, "absent"),
        (0x3FFF, 0x4001, 0x4000, "absent"),
        (0x87FF, 0x8801, 0x8800, "excluded"),
        (0, 0x9000, 0, "absent"),
    ],
)
def test_a_hole_is_a_fault_with_its_first_address_and_its_kind(
    physical: Memory, start: int, stop: int, address: int, kind: str
) -> None:
    with pytest.raises(FaultError) as caught:
        physical[start:stop]
    assert (caught.value.address, caught.value.kind, caught.value.space) == (address, kind, "physical")


def test_the_ends_are_those_of_a_sequence_and_steps_are_refused(path: Path, physical: Memory) -> None:
    content = path.read_bytes()
    stored = open_dump(path).stored
    assert (len(physical), len(stored)) == (0x9000, len(content))
    assert stored[:].tobytes() == content
    assert stored[-10:].tobytes() == content[-10:]
    assert stored[len(content) - 4 : len(content) + 4].tobytes() == content[-4:]
    with pytest.raises(ValueError, match="leave out the step"):
        physical[0x2000:0x3000:2]


def test_a_slice_outlives_the_dump_it_came_from(path: Path) -> None:
    inside = open_dump(path).physical[0x2000:0x3000]
    path.unlink()
    assert inside.tobytes() == FIRST


def test_a_dump_of_any_machine_is_opened_unless_a_policy_says_otherwise(tmp_path: Path) -> None:
    path = File([load(b"s390", paddr=0)], data="BE", machine=22).write(tmp_path / "vmcore")
    assert open_dump(path).physical[0:4].tobytes() == b"s390"
    with pytest.raises(BadDumpError, match="--allow-arch s390x"):
        open_dump(path, Policy("cross"))


def test_what_cannot_be_opened_is_an_error_with_the_path_and_the_reason(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    for name, reason in (("text", "no dump format starts with"), ("gone", "no such file"), ("", "a directory, not a regular")):
        with pytest.raises(BadDumpError, match=f"{tmp_path / name}: {reason}"):
            open_dump(tmp_path / name)


def test_a_huge_sparse_dump_is_sliced_without_reading_it(tmp_path: Path) -> None:
    path = File([load(paddr=1 << 40, offset=1 << 20, filesz=4 << 40)], size=(4 << 40) + (1 << 20)).write(tmp_path / "vmcore")
    program = f"""
import resource
from farcore_server import open_dump
physical = open_dump({str(path)!r}).physical
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
whole = physical[1 << 40 : 5 << 40]
print(whole.shape, whole[-1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"({4 << 40},) 0 True\n"


def test_the_package_has_these_names_and_says_so_of_others() -> None:
    assert farcore_server.open_dump is open_dump
    with pytest.raises(AttributeError, match="no attribute 'open_dmup'"):
        farcore_server.open_dmup  # noqa: B018
