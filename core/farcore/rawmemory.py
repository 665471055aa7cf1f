"""Raw memory: RAM as bytes and nothing else, from a physical address that somebody knows; and LiME's, which says its own.

LiME (github.com/504ensicsLabs/LiME, doc/README.md, "lime" format): ranges, each behind a header of 32 bytes: magic 0x4C694D45,
version 1, first and last physical address (both included), 8 reserved bytes; little-endian.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from farcore.errors import BadDumpError
from farcore.runs import Kind, Runs, paint
from farcore.source import Source

MAGIC: Final = b"EMiL"
# A machine's RAM is in a few dozen ranges.
MAX_RANGES: Final = 1 << 14
_HEADER: Final = struct.Struct("<4sIQQ8x")


def raw(size: int, address: int) -> Runs:
    """``size`` bytes of a file as physical memory from ``address`` on; BadDumpError where they would reach 2^63."""
    if address + size >= 1 << 63:
        raise BadDumpError(f"{size:,} bytes from {address:#x} on reach beyond 2^63, where no memory is", term="segments")
    start, stop, offset = (np.array([each], np.uint64) for each in (address, address + size, 0))
    return paint(start, stop, offset, np.zeros(1, np.uint8))


def lime(below: Source) -> tuple[Runs, str | None]:
    """The ranges of a LiME file as physical memory, and what is wrong with its end; BadDumpError where it holds nothing."""
    rows: list[tuple[int, int, int]] = []
    at, problem = 0, None
    while at < below.size:
        if at + _HEADER.size > below.size:
            problem = f"the file ends within a range's header, at byte {below.size:,}"
            break
        magic, version, first, last = _HEADER.unpack(below.pread(at, _HEADER.size))
        if magic != MAGIC or version != 1 or last < first or last >= 1 << 63 or len(rows) == MAX_RANGES:
            problem = f"there is no range that can be followed at byte {at:,}"
            break
        at += _HEADER.size
        held = min(last + 1 - first, below.size - at)
        if held:
            rows.append((first, first + held, at))
        if held <= last - first:
            problem = f"the file ends {last + 1 - first - held:,} bytes short of its range from {first:#x}"
        at += last + 1 - first
    if not rows:
        raise BadDumpError(f"the LiME image holds no memory: {problem or 'it is empty'}", term="segments")
    start, stop, offset = np.array(rows, np.uint64).T
    return paint(start, stop, offset, np.full(len(rows), Kind.DATA, np.uint8)), problem
