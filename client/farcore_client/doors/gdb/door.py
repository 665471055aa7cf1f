"""The shell of the door: a port on which gdbs are answered, each by a session of its own, over one target."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from farcore.errors import FarcoreError
from farcore_client.doors.gdb import memory
from farcore_client.doors.gdb.connection import Connection
from farcore_client.doors.gdb.session import Session
from farcore_client.errors import ProtocolError
from farcore_client.target import Target

_PIECE: Final = 1 << 16


class GdbDoor:
    """Answers gdbs. A dump that cannot be read any more ends their sessions; ``broken`` is why."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.memory = memory.of(target)
        self.broken: FarcoreError | None = None
        # Fails now and not at the first gdb where there is no description of the machine.
        Session(target, self.memory)

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """Listens for the time of the body, which gets the port; 0 takes a free one."""
        server = await asyncio.start_server(self._serve, host, port)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(Session(self.target, self.memory))
        try:
            while not connection.session.over and (received := await reader.read(_PIECE)):
                # Whatever has to be fetched is fetched in a thread: others are answered meanwhile.
                writer.write(await asyncio.to_thread(connection.receive, received))
                await writer.drain()
        except (ConnectionError, ProtocolError):
            pass
        except FarcoreError as error:
            self.broken = error
        finally:
            writer.close()
