"""Any Range and condition fields give 200, 206, 304, 412 or 416, and a body that is some of the bytes, each once at most.

No exception is allowed. Parts lie in the resource, are disjoint, are at most 1,024, and with their heads and the tail have
exactly the length that was promised; and what is one range, written plainly, is exactly that range.
"""

from __future__ import annotations

import re
from itertools import pairwise

import atheris

with atheris.instrument_imports(include=["farcore", "farcore_server.answer", "farcore_server.conditions"]):
    from farcore.ranges import MAX_RANGES
    from farcore_server.answer import Representation, answer

from tests.fuzz.seeds import fuzz

TAG = '"0123456789abcdef"'
DATE = "Sun, 13 Sep 2020 12:26:40 GMT"
NAMES = ("Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")
SIZES = (0, 1, 1000, 1 << 33, (1 << 64) - 1)
PLAIN = re.compile(r"bytes=([0-9]{1,18})-([0-9]{1,18})", re.ASCII)


def one(raw: bytes) -> None:
    """The first byte chooses the size and the gap; each line after it is a field's value, in the order of NAMES."""
    choice = sum(raw[:1])
    size, gap = SIZES[choice % len(SIZES)], 1 if choice & 0x80 else 80
    values = raw[1:].decode("latin-1").split("\n")
    fields = {name: value for name, value in zip(NAMES, values, strict=False) if value}
    told = answer("GET", fields, Representation(size, TAG, 1_600_000_000, gap), "boundary")
    assert told.status in (200, 206, 304, 412, 416)
    assert told.headers["ETag"] == TAG
    assert all(name.isascii() and value.isprintable() for name, value in told.headers.items())
    assert told.length == sum(len(head) + stop - start for head, start, stop in told.parts) + len(told.tail)
    places = sorted((start, stop) for _, start, stop in told.parts)
    assert len(places) <= MAX_RANGES
    assert all(0 <= start < stop <= size for start, stop in places)
    assert all(lower[1] < upper[0] for lower, upper in pairwise(places))
    assert (told.status in (200, 206)) >= bool(places)
    assert told.status != 206 or places
    plain = PLAIN.fullmatch(fields.get("Range", ""))
    if fields.keys() == {"Range"} and plain and int(plain[1]) <= int(plain[2]):
        first, last = int(plain[1]), int(plain[2])
        assert places == ([(first, min(last + 1, size))] if first < size else [])
        assert told.status == (206 if first < size else 416)


SEEDS = (
    "bytes=0-99",
    "bytes=-5, 10-20,,30-",
    f"bytes=0-0\n{TAG}",
    f"bytes=5-\n{DATE}",
    f'\n\nW/{TAG}, "x"\n*\n{DATE}\nSunday, 13-Sep-20 12:26:40 GMT',
)

if __name__ == "__main__":
    fuzz(one, [bytes([choice]) + seed.encode() for choice in (2, 3, 0x84) for seed in SEEDS])
