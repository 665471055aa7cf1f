"""Files: what is open of a dump: its file, the other files of its set, and what decompresses their pages."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from farcore.composed import Composed
from farcore.file import FileSource
from farcore.layout import Layout
from farcore.pagecache import PageCache
from farcore.source import Source, demand
from farcore.space import Space
from farcore_server.dump import Dump, Resource
from farcore_server.mapping import MappedSource

# Decompressed pages that a process keeps, of all dumps: a session of crash reads 40 MB of different ones at most.
PAGES: Final = PageCache(64 << 20)
# In ``either``, the file's bytes lie behind all else (composed.py).
FILE: Final = 1 << 61


class Files(NamedTuple):
    """``memory``, what is decompressed of a dump, is None where all that is served are bytes of ``file``."""

    file: MappedSource
    others: tuple[FileSource, ...] = ()
    memory: Composed | None = None

    def below(self, dump: Dump, resource: Resource) -> Source:
        """What the resource's layout is over."""
        return self.memory if self.memory is not None and dump.decodes(resource) else self.file

    def space(self, dump: Dump, resource: Resource) -> Space:
        """The resource as a Source."""
        return Space(self.below(dump, resource), dump.layout(resource))

    @property
    def either(self) -> Source:
        """Decompressed memory, and from FILE on the file: one source for all resources."""
        return self.file if self.memory is None else Either(self.memory, self.file)

    def failed(self) -> int | None:
        """Where the storage of one of them could not be read, in that file; None where all is well."""
        return next((min(failed) for each in (self.file, *self.others) if (failed := tuple(each.failed))), None)

    def try_again(self) -> None:
        """Read again where the storage failed; blocks."""
        for each in (self.file, *self.others):
            each.try_again()

    def hold(self, dump: Dump) -> bool:
        """Whether the open files still are the version that was inspected: a system call each."""
        if not dump.identity.holds(os.fstat(self.file.fd)):
            return False
        return not self.others or all(
            part.identity.holds(os.fstat(each.fd)) for part, each in zip(dump.stored.parts, self.others, strict=True)
        )


class Either(Source):
    """``memory``, and from FILE on ``file``."""

    def __init__(self, memory: Source, file: Source) -> None:
        self.memory, self.file, self.size = memory, file, FILE + file.size

    def pread(self, offset: int, length: int) -> memoryview:
        """As the one or the other."""
        demand(self, offset, length)
        return self.file.pread(offset - FILE, length) if offset >= FILE else self.memory.pread(offset, length)


def shifted(layout: Layout, by: int) -> Layout:
    """The same layout, over a source in which its bytes lie ``by`` further on."""
    return replace(layout, runs=replace(layout.runs, offset=layout.runs.offset + np.uint64(by)))
