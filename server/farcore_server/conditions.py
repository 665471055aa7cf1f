"""Conditional requests, RFC 9110 section 13: whether a request goes on, and whether its Range field counts.

Pure: the request's fields and the dump's validators in, an outcome out. Evaluate last, when the answer would be a 2xx
(13.2.1). The dump exists and its entity tag is strong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

_FIELDS: Final = frozenset({"if-match", "if-unmodified-since", "if-none-match", "if-modified-since", "if-range", "range"})

_TAG: Final = re.compile(r'(?:W/)?"[^"]*"')
_TAGS: Final = re.compile(r'[ \t,]*(?:(?:W/)?"[^"]*"[ \t]*(?:,[ \t,]*|\Z))*')

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH: Final = f"(?P<month>{'|'.join(_MONTHS)})"
_CLOCK: Final = "(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"
# Not email.utils or strptime: the first takes nearly anything for a date, the second follows the locale.
_DATES: Final = (
    re.compile(rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_CLOCK} GMT"),
    re.compile(rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_CLOCK} GMT"),
    re.compile(rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) {_MONTH} (?P<day>[ 0-9][0-9]) {_CLOCK} (?P<year>[0-9]{{4}})"),
)


@dataclass(frozen=True, slots=True)
class Proceed:
    """Perform the method; ``ranged``: there is a Range field and it counts (otherwise send the whole, 200)."""

    ranged: bool


@dataclass(frozen=True, slots=True)
class NotModified:
    """Answer 304: the client's copy is current."""


@dataclass(frozen=True, slots=True)
class PreconditionFailed:
    """Answer 412; ``field`` is the name of the field whose condition is false."""

    field: str


Outcome = Proceed | NotModified | PreconditionFailed


def evaluate(method: str, headers: Mapping[str, str], etag: str, modified: int | None, now: int) -> Outcome:
    """Evaluate the preconditions in the order of 13.2.2.

    ``etag`` has its quotes; ``modified`` (Last-Modified; None: there is none) and ``now`` (Date) are Unix seconds.
    """
    fields = _fields(headers)
    reads = method in ("GET", "HEAD")
    if "if-match" in fields:
        if not _matches(fields["if-match"], etag, weak=False):
            return PreconditionFailed("If-Match")
    elif modified is not None and "if-unmodified-since" in fields:
        date = _seconds(fields["if-unmodified-since"], now)
        if date is not None and modified > date:
            return PreconditionFailed("If-Unmodified-Since")
    if "if-none-match" in fields:
        if _matches(fields["if-none-match"], etag, weak=True):
            return NotModified() if reads else PreconditionFailed("If-None-Match")
    elif modified is not None and reads and "if-modified-since" in fields:
        date = _seconds(fields["if-modified-since"], now)
        if date is not None and modified <= date:
            return NotModified()
    # Range is defined for GET alone (14.2), and If-Range counts only beside it (13.1.5).
    ranged = method == "GET" and "range" in fields
    return Proceed(ranged and ("if-range" not in fields or _unchanged(fields["if-range"], etag, modified, now)))


def _fields(headers: Mapping[str, str]) -> dict[str, str]:
    """The fields that matter, by lower-case name; several lines of one name are one value (5.3)."""
    fields: dict[str, str] = {}
    for name, value in headers.items():
        if (key := name.lower()) in _FIELDS:
            fields[key] = f"{fields[key]}, {value}" if key in fields else value
    return fields


def _matches(field: str, etag: str, *, weak: bool) -> bool:
    """Whether ``*`` or a list of entity tags has the dump's. A malformed list has none: nothing is taken for unchanged."""
    if field.strip(" \t") == "*":
        return True
    if not _TAGS.fullmatch(field):
        return False
    return any((tag.removeprefix("W/") if weak else tag) == etag for tag in _TAG.findall(field))


def _unchanged(field: str, etag: str, modified: int | None, now: int) -> bool:
    """Whether If-Range's validator is the dump's own.

    A date is strong (8.8.2.2) once the second it names is over by the answer's Date, for only then is it certain that no
    change within that second is to come. Two earlier changes within it no server can tell apart by date: that is the
    client's half of the rule, and why the entity tag is the validator to use.
    """
    field = field.strip(" \t")
    if field == etag:
        return True
    date = _seconds(field, now)
    return date is not None and date == modified and now > date


def _seconds(field: str, now: int) -> int | None:
    """An HTTP-date (5.6.7) in any of its three forms, as Unix seconds; None if it is not one."""
    match = next(filter(None, (form.fullmatch(field.strip(" \t")) for form in _DATES)), None)
    if match is None:
        return None
    year, month, day = int(match["year"]), _MONTHS.index(match["month"]) + 1, int(match["day"])
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    if len(match["year"]) == 2:
        today = datetime.fromtimestamp(now, UTC)
        year += today.year // 100 * 100
        # More than 50 years ahead means the century before.
        if (year - 50, month, day, hour, minute, second) > today.timetuple()[:6]:
            year -= 100
    try:
        midnight = datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        return None
    return int(midnight.timestamp()) + 3600 * hour + 60 * minute + second
