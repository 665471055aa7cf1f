"""Packets: `$data#sum`, each acknowledged by + until both sides do without. Bytes in, packets out (the manual's "Overview")."""

from __future__ import annotations

from typing import Final

from farcore_client.errors import ProtocolError

# What qSupported promises to take and send, and where a peer that is no gdb is given up: memory comes in pieces of half of it.
MAX_PACKET: Final = 0x20000
_ESCAPED: Final = b"}$#*"


class Packets:
    """Cuts what a gdb sends into the contents of its packets; a packet with a wrong sum is None, to be asked for again.

    A Ctrl-C (byte 3) asks a running target to stop, and this one never runs: it is passed over, as acknowledgements are.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self.resend = False

    def feed(self, received: bytes) -> list[bytes | None]:
        """The packets that are complete now; ``resend`` says whether the last answer was asked for again."""
        self._pending += received
        self.resend = False
        found: list[bytes | None] = []
        while self._pending:
            if self._pending[0] != ord("$"):
                self._pass_over()
                continue
            end = self._pending.find(b"#")
            if end < 0 or end + 3 > len(self._pending):
                break
            content, sent = bytes(self._pending[1:end]), bytes(self._pending[end + 1 : end + 3])
            del self._pending[: end + 3]
            found.append(content if sent.lower() == _sum(content) else None)
        if len(self._pending) > MAX_PACKET + 4:
            raise ProtocolError(f"a packet of more than {MAX_PACKET:,} bytes came: this is no gdb")
        return found

    def _pass_over(self) -> None:
        start = self._pending.find(b"$")
        self.resend |= b"-" in self._pending[: start if start >= 0 else None]
        del self._pending[: start if start >= 0 else None]


def packet(content: bytes) -> bytes:
    """The packet with this content, whose binary parts are ``escaped``."""
    return b"$%b#%b" % (content, _sum(content))


def escaped(binary: bytes | memoryview) -> bytes:
    """Bytes as a packet may hold them: } before those that mean something there, which then have bit 5 turned."""
    found = bytes(binary)
    # The escape itself first.
    for byte in _ESCAPED:
        found = found.replace(bytes([byte]), bytes([ord("}"), byte ^ 0x20]))
    return found


def _sum(content: bytes) -> bytes:
    return b"%02x" % (sum(content) & 0xFF)
