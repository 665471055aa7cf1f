"""Aside: a job in a thread of its own, which keeps no process alive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def aside(job: Callable[[], T]) -> Future[T]:
    """The job's result."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = job()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="farcore aside", daemon=True).start()
    return future
