"""Handover: from the loop, which reads a socket, to a thread, which checks and writes what came; a step apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from types import TracebackType
from typing import Final, Self

# Bytes that a thread gets at a time: a narrow link brings a few kilobytes at once, and a change of threads costs 0.1 ms.
LOAD: Final = 256 << 10


class Handover:
    """Gives ``take`` what is given to it, in order and in larger pieces, in a thread of ``threads``; at most two loads wait."""

    def __init__(self, threads: Executor, take: Callable[[bytes], object]) -> None:
        self._threads, self._take = threads, take
        self._pieces: list[bytes] = []
        self._size = 0
        self._taking: asyncio.Future[object] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What came before an error is not lost."""
        await self._flush()
        await self._taken()

    async def give(self, piece: bytes) -> None:
        """One more; raises what ``take`` has raised."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= LOAD:
            await self._flush()

    async def _flush(self) -> None:
        await self._taken()
        if self._pieces:
            load = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces, self._size = [], 0
            self._taking = asyncio.get_running_loop().run_in_executor(self._threads, self._take, load)

    async def _taken(self) -> None:
        taking, self._taking = self._taking, None
        if taking is not None:
            await taking
