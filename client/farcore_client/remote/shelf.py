"""Shelf: what an earlier session, or another one, has read of this version of this dump; between the courier and a PageFile.

Written by a thread of its own: nobody waits for a disk that is written to.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Final

from farcore_client.dumpurl import DumpUrl
from farcore_client.remote.cache import PAGE, PageCache
from farcore_client.remote.pagefile import PageFile

# Pages that are taken from the memory, or put there, under the lock in one go.
_STEP: Final = 64
_log: Final = logging.getLogger("farcore_client")


class Shelf:
    """The pages in ``file`` that are ``who``'s; ``lock`` is the one of ``cache``."""

    def __init__(self, file: PageFile, who: bytes, cache: PageCache, lock: Lock) -> None:
        self._file, self._who, self._cache, self._lock = file, who, cache, lock
        self._writing = ThreadPoolExecutor(1, "farcore shelf")
        self._using = Lock()
        self._broken = self._closed = False

    def recall(self, keys: Sequence[int], filed: Callable[[int, int], object]) -> list[int]:
        """Put those that are here into the cache, and say which; ``filed`` hears of each, with the lock held."""
        recalled: list[int] = []
        for at in range(0, len(keys), _STEP):
            found = self._found(keys[at : at + _STEP])
            with self._lock:
                for key, page in found:
                    self._cache.put(key, memoryview(page))
                    filed(key, 1)
            recalled.extend(key for key, _ in found)
        return recalled

    def keep(self, runs: Sequence[tuple[int, int]]) -> None:
        """Take these (first, count), which are in the cache now, from there; returns at once."""
        if runs and not self._broken:
            with suppress(RuntimeError):  # closed since
                self._writing.submit(self._keep, runs)

    def close(self) -> None:
        """Returns when all that was to be kept is."""
        self._writing.shutdown()
        with self._using:
            if not self._closed:
                self._closed = True
                self._file.close()

    def _found(self, keys: Sequence[int]) -> list[tuple[int, bytes]]:
        with self._using, suppress(OSError):  # a disk that fails has nothing
            if not self._closed:
                return [(key, page) for key in keys if (page := self._file.find(self._who, key)) is not None]
        return []

    def _keep(self, runs: Sequence[tuple[int, int]]) -> None:
        keys = [key for first, count in runs for key in range(first, first + count)]
        try:
            for at in range(0, len(keys), _STEP):
                with self._lock:
                    # Holes are not kept, nor what the memory has had no room for since.
                    held = [(key, self._cache.peek(key, 0, PAGE)) for key in keys[at : at + _STEP]]
                for key, page in held:
                    if page is not None:
                        self._file.keep(self._who, key, page)
        except OSError as error:
            if not self._broken:
                self._broken = True
                why = error.strerror or str(error)
                _log.warning("farcore: %s cannot be written (%s): what is read from now on is not kept", self._file.path, why)


def owner(url: DumpUrl, etag: str, *, normalised: bool) -> bytes:
    """Whose pages: those of one version of one dump of one server, in one layout; a server answers for its own ETags alone."""
    return hashlib.sha256(f"{url} {etag} {normalised}".encode()).digest()[:16]
