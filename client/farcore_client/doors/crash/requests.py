"""What crash asks: NUL-terminated words, one request at a time (remote.c of crash 8.0: "READ_LIVE 5 1000 8").

A request is at most crash's BUFSIZE (1,500 bytes) long; whoever sends more is no crash. Numbers are bounded by their digits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from farcore_client.errors import ProtocolError

MAX_REQUEST: Final = 1500

_DECIMAL: Final = re.compile(r"[0-9]{1,10}")
_HEX: Final = re.compile(r"(?:0x)?[0-9a-fA-F]{1,16}")


@dataclass(frozen=True, slots=True)
class Read:
    """READ_LIVE: ``length`` bytes at ``address`` of the file ``descriptor``, which one OPEN gave."""

    descriptor: int
    address: int
    length: int


@dataclass(frozen=True, slots=True)
class Registers:
    """FETCH_LIVE_IP_SP_BP: where ``cpu`` stopped."""

    cpu: int


@dataclass(frozen=True, slots=True)
class Word:
    """Any other request: its first word and the rest, as they came."""

    name: str
    rest: str


Request = Read | Registers | Word


class Requests:
    """Cuts what comes from one crash into requests."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def idle(self) -> bool:
        """Whether nothing of a request has come that is not whole."""
        return not self._rest

    def feed(self, received: bytes) -> list[Request]:
        """The requests that are whole now; ProtocolError for one that never ends."""
        *whole, self._rest = (self._rest + received).split(b"\0")
        if len(self._rest) > MAX_REQUEST or any(len(one) > MAX_REQUEST for one in whole):
            raise ProtocolError(f"what came has more than {MAX_REQUEST:,} bytes without an end: that is no crash")
        return [parse(one) for one in whole]


def parse(raw: bytes) -> Request:
    """The request in ``raw``, which has no NUL; what makes no sense is a Word."""
    text = raw.decode("latin-1")
    name, _, rest = text.partition(" ")
    words = rest.split(" ")
    if name == "READ_LIVE" and len(words) in (3, 4) and _numbers(words):
        return Read(int(words[0]), int(words[1], 16), int(words[2]))
    if name == "FETCH_LIVE_IP_SP_BP" and _DECIMAL.fullmatch(rest):
        return Registers(int(rest))
    return Word(name, rest)


def _numbers(words: list[str]) -> bool:
    descriptor, address, *counts = words
    return all(_DECIMAL.fullmatch(one) for one in (descriptor, *counts)) and _HEX.fullmatch(address) is not None
