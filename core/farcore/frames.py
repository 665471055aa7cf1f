"""Frames: the answer to a Batch, written and read without a socket (docs/pages.md has the layout byte by byte).

The items' bytes, one item after the other, are one string of known length. An opening says that length; frames then tile
the string from its start to its end, each with a table of what is data, zero, excluded, absent or unreadable, the data
itself and a checksum; a closing frame tells a whole answer from a cut one. Strategy: the reader allocates what a frame
claims only after the claim was held against its bounds, and hands out nothing of a frame whose checksum it has not seen.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from functools import cache
from typing import Any, Final, NamedTuple

import xxhash

from farcore.errors import FrameError
from farcore.room import room

MEDIA_TYPE: Final = "application/vnd.farcore.pages"
VERSION: Final = 1
# zstd levels that may be asked for: 12 takes three to seven times the CPU of 9 and saves 0.3 % (measured on two dumps).
LEVELS: Final = range(-5, 10)
# A frame's data before compression, and its table: what a reader must be ready to hold. Writers stay well below.
MAX_RAW: Final = 1 << 20
MAX_RUNS: Final = 1 << 12

_MAGIC: Final = b"FCPA"
_OPENING: Final = struct.Struct("<4sB3sQ")
_FRAME: Final = struct.Struct("<BBHIQII")
_CHECKSUM: Final = struct.Struct("<Q")
_PAGES, _END = 1, 2
_PLAIN, _ZSTD = 0, 1
_WORD: Final = 8
_KIND_BITS: Final = 4
# A zstd frame may claim a window of gigabytes; one of ours has that of its content.
_WINDOW_LOG: Final = MAX_RAW.bit_length() - 1
_NOTHING: Final = memoryview(b"")


class Found(IntEnum):
    """What a stretch of the answer is: the four of runs.Kind, what the storage failed to read, and what stood in it before."""

    DATA = 0
    ZERO = 1
    EXCLUDED = 2
    ABSENT = 3
    UNREADABLE = 4
    SAME = 5


# By name each would be looked up in the class of an enumeration, which is slow; a word's kind is its lowest bits.
_FOUND: Final = tuple(Found)
_DATA, _UNREADABLE, _SAME = Found.DATA.value, Found.UNREADABLE.value, Found.SAME.value
_KIND: Final = (1 << _KIND_BITS) - 1


class Entry(NamedTuple):
    """``length`` bytes of one kind: what a frame's table has; those of kind SAME are those from ``source`` on."""

    kind: int
    length: int
    source: int = 0


class Piece(NamedTuple):
    """``length`` bytes from position ``at`` of the answer on; ``content`` has them if ``kind`` is DATA, else nothing.

    If ``kind`` is SAME they are those that came at ``source``, before ``at``.
    """

    at: int
    length: int
    kind: Found
    content: memoryview
    source: int = 0


