"""Grant: what a connection may ask again without being asked who it is: the same request with another range.

When an ordinary handler has authenticated, authorised and answered a plain single-range GET, its request's bytes before
and after the range's digits, and its answer's head with three gaps, are all that the next such request needs. A request
that is equal byte for byte but for the digits has the same answer for as long as the grant holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from farcore.layout import Layout
from farcore_server.access import Access
from farcore_server.body import PIECE
from farcore_server.opened import Opened

if TYPE_CHECKING:
    from farcore_server.lane import Lane

# One range of first and last byte: a suffix or an open end depends on the size, and goes the ordinary way.
_RANGE: Final = re.compile(rb"\r\nrange:[ \t]*bytes=([0-9]{1,19}-[0-9]{1,19})[ \t]*\r\n", re.IGNORECASE)
_GAPS: Final = {"content-range": b"bytes ", "content-length": b"%d", "date": b"%b"}
_ZERO: Final = ord("0")

# Where in the file the bytes lie, how many they are, and the digits that say which, as both request and answer have them.
Wanted = tuple[int, int, bytes]
Asked = tuple["Lane", bytes]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Grant:
    """``prefix`` digits ``suffix`` is the request; ``before`` digits ``after`` % (length, date) is its answer's head.

    It holds while ``access`` is at ``version`` and the path leads to what is ``opened``. Connections that ask alike share one.
    """

    prefix: bytes
    suffix: bytes
    before: bytes
    after: bytes
    opened: Opened
    layout: Layout
    route: str
    access: Access
    version: int
    # Who asked in this turn of the loop, and how.
    asked: list[Asked] = field(init=False, default_factory=list)
    # The run that was asked last: most ask for what lies near it.
    _run: tuple[int, int, int] = field(init=False, default=(0, 0, 0))
    # ``after`` as it was last: most ask for as many bytes again, in the same second.
    _length: int = field(init=False, default=0)
    _date: bytes = field(init=False, default=b"")
    _end: bytes = field(init=False, default=b"")

    def alike(self, chunk: bytes) -> bool:
        """Whether ``chunk`` is this request, as far as one can say without its digits."""
        return chunk.startswith(self.prefix) and chunk.endswith(self.suffix)

    def wanted(self, chunks: Iterable[bytes]) -> Iterator[Wanted | None]:
        """What each of them asks for, where it is this request and one run of the file has it all; else None, at most PIECE.

        All of a turn by one call, since looking up names is most of what it costs.
        """
        prefix, suffix, run = self.prefix, self.suffix, self._run
        begin, end = len(prefix), -len(suffix)
        for chunk in chunks:
            wanted = None
            digits = chunk[begin:end]
            first, _, last = digits.partition(b"-")
            # Slices, in half the time of startswith(). int() takes signs, blanks and underscores, and is quadratic; no range
            # here has more than 19 digits twice. The answer repeats them, and has no leading zeros.
            if (
                chunk[:begin] == prefix
                and chunk[end:] == suffix
                and len(digits) < 40
                and first.isdigit()
                and last.isdigit()
                and (first[0] != _ZERO or len(first) == 1)
                and (last[0] != _ZERO or len(last) == 1)
            ):
                start, stop = int(first), int(last) + 1
                if not run[0] <= start < run[1]:
                    run = self._run = self.layout.around(start) or (0, 0, 0)
                if start < stop <= run[1] and stop - start <= PIECE:
                    wanted = start + run[2], stop - start, digits
            yield wanted

    def end(self, length: int, date: bytes) -> bytes:
        """``after``, with so many bytes and that date."""
        if length != self._length or date is not self._date:
            self._length, self._date, self._end = length, date, self.after % (length, date)
        return self._end


def split(chunk: bytes) -> tuple[bytes, bytes] | None:
    """Prefix and suffix of a chunk that is exactly one GET with one range field; None for any other."""
    if not chunk.startswith(b"GET ") or chunk.find(b"\r\n\r\n") != len(chunk) - 4:
        return None
    found = list(_RANGE.finditer(chunk))
    if len(found) != 1 or len(re.findall(rb"\r\nrange[ \t]*:", chunk, re.IGNORECASE)) != 1:
        return None
    return chunk[: found[0].start(1)], chunk[found[0].end(1) :]


def template(status: str, headers: Mapping[str, str], size: int) -> tuple[bytes, bytes] | None:
    """The answer's head before and after its range's digits, as Grant wants it; None if its gaps stand in another order."""
    head = [status.encode()]
    gaps: list[int] = []
    for name, value in headers.items():
        gap = _GAPS.get(name.lower())
        if gap is not None:
            gaps.append(len(head))
        head.append(name.encode() + b": " + (value.encode().replace(b"%", b"%%") if gap is None else gap))
    names = [head[at].partition(b":")[0].decode().lower() for at in gaps]
    if names != list(_GAPS):
        return None
    before, after = b"\r\n".join(head[: gaps[0] + 1]), b"\r\n".join([b"/%d" % size, *head[gaps[0] + 1 :], b"", b""])
    return before % (), after
