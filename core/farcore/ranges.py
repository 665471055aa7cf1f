"""Byte ranges, RFC 9110 section 14: from a Range field to the pieces of an answer, and back on the client's side.

A Range field has one of three fates: ignored (malformed, or a unit that is not bytes: the whole is sent), satisfiable in
part or in full, or unsatisfiable. Ranges are half-open inside and inclusive only on the wire.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

# More would be the many small or overlapping ranges of CVE-2011-3192. An 8 KiB header, the usual limit, holds about 300
# ranges of a large dump, so no ordinary request comes near.
MAX_RANGES: Final = 1024

# What a part costs besides its bytes, as RFC 9110 15.3.7.2 estimates it: a smaller gap is cheaper sent than split at.
PART_OVERHEAD: Final = 80

# A number of more than 20 digits is past any 64-bit size. It stands for all of those: int() is quadratic, and refuses
# strings of more than 4,300 digits.
_FAR: Final = 10**20

_CONTENT_RANGE: Final = re.compile(r"bytes (?:([0-9]{1,20})-([0-9]{1,20})|\*)/([0-9]{1,20}|\*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Between:
    """``first-last``: from byte ``first`` to byte ``last``, which is included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class From:
    """``first-``: from byte ``first`` to the end."""

    first: int


@dataclass(frozen=True, slots=True)
class Last:
    """``-length``: the last ``length`` bytes."""

    length: int


Spec = Between | From | Last


class ByteRange(NamedTuple):
    """The bytes [start, stop)."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Whole:
    """Send everything (200): there is no Range field, or it is ignored."""


@dataclass(frozen=True, slots=True)
class Partial:
    """Send these (206), in this order: one as a plain body, several as multipart/byteranges."""

    ranges: tuple[ByteRange, ...]


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """Send nothing (416); ``detail`` is a sentence for the person who asked."""

    detail: str


def parse(header: str) -> tuple[Spec, ...] | None:
    """The range-specs of a Range field's value, at least one; None if it is malformed or its unit is not bytes.

    Numbers are exact up to 20 digits; longer ones become 10^20. Lists as RFC 9110 5.6.1 has them: blanks, empty elements.
    """
    unit, _, elements = header.strip(" \t").partition("=")
    if unit.lower() != "bytes":
        return None
    specs = []
    for element in elements.split(","):
        if text := element.strip(" \t"):
            spec = _spec(text)
            if spec is None:
                return None
            specs.append(spec)
    return tuple(specs) or None


def _spec(text: str) -> Spec | None:
    first, dash, last = text.partition("-")
    if not dash or not (first + last).isdecimal() or not text.isascii():
        return None
    if not first:
        return Last(_number(last))
    if not last:
        return From(_number(first))
    lower, upper = first.lstrip("0"), last.lstrip("0")
    # Compared as text, for two numbers past _FAR have an order as well.
    return None if (len(upper), upper) < (len(lower), lower) else Between(_number(first), _number(last))


def _number(digits: str) -> int:
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= 20 else _FAR


def resolve(specs: Sequence[Spec], size: int) -> tuple[ByteRange, ...]:
    """What each satisfiable spec means for ``size`` bytes, clipped, in the order given; never an empty range (14.1.2)."""
    ranges = []
    for spec in specs:
        match spec:
            case Between(first, last):
                found = ByteRange(first, min(last + 1, size))
            case From(first):
                found = ByteRange(first, size)
            case Last(length):
                found = ByteRange(max(size - length, 0), size)
        if found.start < found.stop:
            ranges.append(found)
    return tuple(ranges)


def coalesce(ranges: Sequence[ByteRange], gap: int = PART_OVERHEAD) -> tuple[ByteRange, ...]:
    """Merge what overlaps or lies less than ``gap`` bytes apart; each stands where its first member stood (15.3.7.2).

    The result is disjoint, so it never has more bytes than there are. O(n log n).
    """
    merged: list[tuple[int, ByteRange]] = []
    for place, (start, stop) in sorted(enumerate(ranges), key=lambda placed: placed[1]):
        if merged and start - merged[-1][1].stop < gap:
            earliest, (lowest, highest) = merged[-1]
            merged[-1] = (min(earliest, place), ByteRange(lowest, max(highest, stop)))
        else:
            merged.append((place, ByteRange(start, stop)))
    return tuple(found for _, found in sorted(merged))


def select(header: str | None, size: int, gap: int = PART_OVERHEAD) -> Whole | Partial | Unsatisfiable:
    """The answer to a GET whose Range field is ``header``, of ``size`` bytes; ``gap`` as for coalesce().

    ``gap=1`` merges without a byte more than was asked for, as a space with holes needs. More than MAX_RANGES are rejected
    (15.5.17) and not ignored: whoever lists that many does not want the whole dump instead.
    """
    specs = None if header is None else parse(header)
    if specs is None:
        return Whole()
    if len(specs) > MAX_RANGES:
        return Unsatisfiable(f"{len(specs):,} ranges are too many for one request; ask for at most {MAX_RANGES:,}")
    if ranges := resolve(specs, size):
        return Partial(coalesce(ranges, gap))
    # Only of no bytes at all: a suffix is satisfiable even then (14.1.2), but a Content-Range cannot name it.
    if any(isinstance(spec, Last) and spec.length for spec in specs):
        return Whole()
    return Unsatisfiable(f"the Range field names none of the {size:,} bytes there are; ask for some of them, or without it")


def content_range(found: ByteRange, size: int) -> str:
    """A 206's Content-Range field (14.4)."""
    return f"bytes {found.start}-{found.stop - 1}/{size}"


def unsatisfied(size: int) -> str:
    """A 416's Content-Range field (14.4)."""
    return f"bytes */{size}"


class ContentRange(NamedTuple):
    """An answer's Content-Range: which bytes it has (None in a 416) of how many (None if the server does not say)."""

    found: ByteRange | None
    size: int | None


def parse_content_range(header: str) -> ContentRange | None:
    """A Content-Range field's value; None if it is invalid (14.4), not in bytes, or has a number of more than 20 digits."""
    match = _CONTENT_RANGE.fullmatch(header.strip(" \t"))
    if match is None:
        return None
    first, last, complete = match.groups()
    size = None if complete == "*" else int(complete)
    if first is None:
        return None if size is None else ContentRange(None, size)
    found = ByteRange(int(first), int(last) + 1)
    return None if found.start >= found.stop or (size is not None and found.stop > size) else ContentRange(found, size)


@dataclass(frozen=True, slots=True)
class Multipart:
    """A multipart/byteranges body: each head and then its range's bytes, at last the tail; ``length`` bytes in all."""

    content_type: str
    heads: tuple[bytes, ...]
    tail: bytes
    length: int


def multipart(ranges: Sequence[ByteRange], size: int, content_type: str, boundary: str) -> Multipart:
    """Plan an answer (14.6) of ``ranges`` out of ``size`` bytes of ``content_type``.

    The caller draws ``boundary`` at random, 1 to 70 ASCII letters and digits (RFC 2046 5.1.1), so that no dump holds it.
    """
    opening = f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: "
    heads = [f"{opening}{content_range(found, size)}\r\n\r\n".encode("ascii") for found in ranges]
    heads[:1] = [head.removeprefix(b"\r\n") for head in heads[:1]]
    tail = f"\r\n--{boundary}--\r\n".encode("ascii")
    length = sum(map(len, heads)) + sum(stop - start for start, stop in ranges) + len(tail)
    return Multipart(f"multipart/byteranges; boundary={boundary}", tuple(heads), tail, length)
