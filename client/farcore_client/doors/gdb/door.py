"""The shell of the door: gdbs that come are answered, each by a session of its own, over one target."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from farcore_client.doors import memory
from farcore_client.doors.gdb import panicked
from farcore_client.doors.gdb.connection import Connection
from farcore_client.doors.gdb.session import Session
from farcore_client.doors.listener import Listener
from farcore_client.target import Target

_PIECE: Final = 1 << 16


class GdbDoor:
    """Answers gdbs; ``complain`` gets what they have no words for. With a ``vmlinux`` they see the panicked CPU first."""

    def __init__(self, target: Target, complain: Callable[[str], object], vmlinux: Path | None = None) -> None:
        self.target, self.listener = target, Listener(self._serve, complain)
        self.memory = memory.of(target)
        self.panicked = panicked.cpu(vmlinux, target, self.memory) if vmlinux else None
        # Fails now and not at the first gdb where there is no description of the machine.
        self._session()

    def _session(self) -> Session:
        session = Session(self.target, self.memory, self.panicked)
        session.complain = self.listener.complain
        return session

    def _serve(self, client: socket.socket) -> None:
        connection = Connection(self._session())
        while not connection.session.over and (received := client.recv(_PIECE)):
            for answer in connection.receive(received):
                client.sendall(answer)
