"""Child: the program that a command runs on its terminal, and what signals do meanwhile.

Ctrl-C is the program's own affair. Who ends the command ends the program, and then the command clears up what it made.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final

from farcore_client import environment

# Seconds after which a signal that another thread was given is passed on at the latest.
NOTICED: Final = 0.5
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def tidily() -> Iterator[None]:
    """For the time of the body SIGTERM and SIGHUP unwind this process, so that no mount and no file stays behind."""

    def leave(number: int, frame: FrameType | None) -> None:
        for each in _ENDING:  # what is being cleared up is not to be interrupted
            signal.signal(each, lambda *_: None)
        raise SystemExit(128 + number)

    with handled(dict.fromkeys(_ENDING, leave)):
        yield


@contextmanager
def child(argv: Sequence[str], *, fds: Sequence[int] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """The program, running, with the descriptors ``fds`` as well; it has ended after the body."""
    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if not started:
            early.append(number)
        for each in started:
            each.send_signal(number)

    # A handler, which exec resets, and not SIG_IGN, which a later program would inherit. From before the program is there: who
    # ends us while it is being started would leave it behind.
    with (
        handled({**dict.fromkeys(_ENDING, pass_on), signal.SIGINT: lambda *_: None}),
        subprocess.Popen(argv, pass_fds=fds, env=environment.passed_on()) as program,
    ):
        try:
            started.append(program)
            for number in early:
                program.send_signal(number)
            yield program
            _await(program)
        except BaseException:
            program.terminate()
            raise


def _await(program: subprocess.Popen[bytes]) -> None:
    """Return when it has ended.

    A signal that came while we had them blocked, as around a fork, is another thread's, and Python tells nobody who is blocked
    in a system call.
    """
    with suppress(OSError):  # before Linux 5.3
        descriptor = os.pidfd_open(program.pid)
        try:
            while not select.select([descriptor], [], [], NOTICED)[0]:
                pass
        finally:
            os.close(descriptor)
    program.wait()


def status(program: subprocess.Popen[bytes]) -> int:
    """The exit status of a program that has ended, as a shell has it."""
    return program.returncode if program.returncode >= 0 else 128 - program.returncode


@contextmanager
def handled(handlers: dict[signal.Signals, Handler]) -> Iterator[None]:
    """These signals are handled so for the time of the body; for the main thread."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
