"""Turn: the answers of the hot lane in this turn of the event loop, sent together at its end.

What every answer needs - that its grant holds before it is sent, and that its file is unchanged after - costs system calls that
all answers of a turn share. One that was sent from a file that has changed since ends in a cut connection.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from farcore.errors import FarcoreError
from farcore_server.access import Access
from farcore_server.grant import Grant
from farcore_server.metrics import Metrics
from farcore_server.opened import Opened
from farcore_server.outlet import Outlet, Sharing

if TYPE_CHECKING:
    from farcore_server.lane import Lane

# Up to here an answer is one system call, from the map; above, sendfile costs a second one and copies nothing.
MAPPED: Final = 32 << 10
# No more than this is sent in a turn of the loop: others wait for 1 ms at most.
TURN: Final = 4 << 20

# Who asked, by which grant, the request itself, the answer's head, and where its bytes lie in the file.
Answer = tuple["Lane", Grant, bytes, bytes, int, int]


class Turn:
    """The answers under way. One for all connections of a process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, metrics: Metrics) -> None:
        self.loop, self.metrics = loop, metrics
        self._answers: list[Answer] = []
        self.sharing = Sharing()

    def add(self, answer: Answer) -> None:
        """Send it at the end of the turn."""
        if not self._answers:
            self.loop.call_soon(self.flush)
        self._answers.append(answer)

    def flush(self) -> None:
        """Send what is granted still, TURN bytes of it at most; pass on what is not."""
        answers, self._answers = self._answers, []
        given: list[tuple[Lane, Opened]] = []
        asked: tuple[Opened, Access, int] | None = None
        holds = False
        sent = 0
        for i, (lane, grant, chunk, head, offset, length) in enumerate(answers):
            if sent >= TURN:
                self._answers = answers[i:] + self._answers
                self.loop.call_soon(self.flush)
                break
            if asked != (question := (grant.opened, grant.access, grant.version)):
                asked = question
                holds = grant.access.holds(grant.version) and grant.opened.current()
            if not holds:
                lane.decline(chunk)
            elif lane.outlet is not None:  # else its connection has been lost
                self._send(lane, lane.outlet, grant, head, offset, length)
                given.append((lane, grant.opened))
                sent += length
        self._look_again(given)

    def _send(self, lane: Lane, outlet: Outlet, grant: Grant, head: bytes, offset: int, length: int) -> None:
        """Give the kernel all it takes; the lane finishes the rest."""
        source = grant.opened.source
        try:
            if length <= MAPPED and source.whole is not None:
                sent = outlet.write(head, source.whole[offset : offset + length])
            else:
                sent = outlet.send(head, socket.MSG_MORE)
                if sent == len(head):
                    sent += outlet.sendfile(source.fd, offset, length)
        except ConnectionError:
            lane.drop()
            return
        except (FarcoreError, OSError):
            if grant.opened.unchanged():
                source.fails(offset)
            lane.cut()
            return
        self.metrics.count(grant.route, 206, length)
        if sent == len(head) + length:
            lane.held = False
            if lane.late:
                lane.go_on()
        else:
            body = max(0, sent - len(head))
            lane.finish(grant, head[sent:], offset + body, length - body)

    def _look_again(self, given: list[tuple[Lane, Opened]]) -> None:
        opened: Opened | None = None
        unchanged = True
        for lane, source in given:
            if source is not opened:
                opened = source
                unchanged = opened.unchanged()
            if not unchanged:
                lane.cut()
