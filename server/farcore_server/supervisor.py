"""Supervisor: starts the workers, replaces those that die, and passes on what the signals ask for.

It does nothing else, so that nothing else can end it: no event loop, no thread, no request. Signals are blocked and waited
for, so none comes at a bad moment; workers are forked, so they share what was imported before. What a worker has to say is
in its row of the metrics. A pipe that the supervisor alone can write to, and never does, tells the workers of its end.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from farcore.errors import FarcoreError
from farcore_server.metrics import READY, Rows

LOG: Final = logging.getLogger(__name__)

SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})
_STOPS: Final = (signal.SIGTERM, signal.SIGINT)
# A worker that lived for less, in seconds, is started again after a pause, from the first to the last of these and
# twice as long each time: what killed it (memory, a bad disk) will often do so again.
LIVED: Final = 10.0
FIRST_PAUSE: Final = 0.1
LAST_PAUSE: Final = 30.0
# How often a worker's row is looked at until the first one is ready.
GLANCE: Final = 0.02
# A worker ends by itself when its streams' time is over; one that has not by then, in seconds, hangs.
GRACE: Final = 5.0


class Work(Protocol):
    """What a worker does, in a process of its own: SIGNALS are blocked until it has handlers; it ends with ``life``.

    ``life`` is the end of a pipe that becomes readable when the supervisor is gone.
    """

    def __call__(self, number: int, life: int) -> None: ...


class Server(Protocol):
    """Whose workers they are; called by the supervisor in its own process."""

    def ready(self, worker: int) -> None:
        """The first worker answers."""

    def reload(self) -> bool:
        """Read the settings again; False: they stay as they were, and the workers need not know."""

    def stop(self) -> float:
        """Take no more connections; the seconds that the workers have to end."""


@dataclass(slots=True, eq=False)
class _Worker:
    number: int
    pid: int = 0  # 0: none is running
    started: float = 0.0
    due: float = 0.0  # when to start it, if none is running
    pause: float = 0.0


class Supervisor:
    """Keeps ``rows.workers`` processes running that do ``work``."""

    def __init__(self, rows: Rows, work: Work, server: Server) -> None:
        self.rows, self.work, self.server = rows, work, server
        self._workers = [_Worker(number) for number in range(rows.workers)]
        self._ready = False
        self._life, self._own_life = os.pipe()

    def run(self) -> int:
        """Until SIGTERM or SIGINT: the exit status, 0 unless a worker had to be killed, or the first ones could not start.

        A second such signal ends all workers at once, and this process as that signal does.
        """
        # Whoever started us may have ignored it: then the system itself would bury our children.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        while True:
            for worker in self._workers:
                if not worker.pid and worker.due <= time.monotonic():
                    self._start(worker)
            caught = signal.sigtimedwait(SIGNALS, self._patience())
            if caught is not None and caught.si_signo in _STOPS:
                return self._stop()
            if caught is not None and caught.si_signo == signal.SIGHUP and self.server.reload():
                self._tell(signal.SIGHUP)
            self._glance()
            ended = self._bury()
            if ended and not self._ready:
                LOG.error("%s before any worker answered; the lines above say why", ended[0][1])
                self._stop()
                return 1
            for worker, end in ended:
                self._postpone(worker, end)

    def _patience(self) -> float:
        """How long to wait for a signal: until a worker is due, or may have become ready."""
        now = time.monotonic()
        due = min((worker.due - now for worker in self._workers if not worker.pid), default=LAST_PAUSE)
        return max(0.0, min(due, LAST_PAUSE if self._ready else GLANCE))

    def _glance(self) -> None:
        if not self._ready and any(column := self.rows.column(READY)):
            self._ready = True
            self.server.ready(column.index(1))

    def _start(self, worker: _Worker) -> None:
        worker.started = time.monotonic()
        try:
            worker.pid = os.fork()
        except OSError as error:
            self._postpone(worker, f"worker {worker.number} could not be started ({error.strerror})")
            return
        if worker.pid == 0:
            self._become(worker.number)

    def _become(self, number: int) -> NoReturn:
        """In the new process. It ends here: what the supervisor still wants to do is none of a worker's business."""
        status = 1
        try:
            os.close(self._own_life)
            self.work(number, self._life)
            status = 0
        except FarcoreError as error:
            LOG.error("worker %d: %s", number, error)
        except BaseException:
            LOG.exception("worker %d failed", number)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Not sys.exit(): that would wait for threads, and so for ever for a disk that hangs.
            os._exit(status)

    def _bury(self) -> list[tuple[_Worker, str]]:
        """The workers that have ended since, and how."""
        ended = []
        for worker in self._workers:
            pid, status = os.waitpid(worker.pid, os.WNOHANG) if worker.pid else (0, 0)
            if pid:
                worker.pid = 0
                self.rows.bury(worker.number)
                ended.append((worker, f"worker {worker.number} (pid {pid}) {_end(status)}"))
        return ended

    def _postpone(self, worker: _Worker, end: str) -> None:
        now = time.monotonic()
        lived = now - worker.started >= LIVED
        worker.pause = 0.0 if lived else min(max(FIRST_PAUSE, 2 * worker.pause), LAST_PAUSE)
        worker.due = now + worker.pause
        LOG.error("%s; another takes its place%s", end, f" in {worker.pause:g} s" if worker.pause else "")

    def _tell(self, number: int) -> None:
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, number)

    def _stop(self) -> int:
        give_up = time.monotonic() + self.server.stop() + GRACE
        self._tell(signal.SIGTERM)
        while self._running():
            caught = signal.sigtimedwait(SIGNALS, max(0.0, give_up - time.monotonic()))
            if caught is not None and caught.si_signo in _STOPS:
                self._kill()
                _die(caught.si_signo)
            if caught is None and self._running():
                LOG.error("workers that had not ended in time were killed")
                self._kill()
                return 1
        return 0

    def _running(self) -> bool:
        for worker in self._workers:
            if worker.pid and os.waitpid(worker.pid, os.WNOHANG)[0]:
                worker.pid = 0
        return any(worker.pid for worker in self._workers)

    def _kill(self) -> None:
        self._tell(signal.SIGKILL)
        for worker in self._workers:
            if worker.pid:
                os.waitpid(worker.pid, 0)
                worker.pid = 0


def _end(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"ended with status {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"


def _die(number: int) -> NoReturn:
    """As whoever sent the signal expects: by it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    raise AssertionError("unreachable")
