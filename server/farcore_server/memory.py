"""Memory: a dump in Python's hands: ``open_dump("/var/crash/vmcore").physical[a:b]`` is an ndarray."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from farcore.arch import ANY, Policy
from farcore.errors import BadDumpError
from farcore.hosts import this_host
from farcore.layout import Layout
from farcore.runs import Kind
from farcore.source import Source
from farcore.space import Space
from farcore_server.dump import Dump
from farcore_server.files import Files
from farcore_server.inspection import Rules, inspect
from farcore_server.mapping import Bytes, MappedSource
from farcore_server.search import Place


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """One byte space of a dump, sliced by address: read-only uint8 arrays.

    A slice inside one extent of the file shares the map's own pages, which is fast and has a map's risk: a file that is
    truncated meanwhile is SIGBUS. Across extents it is a copy. A hole raises FaultError.
    """

    source: Source
    layout: Layout

    def __len__(self) -> int:
        return self.layout.size

    def __getitem__(self, wanted: slice) -> Bytes:
        start, stop, step = wanted.indices(self.layout.size)
        if step != 1:
            raise ValueError("memory is sliced byte by byte: leave out the step, and stride the array instead")
        stop = max(start, stop)
        runs = list(self.layout.walk(start, stop))
        one = len(runs) == 1 and runs[0].kind is Kind.DATA and start >= len(self.layout.head)
        if one and isinstance(self.source, MappedSource):
            return self.source.view(runs[0].offset, stop - start)
        return np.frombuffer(Space(self.source, self.layout).pread(start, stop - start), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class OpenDump:
    """A dump whose header check has passed: what is known of it (``dump``), and its bytes."""

    dump: Dump
    files: Files

    @property
    def physical(self) -> Memory:
        """Physical memory by address."""
        return Memory(self.files.below(self.dump, "physical"), self.dump.layout("physical"))

    @property
    def stored(self) -> Memory:
        """The file by byte."""
        return Memory(self.files.file, self.dump.layout("stored"))


def open_dump(path: str | os.PathLike[str], policy: Policy | None = None) -> OpenDump:
    """Check and map the dump at ``path``, of any machine unless ``policy`` says otherwise; BadDumpError with the reason."""
    absolute = os.path.abspath(path)
    rules = Rules(this_host(), policy or Policy("cross", frozenset({ANY})))
    dump, files = inspect(Place(absolute, os.path.basename(absolute), None), rules)
    if dump is None or files is None:
        raise BadDumpError(f"{absolute}: {dump.reason if dump else 'not a dump'}", term="file")
    return OpenDump(dump, files)
