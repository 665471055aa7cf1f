"""RemoteFile: a dump on a server as Python's own kind of file, and its physical memory as arrays."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from farcore.arrays import Array
from farcore.source import Source
from farcore_client.cachedir import VARIABLE, CacheDir
from farcore_client.credentials import Credentials, token
from farcore_client.dumpurl import DumpUrl
from farcore_client.remote import RemoteDump, connect


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """A Source sliced by position: read-only uint8 arrays, which are copies. A hole raises FaultError."""

    source: Source

    def __len__(self) -> int:
        return self.source.size

    def __getitem__(self, wanted: slice) -> Array[np.uint8]:
        start, stop, step = wanted.indices(self.source.size)
        if step != 1:
            raise ValueError("memory is sliced byte by byte: leave out the step, and stride the array instead")
        return np.frombuffer(self.source.pread(start, max(0, stop - start)), np.uint8)


class RemoteFile(io.RawIOBase):
    """The dump as one ELF vmcore: read, seek, readinto, and by position: ``pread(offset, length)``.

    Unbuffered, because the pages are cached below; closing it closes ``remote`` as well if ``owned``.
    """

    def __init__(self, remote: RemoteDump, *, owned: bool = True) -> None:
        super().__init__()
        self.remote, self.size, self.name = remote, remote.vmcore.size, str(remote.url)
        self.mode = "rb"
        self._owned, self._at = owned, 0

    @property
    def physical(self) -> Memory:
        """Physical memory by address."""
        return Memory(self.remote.physical)

    def pread(self, offset: int, length: int) -> memoryview:
        """Exactly ``length`` bytes at ``offset``; FaultError past the end."""
        self._demand_open()
        return self.remote.vmcore.pread(offset, length)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new position, which may be past the end."""
        self._demand_open()
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}
        if whence not in bases:
            raise ValueError(f"whence is {whence}: it must be 0, 1 or 2")
        if bases[whence] + offset < 0:
            raise ValueError(f"{bases[whence] + offset} is in front of the file")
        self._at = bases[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As many bytes as there is room for, fewer only at the end."""
        self._demand_open()
        room = memoryview(buffer).cast("B")
        length = min(len(room), max(0, self.size - self._at))
        room[:length] = self.pread(self._at, length) if length else b""
        self._at += length
        return length

    def readall(self) -> bytes:
        """All from the position on."""
        self._demand_open()
        found = bytes(self.pread(self._at, self.size - self._at)) if self._at < self.size else b""
        self._at += len(found)
        return found

    def close(self) -> None:
        """End the connections."""
        if not self.closed and self._owned:
            self.remote.close()
        super().close()

    def _demand_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


def open_url(url: str, credentials: Credentials | None = None, cache: str | None = None) -> RemoteFile:
    """``farcore_client.open``."""
    shown = credentials or Credentials(token(None, os.environ))
    kept = CacheDir.parse(os.environ.get(VARIABLE, "") if cache is None else cache)
    return RemoteFile(connect(DumpUrl.parse(url), shown, cache=kept))
