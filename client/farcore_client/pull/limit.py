"""Limit: so many bytes a second at most, over all connections of a pull."""

from __future__ import annotations

import asyncio
import time
from threading import Lock


class Limit:
    """``rate`` in bytes a second, None for no limit."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._due = 0.0
        self._lock = Lock()

    async def spend(self, size: int) -> None:
        """Return when ``size`` bytes that have come are paid for; the kernel slows the server down meanwhile."""
        if pause := self.owed(size):
            await asyncio.sleep(pause)

    def owed(self, size: int) -> float:
        """Seconds to wait for ``size`` bytes that have come; from any thread."""
        if self._rate is None:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._due = max(self._due, now) + size / self._rate
            return self._due - now
