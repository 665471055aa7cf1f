"""Connection: one gdb's bytes in, the bytes of the answers out, with the acknowledgements between."""

from __future__ import annotations

from collections.abc import Iterator

from farcore_client.doors.gdb.packets import Packets, packet
from farcore_client.doors.gdb.session import Session


class Connection:
    """Blocks as long as the dump's bytes take; ``session.over`` says that the connection is to be closed."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._packets = Packets()
        self._last = b""

    def receive(self, received: bytes) -> Iterator[bytes]:
        """What is to be sent for these bytes, an answer at a time; ProtocolError where no gdb would have sent them."""
        found = self._packets.feed(received)
        if self._packets.resend:
            yield self._last
        for content in found:
            acknowledged = self.session.acknowledges
            if content is None:
                if acknowledged:
                    yield b"-"
                continue
            answer = self.session.answer(content)
            self._last = b"" if answer is None else packet(answer)
            yield (b"+" if acknowledged else b"") + self._last
            if self.session.over:
                return
