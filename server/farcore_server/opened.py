"""Opened: a dump whose bytes may be served, and the open file that has them."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from farcore.errors import SourceChangedError
from farcore.layout import Layout
from farcore_server.dump import Dump, Resource
from farcore_server.mapping import MappedSource
from farcore_server.residency import Residency

# What is made of more PT_LOADs than this is made in a thread: 1,000 take 1 ms.
MANY_LOADS: Final = 1000


class Opened:
    """A Dump and the source that it was read from: whatever happens to the path, both are of one file."""

    __slots__ = ("dump", "residency", "source")

    def __init__(self, dump: Dump, source: MappedSource) -> None:
        self.dump, self.source = dump, source
        self.residency = Residency(source)

    async def layout(self, resource: Resource) -> Layout:
        """The layout of a byte resource; of many PT_LOADs it is made in a thread."""
        if self.dump.elf is not None and len(self.dump.elf.segments) > MANY_LOADS:
            return await asyncio.to_thread(self.dump.layout, resource)
        return self.dump.layout(resource)

    def unchanged(self) -> bool:
        """Whether the open file still is the version that was inspected: one system call."""
        return self.dump.identity.holds(os.fstat(self.source.fd))

    def current(self) -> bool:
        """Whether the path still leads to that version."""
        try:
            return self.dump.identity.holds(os.stat(self.dump.place.path))
        except OSError:
            return False

    def demand_unchanged(self) -> None:
        """SourceChangedError if the open file is no longer the version that was inspected."""
        if not self.unchanged():
            raise SourceChangedError(
                "the dump's file was written to or truncated while it was read; ask again for its new version"
            )
