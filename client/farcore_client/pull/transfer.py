"""Transfer: several connections that fetch works until none is missing; errors that can pass are waited out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Final, Protocol

from farcore.errors import FarcoreError, FaultError, FrameError, Space
from farcore_client.errors import BusyError, CutError, UnreachableError
from farcore_client.pull.chunks import Chunks, Step, Work
from farcore_client.pull.landing import Landing, Tally
from farcore_client.pull.partfile import PartFile

# Seconds without a new chunk after which a pull is given up: a server, or a link, is restarted in less.
PATIENCE: Final = 120.0
FIRST_PAUSE: Final = 0.25
LAST_PAUSE: Final = 15.0
# Seconds between two entries of the journal: what a kill costs; more where the disk needs longer, SPARED times as long as it.
ENTER: Final = 0.5
SPARED: Final = 4.0
# The longest pause, in seconds, that a server is obeyed in (Retry-After).
OBEYED: Final = 600.0
# Seconds between two looks at how far it has come.
GLANCE: Final = 0.1
_PASSING: Final = (BusyError, CutError, UnreachableError, FrameError, FaultError)


class Way(Protocol):
    """How a work is fetched."""

    def most(self, missing: int, jobs: int) -> int:
        """Bytes of the next work, ``missing`` being all that is left and ``jobs`` the connections."""

    async def fetch(self, landing: Landing, threads: Executor) -> None:
        """All that is left of its work, or an error; what has landed by then is checked."""


class Watcher(Protocol):
    """Is told how it goes."""

    def progress(self, tally: Tally) -> None:
        """So much has come."""

    def retry(self, error: FarcoreError, pause: float) -> None:
        """An error that may pass; the next try is in ``pause`` seconds."""


class Transfer:
    """Fetches what is missing of ``part`` by ``way``; ``shift`` as for Work."""

    def __init__(
        self,
        part: PartFile,
        way: Way,
        watcher: Watcher,
        *,
        space: Space,
        shift: int = 0,
        jobs: int = 4,
        patience: float = PATIENCE,
    ) -> None:
        self.chunks = Chunks(part.subject.size, part.proved)
        self.tally = Tally()
        self._part, self._way, self._watcher, self._space = part, way, watcher, space
        self._shift, self._jobs, self._patience = shift, jobs, patience
        self._moved = time.monotonic()
        self._freed = asyncio.Event()
        self._landings: list[Landing] = []
        self._landed = Tally()

    async def run(self) -> None:
        """Until every chunk is proved; the first error that does not pass ends it, and what is whole by then is proved too."""
        try:
            with ThreadPoolExecutor(self._jobs, thread_name_prefix="pull") as threads:
                await self._all(threads)
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            self._enter()

    async def _all(self, threads: Executor) -> None:
        async with asyncio.TaskGroup() as group:
            entering = group.create_task(self._enter_often())
            async with asyncio.TaskGroup() as jobs:
                for _ in range(self._jobs):
                    jobs.create_task(self._job(threads))
            entering.cancel()

    async def _job(self, threads: Executor) -> None:
        while (work := await self._next()) is not None:
            landing = Landing(self._part, work, self._space)
            self._landings.append(landing)
            try:
                await self._land(landing, threads)
            finally:
                self._landings.remove(landing)
                self._landed += landing.tally
                self.chunks.arrived(work, landing.at)
                self.chunks.give_back(work)
                self._freed.set()

    async def _next(self) -> Work | None:
        while True:
            work = self.chunks.next(self._way.most(self.chunks.missing, self._jobs), self._shift)
            if work is not None or not self.chunks.busy:
                return work
            # What others have under way may come back.
            self._freed.clear()
            await self._freed.wait()

    async def _land(self, landing: Landing, threads: Executor) -> None:
        pause = FIRST_PAUSE
        while not landing.complete:
            before = landing.at
            try:
                await self._watched(self._way.fetch(landing, threads), landing)
            except _PASSING as error:
                if landing.at > before:
                    pause = FIRST_PAUSE
                await self._wait(error, pause)
                pause = min(2 * pause, LAST_PAUSE)

    async def _watched(self, fetch: Coroutine[Any, Any, None], landing: Landing) -> None:
        fetching = asyncio.ensure_future(fetch)
        try:
            while not fetching.done():
                await asyncio.wait({fetching}, timeout=GLANCE)
                self._count(landing)
            await fetching
        finally:
            fetching.cancel()
            self._count(landing)

    def _count(self, landing: Landing) -> None:
        self.chunks.arrived(landing.work, landing.at)
        tally = sum((each.tally for each in self._landings), self._landed)
        if tally.total > self.tally.total:
            self._moved = time.monotonic()
        self.tally = tally
        self._watcher.progress(tally)

    async def _wait(self, error: FarcoreError, pause: float) -> None:
        if isinstance(error, BusyError) and error.after:
            pause = min(error.after, OBEYED)
            self._moved = max(self._moved, time.monotonic() - self._patience + pause + 1)
        tried = time.monotonic() - self._moved
        if tried > self._patience:
            raise GivenUpError(
                f"given up after {tried:.0f} s without a byte: {error}; what came is kept, the same command goes on from it"
            ) from error
        self._watcher.retry(error, pause)
        await asyncio.sleep(pause)

    async def _enter_often(self) -> None:
        pause = ENTER
        while True:
            await asyncio.sleep(pause)
            if runs := self.chunks.runs(Step.WHOLE):
                began = time.monotonic()
                await asyncio.to_thread(self._part.prove, runs)
                self.chunks.prove(runs)
                pause = max(ENTER, SPARED * (time.monotonic() - began))

    def _enter(self) -> None:
        if runs := self.chunks.runs(Step.WHOLE):
            self._part.prove(runs)
            self.chunks.prove(runs)


class GivenUpError(FarcoreError, ConnectionError):
    """A server that could not be reached, or did not answer rightly, for too long."""


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
