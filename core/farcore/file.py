"""FileSource: a file read with pread(2). A page that is gone, or a disk that fails, is an error here and never a signal."""

from __future__ import annotations

import os
import weakref
from typing import Final

from farcore.errors import FaultError, SourceChangedError
from farcore.source import Source, demand

# Of a disk that fails everywhere no more places are remembered.
MAX_FAILED: Final = 16


class FileSource(Source):
    """Owns ``fd``; ``size`` is what the file had when it was opened, so a file that grows is not read past it.

    ``failed``: where its storage could not be read, until it could.
    """

    def __init__(self, fd: int, size: int) -> None:
        self.fd, self.size = fd, size
        self.failed: set[int] = set()
        self._close = weakref.finalize(self, os.close, fd)

    def pread(self, offset: int, length: int) -> memoryview:
        """Exactly ``length`` bytes; SourceChangedError where the file has become shorter, FaultError (unreadable) on EIO."""
        demand(self, offset, length)
        found = self._some(offset, length)
        if len(found) < length:  # a signal, or more than 2 GiB
            parts, at = [found], offset + len(found)
            while at < offset + length:
                parts.append(self._some(at, offset + length - at))
                at += len(parts[-1])
            found = b"".join(parts)
        return memoryview(found)

    def _some(self, offset: int, length: int) -> bytes:
        """At least one byte, if any are asked for."""
        try:
            found = os.pread(self.fd, length, offset)
        except OSError as error:
            self.fails(offset)
            raise FaultError(address=offset, length=length, space="stored", kind="unreadable") from error
        if length and not found:
            raise SourceChangedError(f"the file ends at byte {offset:,}; it had {self.size:,} bytes when it was opened")
        return found

    def fails(self, offset: int) -> None:
        """Remember that the storage could not be read there."""
        if len(self.failed) < MAX_FAILED:
            self.failed.add(offset)

    def try_again(self) -> None:
        """Forget the places that can be read by now; blocks as a read does, and tries no further than the first that cannot."""
        for offset in sorted(self.failed):
            try:
                os.pread(self.fd, 1, offset)
            except OSError:
                return
            self.failed.discard(offset)

    def close(self) -> None:
        """Close the descriptor now rather than with the last reference."""
        self._close()
        self.fd = -1  # the number may soon be another file's
