"""Residency: whether a file's bytes are in memory, and how to get them there without stalling the event loop.

The loop may touch only what is in the page cache. preadv2(RWF_NOWAIT) reads exactly that or says no: 2 us for a byte. Where
cachestat(2) can be asked, it and one such byte speak for a REGION, else each CHUNK is asked for. What was in memory a moment
ago is taken to be there still; what is cold is read by a thread first, further ahead for a reader who goes on.
"""

from __future__ import annotations

import asyncio
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Final

from farcore.source import Source, demand
from farcore_server.cachestat import cached
from farcore_server.mapping import MappedSource

# Threads that wait for disks: enough to keep a few of them busy, and no more stacks than that.
THREADS: Final = 8
# Read ahead of a sequential reader: 1 ms of a disk that reads 1 GB/s, and little lost if the reader stops.
AHEAD: Final = 1 << 20
# What one probed byte stands for: the kernel reads and drops files in windows that are rarely smaller.
BITS: Final = 16
CHUNK: Final = 1 << BITS
# What one cachestat(2) is about, at least: 1.4 us in folios, 5 us in pages.
WIDE: Final = 21
REGION: Final = 1 << WIDE
# For how long, in seconds, a chunk that was in memory is taken to be there still, and for how many (4 GiB, 4 MB of set).
MEMORY: Final = 2.0
KNOWN: Final = 1 << 16

# Filesystems whose bytes are memory, where nothing can be cold.
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "proc", "hugetlbfs"})
_POOL: Final = ThreadPoolExecutor(THREADS, thread_name_prefix="cold")


class Residency:
    """What of ``source`` may be sent at once. Belongs to the event loop's thread."""

    def __init__(self, source: MappedSource) -> None:
        filesystem = _filesystem(source.fd)
        self.source = source
        self.always = filesystem in _IN_MEMORY
        # sendfile(2) of /proc/vmcore stops at 2 GiB.
        self.sendable = filesystem != "proc"
        # Whether nobody can say what is in memory (FUSE): then every read is a thread's. Asked at once: who waited for a
        # range to be in memory would never hear that it is.
        self.blind = False
        # By CHUNK, and where cachestat(2) has told, by REGION: a few of them stay in a processor's cache.
        self._known: set[int] = set()
        self._regions: set[int] = set()
        self._until = 0.0
        self._next = -1
        # Whether cachestat(2) has an answer for us.
        self._counts = True
        if not self.always:
            self._probe(bytearray(1), 0)

    def read_now(self, offset: int, length: int) -> bytes | bytearray | memoryview | None:
        """The bytes, if reading them waits for nothing; None if it would wait, or if they are not all there."""
        if self.blind:
            return None
        if self.source.steady:
            return self.source.pread(offset, length)
        if self.always or self._remembered(offset, length):
            try:
                content: bytes | bytearray = os.pread(self.source.fd, length, offset)
            except OSError:
                return None  # memory has dropped it and the disk fails: whoever reads it next says so
            return content if len(content) == length else None
        content = bytearray(length)
        if self._probe(content, offset) != length:
            return None
        self._learn(offset, length)
        return content

    def resident(self, offset: int, length: int) -> bool:
        """Whether sending these bytes would wait for nothing; O(length / CHUNK)."""
        return self._remembered(offset, length) or self._found(offset, length)

    def _found(self, offset: int, length: int) -> bool:
        if self.always or self.blind:
            return self.always
        self.regions()
        if self._counts and self._all_around(offset, length):
            return True
        byte, known = bytearray(1), self._known
        for chunk in _chunks(offset, length):
            if chunk not in known:
                if self._probe(byte, max(offset, chunk * CHUNK)) != 1:
                    return False
                known.add(chunk)
        return True

    def _all_around(self, offset: int, length: int) -> bool:
        regions = range(offset >> WIDE, ((offset + length - 1) >> WIDE) + 1)
        start, end = regions.start << WIDE, min(self.source.size, regions.stop << WIDE)
        found = cached(self.source.fd, start, end - start)
        self._counts = found is not None
        # Pages on their way count as cached, and come in order: the last byte tells.
        if not found or self._probe(bytearray(1), end - 1) != 1:
            return False
        self._regions.update(regions)
        return True

    def ready(self, offset: int, length: int) -> bool:
        """resident(), of a reader who goes on from there."""
        if not self.resident(offset, length):
            return False
        self._next = offset + length
        return True

    async def bring(self, offset: int, length: int) -> None:
        """Return when the bytes are in memory, as far as they can be; whoever then reads them meets what errors there are."""
        if self.ready(offset, length):
            return
        end = offset + length
        ahead = min(AHEAD, self.source.size - end) if offset == self._next else 0
        await asyncio.get_running_loop().run_in_executor(_POOL, self._fetch, offset, length, ahead)
        if not self.blind:
            self._learn(offset, length)
        self._next = end

    async def read(self, offset: int, length: int) -> bytes | bytearray | memoryview:
        """Exactly ``length`` bytes, by a thread if they are cold; errors as MappedSource.pread."""
        content = self.read_now(offset, length)
        if content is not None:
            return content
        return await asyncio.get_running_loop().run_in_executor(_POOL, self.source.pread, offset, length)

    def _fetch(self, offset: int, length: int, ahead: int) -> None:
        if ahead:
            os.posix_fadvise(self.source.fd, offset + length, ahead, os.POSIX_FADV_WILLNEED)
        self.source.pread(offset, length)

    def _remembered(self, offset: int, length: int) -> bool:
        if monotonic() >= self._until:
            return False
        regions, last = self._regions, offset + length - 1
        if regions.issuperset(range(offset >> WIDE, (last >> WIDE) + 1)):
            return True
        return offset >> BITS in self._known and self._known.issuperset(_chunks(offset, length))

    def regions(self) -> set[int]:
        """The REGIONs that are known to be in memory; none when it is too long ago that one looked."""
        now = monotonic()
        if now >= self._until or len(self._known) > KNOWN or len(self._regions) > KNOWN:
            self._known.clear()
            self._regions.clear()
            self._until = now + MEMORY
        return self._regions

    def _learn(self, offset: int, length: int) -> None:
        self.regions()
        self._known.update(_chunks(offset, length))

    def _probe(self, content: bytearray, offset: int) -> int:
        """How many bytes came without waiting."""
        try:
            return os.preadv(self.source.fd, [content], offset, os.RWF_NOWAIT)
        except OSError as error:
            self.blind = error.errno == errno.EOPNOTSUPP
            return 0


class Prompt(Source):
    """The file as far as it is in memory: a read that would wait is a BlockingIOError. Belongs to the loop's thread."""

    def __init__(self, residency: Residency) -> None:
        self._residency, self.size = residency, residency.source.size

    def pread(self, offset: int, length: int) -> memoryview:
        """Exactly ``length`` bytes, at once."""
        demand(self, offset, length)
        content = self._residency.read_now(offset, length) if length else b""
        if content is None:
            raise BlockingIOError
        return memoryview(content).toreadonly()


def _chunks(offset: int, length: int) -> range:
    return range(offset // CHUNK, (offset + length - 1) // CHUNK + 1)


def _filesystem(fd: int) -> str:
    """The type of the filesystem that ``fd`` is on, as /proc/self/mountinfo names it; "" where it is not listed."""
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return ""