@cache
def _zstd() -> Any:
    """Python 3.14's zstd, or its backport; None without either."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            pass
    return None


def has_zstd() -> bool:
    """Whether this installation reads and writes zstd."""
    return _zstd() is not None


def opening(total: int) -> bytes:
    """The start of an answer about ``total`` bytes."""
    return _OPENING.pack(_MAGIC, VERSION, bytes(3), total)


def frame(
    at: int, runs: Sequence[Entry], content: bytes | memoryview, level: int | None = None
) -> tuple[bytes, bytes | memoryview]:
    """A frame that starts at position ``at``: its head with the table, and its data as stored; zstd unless it does not pay.

    ``content`` is the data of all DATA runs together, at most MAX_RAW bytes.
    """
    stored, codec = content, _PLAIN
    if level is not None and content and has_zstd():
        packed: bytes = _zstd().compress(content, level)
        if len(packed) < len(content):
            stored, codec = packed, _ZSTD
    words = [word for run in runs for word in _words(*run)]
    table = struct.pack(f"<{len(words)}Q", *words)
    head = _FRAME.pack(_PAGES, codec, 0, len(words), at, len(content), len(stored))
    return head + _checksum(head, table, content) + table, stored


def _words(kind: int, length: int, source: int) -> tuple[int, ...]:
    word = length << _KIND_BITS | kind
    return (word, source) if kind == Found.SAME else (word,)


def closing(total: int, frames: int) -> bytes:
    """The end of a whole answer: all its bytes, and in how many frames."""
    head = _FRAME.pack(_END, _PLAIN, 0, frames, total, 0, 0)
    return head + _checksum(head)


def _checksum(*parts: bytes | memoryview) -> bytes:
    # Of the data as read and not as stored, so that it covers both ends' codecs as well.
    digest = xxhash.xxh3_64()
    for part in parts:
        digest.update(part)
    return _CHECKSUM.pack(digest.intdigest())


class Decoder:
    """Reads the answer to a batch of ``total`` bytes; holds at most one frame of ``largest`` bytes of data.

    ``zstd``, ``repeats``: whether the batch asked for them. Every FrameError is final.
    """

    def __init__(self, total: int, *, zstd: bool, repeats: bool = False, largest: int = MAX_RAW) -> None:
        self.complete = False
        self._repeats = repeats
        self._total, self._zstd, self._largest = total, zstd, largest
        self._at = self._frames = 0
        self._head = b""
        self._step: Callable[[], Iterable[Piece]] = self._open
        self._expect(_OPENING.size)

    def feed(self, received: bytes | bytearray | memoryview) -> Iterator[Piece]:
        """The pieces that these bytes complete, checked, in order and without a gap; to be run to its end.

        FrameError at the first byte that is not what it should be.
        """
        rest = memoryview(received)
        while rest:
            if self.complete:
                raise FrameError("the answer goes on behind its end")
            room = self.room
            taken = rest[: len(room)]
            room[: len(taken)] = taken
            rest = rest[len(taken) :]
            yield from self.put(len(taken))

    @property
    def room(self) -> memoryview:
        """Where a socket may put the bytes that come next, in place of feed(); put() says how many they were."""
        return self._buffer[self._filled :]

    def put(self, size: int) -> Iterable[Piece]:
        """As feed(), for the first ``size`` bytes of ``room``."""
        self._filled += size
        return self._step() if self._filled == len(self._buffer) else ()

    def finish(self) -> None:
        """FrameError unless the answer came to its end."""
        if not self.complete:
            raise FrameError(f"the answer was cut after {self._at:,} of {self._total:,} bytes; ask again for the rest")

    def _expect(self, size: int) -> None:
        self._buffer, self._filled = room(size), 0

    def _open(self) -> Iterable[Piece]:
        magic, version, free, total = _OPENING.unpack(self._buffer)
        if magic != _MAGIC or version != VERSION or any(free):
            raise FrameError(f"this is not an answer of version {VERSION}: it starts with {self._buffer[:8].hex(' ')}")
        if total != self._total:
            raise FrameError(f"the answer is about {total:,} bytes; {self._total:,} were asked for")
        self._step = self._read_head
        self._expect(_FRAME.size + _CHECKSUM.size)
        return ()

    def _read_head(self) -> Iterable[Piece]:
        self._head = bytes(self._buffer)
        kind, codec, free, runs, at, raw, stored = _FRAME.unpack_from(self._head)
        if free or at != self._at:
            raise FrameError(f"a frame for byte {at:,} came where the one for byte {self._at:,} was due")
        if kind == _END:
            self._end(codec, runs, raw, stored)
            return ()
        if kind != _PAGES or codec not in (_PLAIN, _ZSTD) or (codec == _ZSTD and not self._zstd):
            raise FrameError(f"a frame of type {kind} and codec {codec} was not asked for")
        if not 0 < runs <= MAX_RUNS or raw > self._largest or (stored >= raw if codec == _ZSTD else stored != raw):
            raise FrameError(
                f"a frame with {runs:,} runs and {raw:,} bytes of data, {stored:,} of them stored, is out of bounds"
            )
        self._step = self._read_body
        self._expect(runs * _WORD + stored)
        return ()

    def _end(self, codec: int, frames: int, raw: int, stored: int) -> None:
        if self._at != self._total or frames != self._frames or codec or raw or stored:
            raise FrameError(
                f"the answer ends after {self._at:,} of {self._total:,} bytes and {self._frames:,} of {frames:,} frames"
            )
        self._verify()
        self.complete = True

    def _read_body(self) -> Iterator[Piece]:
        _, codec, _, runs, _, raw, _ = _FRAME.unpack_from(self._head)
        body = self._buffer.toreadonly()
        table, stored = body[: runs * _WORD], body[runs * _WORD :]
        entries = self._entries(table, raw)
        content = memoryview(_expanded(stored, raw)) if codec == _ZSTD else stored
        self._verify(table, content)
        at, used = self._at, 0
        self._at += sum(length for _, length, _ in entries)
        self._frames += 1
        self._step = self._read_head
        self._expect(_FRAME.size + _CHECKSUM.size)
        for kind, length, source in entries:
            held = length if kind == _DATA else 0
            yield Piece(at, length, _FOUND[kind], content[used : used + held] if held else _NOTHING, source)
            at, used = at + length, used + held

    def _entries(self, table: memoryview, raw: int) -> list[tuple[int, int, int]]:
        """Kind, length and source of each; no array: most tables have two entries."""
        words = iter(struct.unpack(f"<{len(table) // _WORD}Q", table))
        entries: list[tuple[int, int, int]] = []
        at, data, most, source = self._at, 0, _SAME if self._repeats else _UNREADABLE, 0
        for word in words:
            kind, length = word & _KIND, word >> _KIND_BITS
            if kind > most or length == 0 or length > self._total:
                raise FrameError("a frame's table has a kind or a length that cannot be")
            if kind == _DATA:
                data += length
            elif kind == _SAME:
                source = self._before(next(words, None), length, at)
            entries.append((kind, length, source))
            at, source = at + length, 0
        if data != raw or at > self._total:
            raise FrameError(f"a frame's table does not fit its {raw:,} bytes of data and what is left of the answer")
        return entries

    def _before(self, source: int | None, length: int, at: int) -> int:
        """The source of an entry at ``at``: the whole of it must have come."""
        if source is None:
            raise FrameError("a frame's table ends within an entry")
        if source + length > at:
            raise FrameError("a frame names bytes that have not come yet as those that came before")
        return source

    def _verify(self, *parts: memoryview) -> None:
        if self._head[_FRAME.size :] != _checksum(self._head[: _FRAME.size], *parts):
            raise FrameError(f"the frame for byte {self._at:,} was damaged on its way: its checksum differs; ask for it again")


def _expanded(stored: memoryview, raw: int) -> bytes:
    """The data of one zstd frame, which must be ``raw`` bytes: neither more of them nor a second frame."""
    zstd = _zstd()
    if zstd is None:
        raise FrameError("the answer is compressed with zstd, which is not installed here")
    decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
    try:
        content: bytes = decompressor.decompress(stored, max_length=raw + 1)
    except zstd.ZstdError as error:
        raise FrameError(f"a frame's data cannot be decompressed: {error}") from None
    if len(content) != raw or not decompressor.eof or decompressor.unused_data:
        raise FrameError(f"a frame's data does not decompress to the {raw:,} bytes that it claims")
    return content
