"""Answer: what a GET or HEAD for a byte resource is told, decided from the request's fields alone (RFC 9110, 13 to 15)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Final, NamedTuple

from farcore import ranges
from farcore.ranges import ByteRange
from farcore_server import conditions
from farcore_server.conditions import NotModified, PreconditionFailed

OCTETS: Final = "application/octet-stream"


class Part(NamedTuple):
    """The bytes [start, stop) of the resource, sent behind ``head``."""

    head: bytes
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and fields; the body is ``parts``, then ``tail``: ``length`` bytes. ``detail`` is for the 412 and 416."""

    status: int
    headers: Mapping[str, str]
    parts: tuple[Part, ...] = ()
    tail: bytes = b""
    length: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Representation:
    """What is asked for: ``size`` bytes with these validators; ``gap`` as for ranges.coalesce."""

    size: int
    etag: str
    modified: int | None
    gap: int = ranges.PART_OVERHEAD

    @property
    def validators(self) -> dict[str, str]:
        """The fields that every answer about it has, a 304 as well."""
        fields = {"ETag": self.etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
        if self.modified is not None:
            fields["Last-Modified"] = formatdate(self.modified, usegmt=True)
        return fields


def answer(method: str, headers: Mapping[str, str], wanted: Representation, boundary: str) -> Answer:
    """200, 206, 304, 412 or 416. ``boundary`` separates the parts of a multipart body, if it comes to one."""
    now = int(time.time())
    if wanted.modified is not None and wanted.modified > now:
        # A date in the future must not be sent (8.8.2.1), nor judged by.
        wanted = replace(wanted, modified=None)
    outcome = conditions.evaluate(method, headers, wanted.etag, wanted.modified, now)
    fields = wanted.validators
    if isinstance(outcome, NotModified):
        return Answer(304, fields)
    if isinstance(outcome, PreconditionFailed):
        return Answer(412, fields, detail=f"{outcome.field} does not hold: the dump's ETag is {wanted.etag}.")
    header = headers.get("Range") if outcome.ranged else None
    match ranges.select(header, wanted.size, wanted.gap):
        case ranges.Unsatisfiable(detail):
            return Answer(416, {**fields, "Content-Range": ranges.unsatisfied(wanted.size)}, detail=detail)
        case ranges.Partial((only,)):
            fields |= {"Content-Type": OCTETS, "Content-Range": ranges.content_range(only, wanted.size)}
            return Answer(206, fields, (Part(b"", *only),), length=only.stop - only.start)
        case ranges.Partial(several):
            return _multipart(several, wanted, fields, boundary)
        case ranges.Whole():
            parts = (Part(b"", 0, wanted.size),) if wanted.size else ()
            return Answer(200, fields | {"Content-Type": OCTETS}, parts, length=wanted.size)


def _multipart(several: tuple[ByteRange, ...], wanted: Representation, fields: dict[str, str], boundary: str) -> Answer:
    plan = ranges.multipart(several, wanted.size, OCTETS, boundary)
    parts = tuple(Part(head, start, stop) for head, (start, stop) in zip(plan.heads, several, strict=True))
    return Answer(206, fields | {"Content-Type": plan.content_type}, parts, plan.tail, plan.length)
