"""Raw memory and LiME ranges; the oracle is what was packed with struct."""

from __future__ import annotations

import struct

import pytest

from farcore import rawmemory
from farcore.errors import BadDumpError
from farcore.runs import Kind, Run
from farcore.source import BytesSource


def lime(*ranges: tuple[int, bytes]) -> bytes:
    """A LiME image."""
    return b"".join(struct.pack("<4sIQQ8x", b"EMiL", 1, at, at + len(held) - 1) + held for at, held in ranges)


def test_raw_memory_starts_where_it_was_said_to() -> None:
    assert list(rawmemory.raw(100, 0x1000).walk(0x1000, 0x1064)) == [Run(0x1000, 0x1064, Kind.DATA, 0)]
    with pytest.raises(BadDumpError, match="beyond 2"):
        rawmemory.raw(1, (1 << 63) - 1)


def test_every_range_of_a_lime_image_lies_where_its_header_says() -> None:
    runs, problem = rawmemory.lime(BytesSource(lime((0x1000, b"low"), (0x40000000, b"high memory"))))
    assert problem is None
    walked = [run for run in runs.walk(0, 0x50000000) if run.kind is Kind.DATA]
    assert walked == [Run(0x1000, 0x1003, Kind.DATA, 32), Run(0x40000000, 0x4000000B, Kind.DATA, 67)]


@pytest.mark.parametrize(
    ("short", "held", "said"), [(1, 10, "1 bytes short"), (11, 0, "11 bytes short"), (12, 0, "range's header")]
)
def test_a_lime_image_that_was_cut_off_is_read_as_far_as_it_goes(short: int, held: int, said: str) -> None:
    runs, problem = rawmemory.lime(BytesSource(lime((0x1000, b"low"), (0x2000, b"high memory"))[:-short]))
    assert said in (problem or "")
    walked = [(run.start, run.stop) for run in runs.walk(0, 0x3000) if run.kind is Kind.DATA]
    assert walked == [(0x1000, 0x1003), *([(0x2000, 0x2000 + held)] if held else [])]


@pytest.mark.parametrize("content", [lime((0, b"x"))[:20], b"EMiL\2" + bytes(27), struct.pack("<4sIQQ8x", b"EMiL", 1, 9, 8)])
def test_an_image_without_a_range_is_refused(content: bytes) -> None:
    with pytest.raises(BadDumpError, match="holds no memory"):
        rawmemory.lime(BytesSource(content))
