"""FileSource: a file read with pread(2). A page that is gone, or a disk that fails, is an error here and never a signal."""

from __future__ import annotations

import os
import weakref

from farcore.errors import FaultError, SourceChangedError
from farcore.source import Source, demand


class FileSource(Source):
    """Owns ``fd``; ``size`` is what the file had when it was opened, so a file that grows is not read past it."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd, self.size = fd, size
        self._close = weakref.finalize(self, os.close, fd)

    def pread(self, offset: int, length: int) -> memoryview:
        """Exactly ``length`` bytes; SourceChangedError where the file has become shorter, FaultError (unreadable) on EIO."""
        demand(self, offset, length)
        content = bytearray(length)
        rest = memoryview(content)
        while rest:
            position = offset + length - len(rest)
            try:
                got = os.preadv(self.fd, [rest], position)
            except OSError as error:
                raise FaultError(address=position, length=len(rest), space="stored", kind="unreadable") from error
            if got == 0:
                raise SourceChangedError(f"the file ends at byte {position:,}; it had {self.size:,} bytes when it was opened")
            rest = rest[got:]
        return memoryview(content).toreadonly()

    def close(self) -> None:
        """Close the descriptor now rather than with the last reference."""
        self._close()
        self.fd = -1  # the number may soon be another file's
