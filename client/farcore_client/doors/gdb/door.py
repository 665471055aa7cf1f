"""The shell of the door: a port on which gdbs are answered, each by a session of its own, over one target."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from farcore.errors import FarcoreError
from farcore_client.doors import memory
from farcore_client.doors.gdb import panicked
from farcore_client.doors.gdb.connection import Connection
from farcore_client.doors.gdb.session import Session
from farcore_client.target import Target

_PIECE: Final = 1 << 16


class GdbDoor:
    """Answers gdbs; ``complain`` gets what they have no words for. With a ``vmlinux`` they see the panicked CPU first."""

    def __init__(self, target: Target, complain: Callable[[str], object], vmlinux: Path | None = None) -> None:
        self.target, self.complain = target, complain
        self.memory = memory.of(target)
        self.panicked = panicked.cpu(vmlinux, target, self.memory) if vmlinux else None
        # Fails now and not at the first gdb where there is no description of the machine.
        self._session()

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """Listens for the time of the body, which gets the port; 0 takes a free one."""
        server = await asyncio.start_server(self._serve, host, port)
        async with server:
            yield server.sockets[0].getsockname()[1]

    def _session(self) -> Session:
        session = Session(self.target, self.memory, self.panicked)
        session.complain = self.complain
        return session

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self._session())
        try:
            while not connection.session.over and (received := await reader.read(_PIECE)):
                # Whatever has to be fetched is fetched in a thread: others are answered meanwhile.
                writer.write(await asyncio.to_thread(connection.receive, received))
                await writer.drain()
        except FarcoreError as error:
            # The dump is another by now, or the server says no: no answer would be right from here on.
            self.complain(str(error))
        except ConnectionError:
            pass
        finally:
            writer.close()
