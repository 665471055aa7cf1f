"""Turn: the answers of the hot lane in this turn of the event loop, sent together at its end.

What every answer needs - that its grant holds before it is sent, and that its file is unchanged after - costs system calls that
all answers of a turn share. One that was sent from a file that has changed since ends in a cut connection.
"""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING, Final

from aiohttp.helpers import rfc822_formatted_time

from farcore.errors import FarcoreError
from farcore_server.access import Access
from farcore_server.grant import Asked, Grant
from farcore_server.metrics import Metrics
from farcore_server.opened import Opened
from farcore_server.outlet import TURN, Sharing
from farcore_server.residency import WIDE

if TYPE_CHECKING:
    from farcore_server.lane import Lane

LOG: Final = logging.getLogger(__name__)


class Turn:
    """The answers under way. One for all connections of a process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, metrics: Metrics) -> None:
        self.loop, self.metrics = loop, metrics
        self._granted: list[Grant] = []
        self.sharing = Sharing()

    def add(self, grant: Grant) -> None:
        """Answer at the end of the turn what is asked by it until then."""
        if not self._granted:
            self.loop.call_soon(self.flush)
        self._granted.append(grant)

    def flush(self) -> None:
        """Send what is granted still, TURN bytes of it at most; pass on what is not."""
        granted, self._granted = self._granted, []
        now = self.loop.time()
        self.sharing.heard(now, None)
        date = _date(rfc822_formatted_time())
        looks: dict[tuple[Opened, Access, int, str], _Look] = {}
        left = TURN
        for grant in granted:
            if left <= 0:
                self.add(grant)
                continue
            asked, grant.asked = grant.asked, []
            about = grant.opened, grant.access, grant.version, grant.route
            try:
                look = looks.get(about) or looks.setdefault(about, _Look(*about, now))
                left = self._answer(grant, asked, look, left, date)
            except Exception as error:
                for lane, _ in asked:
                    self._fails(error, lane, grant, 0)
        for look in looks.values():
            self.metrics.count(look.route, 206, look.sent, len(look.given))
            look.again()

    def _answer(self, grant: Grant, asked: list[Asked], look: _Look, most: int, date: bytes) -> int:
        """Answer what was asked by ``grant`` until ``most`` bytes are sent, and return how many of those are left then."""
        before, source, regions, said, end, left = grant.before, look.source, look.regions, 0, b"", most
        wants = grant.wanted([chunk for _, chunk in asked]) if look.holds else repeat(None)
        rest = iter(asked)
        for (lane, chunk), wanted in zip(rest, wants, strict=False):
            if left <= 0:
                self._put_off(grant, [(lane, chunk), *rest])
                break
            outlet = lane.outlet
            if outlet is None:
                continue  # its connection has been lost
            offset = 0
            try:
                if wanted is None:
                    lane.decline(chunk, ended=not look.holds)
                    continue
                offset, length, digits = wanted
                # The common case of resident().
                remembered = offset >> WIDE in regions and (offset + length - 1) >> WIDE in regions
                if not remembered and not look.residency.resident(offset, length):
                    lane.decline(chunk, ended=False)
                    continue
                if length != said:
                    said, end = length, grant.end(length, date)
                head = before + digits + end
                sent = outlet.give(head, source, offset, length)
                look.given.append(lane)
                left -= length
                lane.answered = look.now
                if sent == len(head) + length:
                    lane.held = False
                    if lane.late:
                        lane.go_on()
                else:
                    body = max(0, sent - len(head))
                    lane.finish(grant, head[sent:], offset + body, length - body)
            except Exception as error:
                self._fails(error, lane, grant, offset)
        look.sent += most - left
        return left

    def _put_off(self, grant: Grant, rest: list[Asked]) -> None:
        if not grant.asked:
            self.add(grant)
        grant.asked[:0] = rest

    def _fails(self, error: Exception, lane: Lane, grant: Grant, offset: int) -> None:
        """End this connection; the others of the turn have their answers whatever is wrong with this one."""
        if isinstance(error, FarcoreError | OSError) and not isinstance(error, ConnectionError):
            if grant.opened.unchanged():
                grant.opened.source.fails(offset)
            lane.cut()
            return
        if not isinstance(error, ConnectionError):
            LOG.error("an answer of the route %s ended in an error that nobody had thought of", grant.route, exc_info=error)
        lane.drop()


class _Look:
    """What is asked of a dump's file once for all its answers in a turn, before they leave and after."""

    __slots__ = ("given", "holds", "now", "opened", "regions", "residency", "route", "sent", "source")

    def __init__(self, opened: Opened, access: Access, version: int, route: str, now: float) -> None:
        self.opened, self.residency, self.source, self.route, self.now = opened, opened.residency, opened.source, route, now
        self.holds = access.holds(version) and opened.current()
        self.regions = opened.residency.regions()
        # Who was sent something, and how much they were all in all.
        self.given: list[Lane] = []
        self.sent = 0

    def again(self) -> None:
        """Cut those whose file has changed since."""
        if self.given and not self.opened.unchanged():
            for lane in self.given:
                lane.cut()


@lru_cache(1)
def _date(now: str) -> bytes:
    """The same object all through a second."""
    return now.encode()
