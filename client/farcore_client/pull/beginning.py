"""Beginning: a pull's first question, asked at once: a server far away has answered when numpy and the rest are imported."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from farcore.source import Extent
from farcore_client import partial as parts
from farcore_client.aside import aside
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl
from farcore_client.line import Line, Lines, fields_of
from farcore_client.partial import Resource

if TYPE_CHECKING:
    from farcore.batch import Space

# Seconds of silence after which a connection is given up, and another is made.
SILENCE: Final = 20.0
# Of a dump's start, to see where its pages begin: 140 program headers, in one round trip (RFC 6928: 14 KB come at once).
HEAD: Final = 8 << 10


class First(NamedTuple):
    """The version that is there, its first bytes, and the round trip (s)."""

    version: Resource
    start: bytes
    round_trip: float


class Beginning:
    """Of a pull of /vmcore or /stored of ``dump``; ``path`` is the resource's, ``query`` what its pages are asked with."""

    def __init__(self, dump: DumpUrl, space: Space, credentials: Credentials, *, normalised: bool = False) -> None:
        self.dump, self.space, self.credentials = dump, space, credentials
        self.query = "?normalised" if normalised else ""
        self.path = f"{dump.path}/{space}{self.query}"
        self.lines = Lines(dump.server, credentials, SILENCE)
        self._asked = aside(partial(self._first, self.lines.take()))

    async def first(self) -> First:
        """The answer; any FarcoreError of a server that cannot be had."""
        import asyncio  # as late as the rest

        return await asyncio.wrap_future(self._asked)

    async def again(self) -> First:
        """The same, asked once more."""
        return await self.lines.run(self._look)

    def _first(self, line: Line) -> First:
        try:
            found = self._look(line)
        except BaseException:
            line.close()
            raise
        self.lines.give_back(line)
        return found

    def _look(self, line: Line) -> First:
        answer = line.ask("GET", self.path, {"Range": f"bytes=0-{HEAD - 1}"})
        version = parts.version(answer.status, fields_of(answer), Extent(0, HEAD))
        return First(version, line.read(answer, HEAD), line.round_trip())
