"""Dump: what is served, an ELF vmcore of real pages in a file of any size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tests import elfwriter
from tests.samples import unpack

PAGE: Final = 4096
# A VMCOREINFO that is enough for a server to name the kernel.
_VMCOREINFO: Final = ("VMCOREINFO", 0, b"OSRELEASE=6.1.0-benchmark\nPAGESIZE=4096\n")
# Where an x86_64 machine with a hole below 4 GiB has its memory: (physical address, share of the dump in percent).
_RAM: Final = ((0x1000, 1), (0x100000, 69), (0x100000000, 20), (0x140000000, 10))


def write(path: Path, size: int) -> Path:
    """About ``size`` bytes: a note, then PT_LOADs filled with the pages of tests/data/x86_64-panic.elf, again and again.

    A third of them are zero, as there; each other one starts with its place in the file, so that no two are alike.
    """
    pool = _pages(unpack("x86_64-panic.elf", path.parent))
    (path.parent / "x86_64-panic.elf").unlink()
    lengths = [size * percent // 100 // PAGE * PAGE for _, percent in _RAM]
    starts = np.cumsum([PAGE, *lengths])
    loads = [
        elfwriter.load(paddr=paddr, vaddr=0xFFFF888000000000 + paddr, offset=int(start), filesz=length, memsz=length)
        for (paddr, _), start, length in zip(_RAM, starts, lengths, strict=False)
    ]
    elfwriter.Dump([elfwriter.note(_VMCOREINFO), *loads], size=int(starts[-1])).write(path)
    with path.open("r+b") as file:
        for at in range(PAGE, int(starts[-1]), pool.nbytes):
            file.seek(at)
            file.write(_stamped(pool, at)[: int(starts[-1]) - at])
        file.flush()
        os.fsync(file.fileno())  # a page that waits for the disk cannot be dropped from memory
    return path


def keep(path: Path) -> None:
    """Have all of it in the page cache, whoever may have dropped some."""
    buffer = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def filled(path: Path) -> npt.NDArray[np.int64]:
    """The offsets of the pages that are not zero, without the header's."""
    words = np.memmap(path, "u8", "r")
    pages = words[: len(words) // (PAGE // 8) * (PAGE // 8)].reshape(-1, PAGE // 8)
    return (np.flatnonzero(pages[1:].any(axis=1)) + 1) * PAGE


def _pages(sample: Path) -> npt.NDArray[np.uint64]:
    """The pages behind the sample's headers and notes, as rows of 512 words."""
    words = np.fromfile(sample, "u8")
    return words.reshape(-1, PAGE // 8)[4:]


def _stamped(pool: npt.NDArray[np.uint64], at: int) -> memoryview:
    copy = pool.copy()
    places = at + PAGE * np.arange(len(copy), dtype=np.uint64)
    copy[:, 0] = np.where(copy.any(axis=1), places, 0)
    return memoryview(copy.tobytes())
