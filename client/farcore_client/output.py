"""Output: where what a command says goes: stdout, or a file that was not there before."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from farcore.errors import FarcoreError, SettingsError

Write = Callable[[bytes], None]


class OutputError(FarcoreError, OSError):
    """A file that cannot be made or written."""


def say(text: str) -> None:
    """``text`` and a line end on stdout, all of it or OSError; what its encoding lacks is escaped.

    Not through sys.stdout, which under PYTHONUNBUFFERED drops what a write(2) leaves over: a full disk would be status 0.
    """
    write_text(text + "\n")


def write_text(text: str) -> None:
    """``text`` as it is on stdout, all of it or OSError; what its encoding lacks is escaped."""
    _writer(sys.stdout.fileno())(text.encode(sys.stdout.encoding, "backslashreplace"))


@contextmanager
def output(path: str | None) -> Iterator[Write]:
    """A function that writes bytes to ``path``, or to stdout for None and "-"; a blocking one.

    A file is made with mode 0600 (a dump is a machine's memory), never replaced, and removed when the body ends with an
    error. SettingsError for a terminal that was not asked for, OutputError for a file; OSError is stdout's own.
    """
    if path is None or path == "-":
        yield _writer(_stdout(asked=path is not None))
        return
    fd, new = _open(path)
    try:
        try:
            yield _writer(fd, path)
        finally:
            with _sentence(path):
                os.close(fd)  # where NFS says that the disk is full
    except BaseException:
        if new:
            with suppress(FileNotFoundError):
                os.unlink(path)
        raise


def _stdout(*, asked: bool) -> int:
    fd = sys.stdout.fileno()
    if not asked and os.isatty(fd):
        raise SettingsError(
            "these bytes would garble the terminal: redirect them, or give -o FILE (-o - for the terminal after all)"
        )
    return fd


def _open(path: str) -> tuple[int, bool]:
    # A device or a FIFO that is there is written to: nothing is replaced there.
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), True
    except FileExistsError:
        mode = _mode(path)
        if not (stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)):
            raise OutputError(f"{path} is there already and is never replaced: remove it, or give another name") from None
    except OSError as error:
        raise OutputError(f"{path} cannot be made: {error.strerror}") from error
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC), False
    except OSError as error:
        raise OutputError(f"{path} cannot be written to: {error.strerror}") from error


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError:  # a link that leads nowhere
        return 0


def _writer(fd: int, path: str | None = None) -> Write:
    def write(content: bytes) -> None:
        rest = memoryview(content)
        with _sentence(path):
            while rest:
                rest = rest[os.write(fd, rest) :]

    return write


@contextmanager
def _sentence(path: str | None) -> Iterator[None]:
    # Stdout has no path, and its errors a place of their own: main.Commands.invoke.
    try:
        yield
    except OSError as error:
        if path is None:
            raise
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
