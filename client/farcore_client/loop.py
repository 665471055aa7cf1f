"""Runs a command's coroutine."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """The result of ``main``, on asyncio's own loop (the faster one for bulk); Ctrl-C ends it wherever it stands."""

    ordinary = signal.getsignal(signal.SIGINT) is signal.default_int_handler

    async def interruptible() -> T:
        # asyncio's own handler only cancels, and so does not get through to a write() that is blocked in `| less`.
        if ordinary:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return await main

    return asyncio.run(interruptible())
