"""Opened: a dump whose bytes may be served, and the open files that have them."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from farcore.errors import SourceChangedError
from farcore.layout import Layout
from farcore.source import Source
from farcore.space import Space
from farcore_server.dump import Dump, Resource
from farcore_server.files import FILE, Either, Files, shifted
from farcore_server.residency import Prompt, Residency

# What is made of more PT_LOADs than this is made in a thread: 1,000 take 1 ms.
MANY_LOADS: Final = 1000


class Opened:
    """A Dump and the files that it was read from: whatever happens to the paths, both are of one version."""

    __slots__ = ("dump", "either", "files", "prompt", "residency", "source")

    def __init__(self, dump: Dump, files: Files) -> None:
        self.dump, self.files, self.source = dump, files, files.file
        self.residency = Residency(files.file)
        # Decompressed memory as far as nobody has to wait for it; None where there is none, or it lies in several files.
        self.prompt: Source | None = None
        self.either: Source | None = None
        if files.memory is not None and not files.others:
            now = Prompt(self.residency)
            self.prompt = files.memory.through(lambda below: Space(now, below.layout) if isinstance(below, Space) else now)
            self.either = Either(self.prompt, now)

    async def layout(self, resource: Resource) -> Layout:
        """The layout of a byte resource; of many PT_LOADs it is made in a thread."""
        if self.dump.elf is not None and len(self.dump.elf.segments) > MANY_LOADS:
            return await asyncio.to_thread(self.dump.layout, resource)
        return self.dump.layout(resource)

    def decoded(self, resource: Resource) -> Source | None:
        """What the resource's layout is over, where that is memory to be decompressed; None where it is ``source``."""
        return self.files.memory if self.dump.decodes(resource) else None

    def over_either(self, layout: Layout, resource: Resource) -> Layout:
        """The resource's layout, over ``files.either``."""
        if self.files.memory is None or self.dump.decodes(resource):
            return layout
        return shifted(layout, FILE)

    def unchanged(self) -> bool:
        """Whether the open files still are the version that was inspected: one system call each."""
        return self.files.hold(self.dump)

    def current(self) -> bool:
        """Whether the paths still lead to that version."""
        dump = self.dump
        try:
            return dump.identity.holds(os.stat(dump.place.path)) and all(
                part.identity.holds(os.stat(part.place.path)) for part in dump.stored.parts
            )
        except OSError:
            return False

    def demand_unchanged(self) -> None:
        """SourceChangedError if an open file is no longer the version that was inspected."""
        if not self.unchanged():
            raise SourceChangedError(
                "the dump's file was written to or truncated while it was read; ask again for its new version"
            )
