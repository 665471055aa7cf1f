"""A makedumpfile -F stream as the file that `makedumpfile -R` would restore: runs over the stream's own bytes.

The stream is a header of 4 KiB, then records: offset and size (int64, big-endian), then that many bytes, written in any
order; (-1, -1) ends it (makedumpfile 1.7.2: makedumpfile.h, rearrange_dumpdata). Nothing is copied: what lies inside is read
through a Layout. Indexing touches every record's header and none of its bytes.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from typing import Final

import numpy as np

from farcore.errors import BadDumpError, FaultError
from farcore.layout import Layout
from farcore.runs import Kind, Runs, paint
from farcore.source import Source
from farcore.space import Space

SIGNATURE: Final = b"makedumpfile\0\0\0\0"
HEADER_SIZE: Final = 4096
# QEMU's records have 16 KiB, makedumpfile's more: 128 GiB of a stream, and 400 MB while it is sorted.
MAX_RECORDS: Final = 1 << 23

_START: Final = struct.Struct(">16sqq")
_RECORD: Final = struct.Struct(">qq")
# Records shorter than this are read several at a time: a read costs as much as copying that many bytes.
_SHORT: Final = 4096
_WINDOW: Final = 64 << 10


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Flattened:
    """What a stream restores to: ``size`` bytes; ``problem`` says where it ends too early or cannot be followed."""

    runs: Runs
    size: int
    problem: str | None = None

    @classmethod
    def index(cls, below: Source, *, most: int = MAX_RECORDS) -> Flattened:
        """Follow the records; BadDumpError for what is no stream, or has more than ``most``."""
        _demand_header(below)
        records, problem = _records(below, most)
        if not len(records):
            raise BadDumpError(f"the flattened dump holds nothing: {problem or 'it has no record'}", term="flattened")
        # The record that was written last wins.
        start, length, offset = records[::-1].astype(np.uint64).T
        stop = start + length
        size = int(stop.max())
        kind = np.zeros(len(start) + 1, np.uint8)
        kind[-1] = Kind.ZERO
        # What no record wrote is a hole in the restored file, and reads as zeros; of a stream cut short nobody knows that.
        hole = np.array([0 if problem is None else size], np.uint64)
        runs = paint(
            np.concatenate([start, hole]),
            np.concatenate([stop, np.array([size], np.uint64)]),
            np.concatenate([offset, hole * 0]),
            kind,
        )
        return cls(runs, size, problem)

    def layout(self) -> Layout:
        """The restored file, by byte, over the stream."""
        return Layout("vmcore", self.size, self.runs)

    def over(self, below: Source) -> Space:
        """The restored file as a Source; what was cut off is a FaultError (absent)."""
        return Space(below, self.layout())


def _demand_header(below: Source) -> None:
    raw = bytes(below.pread(0, min(below.size, _START.size)))
    if len(raw) < _START.size or below.size < HEADER_SIZE:
        raise BadDumpError("the flattened dump ends within its header: copy it again", term="flattened")
    signature, kind, version = _START.unpack(raw)
    if signature != SIGNATURE or (kind, version) != (1, 1):
        raise BadDumpError(
            f"a flattened dump of type {kind}, version {version} is not known (1 and 1 are): restore it with makedumpfile -R",
            term="flattened",
        )


def _records(below: Source, most: int) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.int64]], str | None]:
    """int64 (records, 3): offset in the restored file, length, offset in the stream; and what is wrong with its end."""
    found = array("q")
    at, problem = HEADER_SIZE, None
    window, window_at, ahead = memoryview(b""), 0, _WINDOW
    while True:
        if at + _RECORD.size > window_at + len(window):
            window_at = at
            try:
                window = below.pread(at, min(ahead, below.size - at))
            except FaultError as error:
                problem = str(error)
                break
            if len(window) < _RECORD.size:
                problem = f"the flattened dump is cut off at byte {below.size:,}, before its end mark"
                break
        start, length = _RECORD.unpack_from(window, at - window_at)
        at += _RECORD.size
        if start == length == -1:
            break
        if start < 0 or length <= 0 or start + length >= 1 << 62:
            problem = f"the record at byte {at - _RECORD.size:,} of the flattened dump ({length:,} bytes for {start:,}) is none"
            break
        held = min(length, below.size - at)
        if held:
            found.extend((start, held, at))
        if held < length:
            problem = f"the flattened dump is cut off at byte {below.size:,}, within a record"
            break
        if len(found) > 3 * most:
            raise BadDumpError(
                f"the flattened dump has more than {most:,} records: restore it with makedumpfile -R", term="flattened"
            )
        at += length
        ahead = _WINDOW if length < _SHORT else _RECORD.size
    return np.frombuffer(found, np.int64).reshape(-1, 3), problem
