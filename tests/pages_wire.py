"""The bytes of /pages, written and read by docs/pages.md alone: knows nothing of farcore, so that it can be its oracle."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import xxhash
from backports import zstd

MEDIA_TYPE = "application/vnd.farcore.pages"
SPACES = {"physical": 0, "vmcore": 1, "stored": 2}
DATA, ZERO, EXCLUDED, ABSENT, UNREADABLE, SAME = range(6)
KINDS = ("data", "zero", "excluded", "absent", "unreadable")
SOUND: Mapping[str, int] = {}

Item = tuple[str, int, int]
# Kind and length, and of SAME where it stood before.
Run = tuple[int, ...]


def request(items: Iterable[Item], level: int | None = None, *, repeats: bool = False) -> bytes:
    """A batch of (space, start, length)."""
    packed = [struct.pack("<QIBxxx", start, length, SPACES[space]) for space, start, length in items]
    header = struct.pack("<4sBBbBII", b"FCPQ", 1, (level is not None) + 2 * repeats, level or 0, 0, len(packed), 0)
    return header + b"".join(packed)


def opening(total: int) -> bytes:
    """The start of an answer."""
    return b"FCPA\x01\0\0\0" + struct.pack("<Q", total)


def frame(at: int, runs: Sequence[Run], data: bytes, stored: bytes | None = None, wrong: Mapping[str, int] = SOUND) -> bytes:
    """A frame; with ``stored``, of codec 1. ``wrong`` replaces fields of its head, under a checksum that fits."""
    codec, body = (0, data) if stored is None else (1, stored)
    table = b"".join(struct.pack(f"<{1 + len(more)}Q", length << 4 | kind, *more) for kind, length, *more in runs)
    fields = {"type": 1, "codec": codec, "free": 0, "runs": len(table) // 8, "at": at, "raw": len(data), "stored": len(body)}
    assert wrong.keys() <= fields.keys()
    head = struct.pack("<BBHIQII", *{**fields, **wrong}.values())
    return head + struct.pack("<Q", xxhash.xxh3_64_intdigest(head + table + data)) + table + body


def closing(total: int, frames: int) -> bytes:
    """The end of an answer."""
    head = struct.pack("<BBHIQII", 2, 0, 0, frames, total, 0, 0)
    return head + struct.pack("<Q", xxhash.xxh3_64_intdigest(head))


class Frame(NamedTuple):
    """A frame as it was sent."""

    at: int
    codec: int
    runs: list[Run]
    data: bytes


def frames(answer: bytes) -> list[Frame]:
    """The frames of a whole answer, every rule of the format asserted."""
    assert answer[:8] == b"FCPA\x01\0\0\0"
    (total,) = struct.unpack_from("<Q", answer, 8)
    found: list[Frame] = []
    place, at = 16, 0
    while True:
        head = answer[place : place + 24]
        kind, codec, free, runs, start, raw, size = struct.unpack("<BBHIQII", head)
        (checksum,) = struct.unpack_from("<Q", answer, place + 24)
        table = answer[place + 32 : place + 32 + 8 * runs] if kind == 1 else b""
        body = answer[place + 32 + len(table) :][:size]
        data = zstd.decompress(body) if codec else body
        assert xxhash.xxh3_64_intdigest(head + table + data) == checksum
        assert (free, start, len(body), len(data)) == (0, at, size, raw)
        place += 32 + len(table) + size
        if kind == 2:
            assert (codec, runs, start, raw, size) == (0, len(found), total, 0, 0)
            assert place == len(answer), "the answer goes on behind its end"
            return found
        words = struct.unpack(f"<{runs}Q", table)
        entries = _entries(words)
        assert (kind, 0 < runs <= 4096, raw <= 1 << 20) == (1, True, True)
        assert all(entry[1] for entry in entries)
        assert raw == sum(entry[1] for entry in entries if entry[0] == DATA)
        for entry in entries:
            assert entry[0] != SAME or entry[2] + entry[1] <= at
            at += entry[1]
        found.append(Frame(start, codec, entries, data))


def _entries(words: Sequence[int]) -> list[Run]:
    rest = iter(words)
    return [(word & 15, word >> 4, *([next(rest)] if word & 15 == SAME else [])) for word in rest]


def painted(answer: bytes) -> list[int | str]:
    """Byte by byte, what each position of the answer holds: a number, or the name of a kind that has none."""
    found: list[int | str] = []
    for frame in frames(answer):
        used = 0
        for kind, length, *source in frame.runs:
            if kind == DATA:
                found += frame.data[used : used + length]
                used += length
            elif kind == SAME:
                found += found[source[0] : source[0] + length]
            else:
                found += [0 if kind == ZERO else KINDS[kind]] * length
    return found


def content(answer: bytes) -> bytes:
    """The bytes of an answer that has them all."""
    whole = bytearray()
    for frame in frames(answer):
        used = 0
        for kind, length, *source in frame.runs:
            assert kind in (DATA, ZERO, SAME), KINDS[kind]
            if kind == SAME:
                whole += whole[source[0] : source[0] + length]
            else:
                whole += frame.data[used : used + length] if kind == DATA else bytes(length)
            used += length if kind == DATA else 0
    return bytes(whole)
