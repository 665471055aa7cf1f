"""The memory map of a dump as it comes from a server, run by run, and what it adds up to."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from farcore_client.errors import ProtocolError
from farcore_client.fields import Fields

KINDS: Final = ("data", "zero", "excluded", "absent")

# Characters of a run and what stands around it; white space is a server's sign of life.
_LONGEST: Final = 4096
_OPENING: Final = re.compile(r'\s*\{\s*"runs"\s*:\s*\[')
_BETWEEN: Final = re.compile(r"[\s,]*")


class MapRun(NamedTuple):
    """Physical addresses [start, end) of one of KINDS."""

    start: int
    end: int
    kind: str

    def json(self) -> dict[str, str]:
        """As the wire has it."""
        return {"start": f"{self.start:#x}", "end": f"{self.end:#x}", "kind": self.kind}


class MapReader:
    """Takes the body of /map as it comes, and believes nothing of it unchecked; memory does not grow with it."""

    def __init__(self) -> None:
        self.end = 0
        self.whole = False
        self._text = ""
        self._opened = False

    def feed(self, content: bytes) -> list[MapRun]:
        """The runs that have come whole; ProtocolError for what is no map, or leaves something out."""
        text = self._text + content.decode("ascii", "replace")
        at = 0
        if not self._opened:
            opening = _OPENING.match(text)
            if opening is None:
                return self._rest(text)
            self._opened, at = True, opening.end()
        found: list[MapRun] = []
        while not self.whole:
            at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
            if text[at : at + 1] == "]":
                self.whole = True
                break
            close = text.find("}", at)
            if close < 0:
                return self._rest(text[at:], found)
            found.append(self._run(text[at : close + 1]))
            at = close + 1
        return found

    def _rest(self, text: str, found: list[MapRun] | None = None) -> list[MapRun]:
        if len(text.strip()) > _LONGEST:
            raise _odd()
        self._text = text.lstrip()
        return found or []

    def _run(self, text: str) -> MapRun:
        try:
            said = Fields(dict(json.loads(text)))
        except (ValueError, TypeError, RecursionError):
            raise _odd() from None
        start, end, kind = said.number("start"), said.number("end"), said.text("kind")
        if start != self.end or end is None or end <= self.end or kind not in KINDS:
            raise _odd()
        self.end = end
        return MapRun(start, end, kind)


def _odd() -> ProtocolError:
    return ProtocolError("what came is not the map of a dump; is this the URL of a farcored?")


@dataclass(slots=True)
class Summary:
    """How many bytes there are of each kind, and the first ``most`` runs of ``count``."""

    most: int
    bytes: Counter[str] = field(default_factory=Counter)
    first: list[MapRun] = field(default_factory=list)
    count: int = 0

    def add(self, run: MapRun) -> None:
        """Count one more."""
        self.bytes[run.kind] += run.end - run.start
        self.count += 1
        if len(self.first) < self.most:
            self.first.append(run)
