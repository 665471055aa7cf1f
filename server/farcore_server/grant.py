"""Grant: what a connection may ask again without being asked who it is: the same request with another range.

When an ordinary handler has authenticated, authorised and answered a plain single-range GET, its request's bytes before
and after the range's digits, and its answer's head with three gaps, are all that the next such request needs. A request
that is equal byte for byte but for the digits has the same answer for as long as the grant holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from farcore.layout import Layout
from farcore_server.access import Access
from farcore_server.opened import Opened

# One range of first and last byte: a suffix or an open end depends on the size, and goes the ordinary way.
_RANGE: Final = re.compile(rb"\r\nrange:[ \t]*bytes=([0-9]{1,19}-[0-9]{1,19})[ \t]*\r\n", re.IGNORECASE)
_GAPS: Final = {"content-range": b"bytes %d-%d/", "content-length": b"%d", "date": b"%b"}


@dataclass(slots=True, eq=False)
class Grant:
    """``prefix`` digits ``suffix`` is the request; ``head`` % (first, last, length, date) is its answer's head.

    It holds while ``access`` is at ``version`` and the path leads to what is ``opened``. ``date`` is how an answer's Date said
    the time ``dated``, by the loop's clock.
    """

    prefix: bytes
    suffix: bytes
    head: bytes
    opened: Opened
    layout: Layout
    route: str
    access: Access
    version: int
    dated: float = -1.0
    date: bytes = b""

    def wanted(self, chunk: bytes) -> tuple[int, int] | None:
        """The [start, stop) that ``chunk`` asks for, if it is this request and lies in the resource; None otherwise."""
        if not (chunk.startswith(self.prefix) and chunk.endswith(self.suffix)):
            return None
        first, _, last = chunk[len(self.prefix) : -len(self.suffix)].partition(b"-")
        # int() takes signs, blanks and underscores, and is quadratic; no range here has more than 19 digits.
        if not (first.isdigit() and last.isdigit() and len(last) < 20 > len(first)):
            return None
        start, stop = int(first), int(last) + 1
        return (start, stop) if start < stop <= self.layout.size else None


def split(chunk: bytes) -> tuple[bytes, bytes] | None:
    """Prefix and suffix of a chunk that is exactly one GET with one range field; None for any other."""
    if not chunk.startswith(b"GET ") or chunk.find(b"\r\n\r\n") != len(chunk) - 4:
        return None
    found = list(_RANGE.finditer(chunk))
    if len(found) != 1 or len(re.findall(rb"\r\nrange[ \t]*:", chunk, re.IGNORECASE)) != 1:
        return None
    return chunk[: found[0].start(1)], chunk[found[0].end(1) :]


def template(status: str, headers: Mapping[str, str], size: int) -> bytes | None:
    """The answer's head, its bytes escaped for %, with gaps for range, length and date; None if they stand in another order."""
    lines = [status.encode()]
    gaps = []
    for name, value in headers.items():
        gap = _GAPS.get(name.lower())
        if gap is None:
            lines.append(f"{name}: {value}".encode().replace(b"%", b"%%"))
            continue
        gaps.append(name.lower())
        lines.append(name.encode() + b": " + gap + (b"%d" % size if name.lower() == "content-range" else b""))
    return b"\r\n".join(lines) + b"\r\n\r\n" if gaps == list(_GAPS) else None
