"""The shell of the door: crashes that come are answered over one target.

Each in a thread (of Listener), because a crash waits for each of its 100,000 small answers: nearly all are found in the page
cache at once, and a hand-over between an event loop and a thread costs more than such an answer does.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final

from farcore.errors import FarcoreError, FaultError, SourceChangedError
from farcore.source import Source
from farcore_client.doors import memory
from farcore_client.doors.crash.machine import Machine
from farcore_client.doors.crash.quick import Quick
from farcore_client.doors.crash.requests import Requests
from farcore_client.doors.crash.session import Session, Stop, Wanted
from farcore_client.doors.listener import Listener
from farcore_client.errors import ProtocolError
from farcore_client.target import Target

# crash for ARM64 stops on its own check of kimage_voffset; nobody has seen the others begin.
PROVED: Final = "X86_64"
_PIECE: Final = 1 << 12
# Seconds: what takes longer came from the server.
_AT_HAND: Final = 0.005


class CrashDoor:
    """Answers crashes; ``stop`` says where a CPU stopped, ``complain`` gets what crash has no words for.

    ProtocolError for a dump that no crash reads.
    """

    def __init__(self, target: Target, stop: Callable[[int], Stop | None], complain: Callable[[str], object]) -> None:
        machine = Machine.of(target)
        if machine is None:
            raise ProtocolError("no crash is built for the machine that this dump is of; `farcore mount` shows it as a file")
        if why := refusal(target, machine):
            raise ProtocolError(f"{why}: `farcore crash --door fuse` or `farcore mount` shows it as a file")
        self.machine, self.target, self.stop, self.complain = machine, target, stop, complain
        self.virtual, self.quick = memory.of(target), Quick(target.physical)
        self.listener = Listener(self._serve, complain)
        self._said = ""

    def _serve(self, client: socket.socket) -> None:
        session, requests = Session(self.machine, self.target.physical.size, self._stop), Requests()
        while not session.over and (received := client.recv(_PIECE)):
            if (known := self.quick.answer(received)) is not None and requests.idle:
                client.sendall(known)
                continue
            for request in requests.feed(received):
                answer = session.answer(request)
                if isinstance(answer, Wanted):
                    self._supply(client, session, answer)
                else:
                    client.sendall(answer)

    def _supply(self, client: socket.socket, session: Session, wanted: Wanted) -> None:
        began = time.monotonic()
        found = self._memory(wanted)
        at_hand = time.monotonic() < began + _AT_HAND
        client.sendall(session.supply(found))
        # While crash looks at what it got; of a page that had to be fetched the rest may not have come.
        if found is not None and at_hand and wanted.space == "physical":
            self.quick.learn(wanted.address, wanted.length)

    def _memory(self, wanted: Wanted) -> memoryview | None:
        """The bytes, None where they cannot be had; SourceChangedError where they are another dump's."""
        try:
            if wanted.space == "physical":
                return _pread(self.target.physical, wanted)
            found = self.virtual.read(wanted.address, wanted.length)
            return memoryview(found) if len(found) == wanted.length else None
        except SourceChangedError:
            raise
        except FaultError:
            return None
        except FarcoreError as error:
            self._complain_once(str(error))
            return None

    def _stop(self, cpu: int) -> Stop | None:
        try:
            return self.stop(cpu)
        except SourceChangedError:
            raise
        except FarcoreError as error:
            self._complain_once(str(error))
            return None

    def _complain_once(self, sentence: str) -> None:
        # A server that is away fails every read that crash goes on to make.
        if sentence != self._said:
            self._said = sentence
            self.complain(sentence)


def refusal(target: Target, machine: Machine) -> str | None:
    """Why this dump cannot be had through the protocol, where it cannot."""
    if target.is_xen:
        return "a Xen dump is machine memory, for which crash's remote protocol has no words"
    if machine.name != PROVED:
        return f"crash's remote protocol gives sessions for {PROVED} alone, and this dump is of {machine.name}"
    return None


def _pread(source: Source, wanted: Wanted) -> memoryview:
    if wanted.address + wanted.length > source.size:
        raise FaultError(address=wanted.address, length=wanted.length, space="physical", kind="absent")
    return source.pread(wanted.address, wanted.length)
