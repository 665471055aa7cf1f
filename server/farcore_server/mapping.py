"""MappedSource: a dump file, and its bytes as memory without a copy.

pread(2) copies and cannot be killed by a truncated file; it is what everything that computes on a dump uses. The map is
reached through ``view`` (a numpy array for a Python caller who asked) and ``lend`` (what is handed to send(2)) alone:
touching a page that the file has lost is SIGBUS in user space, but only EFAULT inside a system call.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections import OrderedDict
from threading import Lock
from typing import Final

import numpy as np

from farcore.arrays import Array
from farcore.file import FileSource
from farcore.source import demand

Bytes = Array[np.uint8]

# A 32-bit process has about 2.5 GiB to map (facts: ENOMEM at 2,816 MiB); a tenth of it leaves room for many dumps.
SMALL_ADDRESS_SPACE: Final = 256 << 20
WINDOW: Final = 64 << 20
# /proc/vmcore builds page tables at once when mapped, 2 MiB and 0.1 s per GiB: a window of this size takes 0.4 ms.
STEADY_WINDOW: Final = 4 << 20
# From this length on /proc/vmcore is copied from its map: pread(2) maps and unmaps each page, at 6 times the cost.
STEADY_FROM: Final = 16 << 10

# Some filesystems refuse mmap (ENODEV), an address space may be full (ENOMEM), and Python refuses what a file has lost
# (ValueError). pread works in the first two cases, and says what happened in the third.
_UNMAPPED: Final = (OSError, ValueError)


class MappedSource(FileSource):
    """A file of ``size`` bytes mapped whole, or through windows when it exceeds ``limit`` bytes of address space.

    ``limit`` 0 means: whole on a 64-bit host, SMALL_ADDRESS_SPACE on a 32-bit one. Where the file cannot be mapped
    (``maps`` is False), reads fall back on pread. ``windowed`` is /proc/vmcore: through small windows on every host, and since
    nobody can truncate it, what is copied is copied from them.
    """

    def __init__(self, fd: int, size: int, *, limit: int = 0, windowed: bool = False) -> None:
        super().__init__(fd, size)
        self.steady = windowed
        limit = limit or (size if sys.maxsize > 1 << 32 and not windowed else SMALL_ADDRESS_SPACE)
        grain = mmap.ALLOCATIONGRANULARITY
        if size <= limit:
            self._window, self._keep = max(size, 1), 1
        else:
            self._window = max(grain, min(STEADY_WINDOW if windowed else WINDOW, limit // 4) // grain * grain)
            self._keep = max(1, limit // self._window)
        self._windows: OrderedDict[int, Bytes] = OrderedDict()
        self._lock = Lock()
        self.maps = size > 0 and self._probe()
        # All of it, where it is mapped in one piece: lent like ``lend`` does, for who cannot afford the call.
        self.whole: memoryview | None = self._open(0).data if self.maps and size <= self._window else None

    def pread(self, offset: int, length: int) -> memoryview:
        """FileSource's; of /proc/vmcore by way of the map."""
        if self.steady and length >= STEADY_FROM:
            return self.view(offset, length).copy().data.toreadonly()
        return super().pread(offset, length)

    def view(self, offset: int, length: int) -> Bytes:
        """Read-only uint8 (length,) that shares the file's own pages; a copy where the file cannot be mapped.

        The caller takes the risk that comes with a map: a file truncated meanwhile is SIGBUS.
        """
        demand(self, offset, length)
        if self.maps and length:
            index, start = divmod(offset, self._window)
            lead = offset % mmap.ALLOCATIONGRANULARITY
            try:
                if start + length <= self._window:
                    return self._open(index)[start : start + length]
                return self._map(offset - lead, lead + length)[lead:]
            except _UNMAPPED:
                pass
        return np.frombuffer(super().pread(offset, length), np.uint8)

    def lend(self, offset: int, length: int) -> memoryview:
        """At least 1 and at most ``length`` bytes from ``offset`` on, mapped if they can be: for send(2) and nothing else."""
        demand(self, offset, max(length, 1))
        index, start = divmod(offset, self._window)
        try:
            return self._open(index)[start : start + length].data
        except _UNMAPPED:
            return self.pread(offset, length)

    def _open(self, index: int) -> Bytes:
        """The window; the least recently used ones are let go, and unmapped when nobody holds a view of them."""
        with self._lock:
            window = self._windows.pop(index, None)
            if window is None:
                start = index * self._window
                window = self._map(start, min(self._window, self.size - start))
                while len(self._windows) >= self._keep:
                    self._windows.popitem(last=False)
            self._windows[index] = window
            return window

    def _map(self, offset: int, length: int) -> Bytes:
        if self.fd < 0:  # closed; and to mmap, -1 means memory without a file: zeros
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return np.frombuffer(mmap.mmap(self.fd, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset), np.uint8)

    def _probe(self) -> bool:
        try:
            self._open(0)
        except _UNMAPPED:
            return False
        return True
