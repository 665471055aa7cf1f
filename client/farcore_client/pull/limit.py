"""Limit: so many bytes a second at most, over all connections of a pull."""

from __future__ import annotations

import asyncio
import time


class Limit:
    """``rate`` in bytes a second, None for no limit."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._due = 0.0

    async def spend(self, size: int) -> None:
        """Return when ``size`` bytes that have come are paid for; the kernel slows the server down meanwhile."""
        if self._rate is None:
            return
        now = time.monotonic()
        self._due = max(self._due, now) + size / self._rate
        await asyncio.sleep(self._due - now)
