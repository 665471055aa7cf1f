"""Any bytes that answer a batch are pieces in order, without a gap and within it, or FrameError; never another error.

Any bytes that ask are a Batch within its bounds, or FrameError. A reader of frames of 64 KiB at most hands out no more data
than that at a time. Every other time checksums are made to fit, so that what stands behind them is reached too.
"""

from __future__ import annotations

import struct
from contextlib import suppress

import atheris
import xxhash
from backports import zstd

with atheris.instrument_imports(include=["farcore"]):
    from farcore.batch import Batch
    from farcore.errors import FrameError
    from farcore.frames import Decoder, Found

from tests import pages_wire
from tests.fuzz.seeds import fuzz

LARGEST = 64 << 10
TEXT = b"struct page " * 500
RUNS = [(0, 4000), (1, 4096), (2, 77), (3, 1 << 40), (4, 4096), (0, 2000)]
TOTAL = sum(length for _, length in RUNS) + 5
PACKED = zstd.compress(TEXT)


def answer(stored: bytes | None) -> bytes:
    """A sound answer of two frames."""
    first = pages_wire.frame(0, RUNS, TEXT, stored)
    last = pages_wire.frame(TOTAL - 5, [(0, 5)], b"fives")
    return pages_wire.opening(TOTAL) + first + last + pages_wire.closing(TOTAL, 2)


SOUND = (answer(None), answer(PACKED))
BATCH = pages_wire.request([("physical", 0x1000, 4096), ("vmcore", 5, 9), ("stored", 1 << 40, 1)], 3)


def mended(raw: bytes) -> bytes:
    """The same with checksums that fit plain frames, as far as frames can be told apart."""
    whole = bytearray(raw)
    at = 16
    while at + 32 <= len(whole):
        kind, codec, _, runs, _, _, stored = struct.unpack_from("<BBHIQII", whole, at)
        end = at + 32 + (8 * runs + stored if kind == 1 else 0)
        if codec == 0 and end <= len(whole):
            digest = xxhash.xxh3_64_intdigest(bytes(whole[at : at + 24]) + bytes(whole[at + 32 : end]))
            struct.pack_into("<Q", whole, at + 24, digest)
        at = end
    return bytes(whole)


def one(raw: bytes) -> None:
    """The first byte chooses: a batch, or an answer onto whose sound form the rest is XORed, mended or not, fed in two."""
    choice, rest = sum(raw[:1]), raw[1:]
    if choice & 3 == 3:
        ask(rest)
        return
    sound = SOUND[choice & 1] if choice & 2 else b""
    changed = bytes(a ^ b for a, b in zip(rest, sound, strict=False)) + sound[len(rest) :] if sound else rest
    read(mended(changed) if choice & 4 else changed, choice >> 3)


def read(received: bytes, cut: int) -> None:
    """The invariant of an answer."""
    decoder, at = Decoder(TOTAL, zstd=True, repeats=cut % 2 == 0, largest=LARGEST), 0
    with suppress(FrameError):
        for part in (received[:cut], received[cut:]):
            for piece in decoder.feed(part):
                assert piece.at == at
                assert piece.length > 0
                assert piece.source + piece.length <= at or piece.kind is not Found.SAME
                assert len(piece.content) == (piece.length if piece.kind is Found.DATA else 0) <= LARGEST
                at += piece.length
        decoder.finish()
        assert at == TOTAL
    assert at <= TOTAL


def ask(body: bytes) -> None:
    """The invariant of a batch."""
    with suppress(FrameError):
        batch = Batch.parse(body)
        assert len(batch) * 16 + 16 == len(body)
        assert all(0 < length < 1 << 32 for length in batch.length.tolist())
        assert all(start + length < 1 << 64 for start, length in zip(batch.start.tolist(), batch.length.tolist(), strict=True))
        assert Batch.parse(batch.pack()).pack() == batch.pack()


if __name__ == "__main__":
    changes = [bytes(len(each)) for each in SOUND]
    fuzz(
        one,
        [b"\3" + BATCH, b"\0" + SOUND[0], b"\1" + SOUND[1], *(bytes([choice]) + changes[choice & 1] for choice in (2, 6, 86))],
    )
