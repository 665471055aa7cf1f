"""Pipe: pages of a file handed to a socket through a pipe of our own, as large as a process without privileges may have.

sendfile(2) has one of 16 pages inside, and so for every 64 KiB locks the socket, sends what is there and looks at the ACKs that
have come meanwhile. Nothing is copied either way.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import Final

# /proc/sys/fs/pipe-max-size as it comes; a page each in 256 buffers.
SIZE: Final = 1 << 20


class Pipe:
    """Empty between two calls. One for all connections of a loop."""

    def __init__(self) -> None:
        self._out = self._in = self._nowhere = -1
        self._nowhere = os.open(os.devnull, os.O_WRONLY)
        self._open()

    def _open(self) -> None:
        self._out, self._in = os.pipe()
        # A user who has many pipes gets no larger ones.
        with suppress(OSError):
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, SIZE)
        self.size = fcntl.fcntl(self._in, fcntl.F_GETPIPE_SZ)

    def _close(self) -> None:
        for descriptor in (self._out, self._in):
            if descriptor >= 0:
                os.close(descriptor)
        self._out = self._in = -1

    def __del__(self) -> None:
        self._close()
        if self._nowhere >= 0:
            os.close(self._nowhere)

    def move(self, fd: int, offset: int, length: int, sock: int) -> int:
        """How many bytes of the file ``fd`` the socket took at once; 0 where the file has none there.

        OSError as of sendfile(2), BlockingIOError included, but only before the first byte.
        """
        moved = 0
        try:
            while moved < length:
                here = os.splice(fd, self._in, min(length - moved, self.size), offset_src=offset + moved)
                taken = self._hand_over(here, sock) if here else 0
                moved += taken
                if not here or taken < here:
                    break
        except OSError:
            if not moved:
                raise
        return moved

    def _hand_over(self, here: int, sock: int) -> int:
        """How much of what is in the pipe the socket took; the rest is let go of."""
        taken = 0
        try:
            taken = os.splice(self._out, sock, here, flags=os.SPLICE_F_NONBLOCK)
        finally:
            if taken < here:
                self._empty(here - taken)
        return taken

    def _empty(self, left: int) -> None:
        """Nothing of it may stay: whoever is next would be sent it."""
        with suppress(OSError):
            while left and (gone := os.splice(self._out, self._nowhere, left)):
                left -= gone
        if left:  # as pages are that the file has lost before they were whole
            self._close()
            self._open()
