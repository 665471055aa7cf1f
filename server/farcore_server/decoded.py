"""Decoded: kdump-compressed dumps, whose vmcore is composed around pages that are decompressed on demand.

The parts of a set that makedumpfile --split wrote lie in one directory, and are one dump, named after its first part.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from dataclasses import replace
from typing import Final

from farcore import arch, consistency, vmcore, vmcoreinfo
from farcore.arch import Verdict
from farcore.composed import HEADERS, Composed
from farcore.diskdump import Diskdump
from farcore.errors import BadDumpError, FarcoreError
from farcore.file import FileSource
from farcore.flattened import Flattened
from farcore.kdump import Kdump
from farcore.linear import linear
from farcore.parts import Index
from farcore.source import Source
from farcore_server.dump import Dump, Part, Stored
from farcore_server.files import PAGES, Files
from farcore_server.identity import Identity
from farcore_server.indexes import LARGE, size_of
from farcore_server.opening import open_place
from farcore_server.search import Place
from farcore_server.seen import Seen

# Bitmaps up to here, of 64 GiB of memory, are indexed at once: 20 ms.
QUICK: Final = 2 << 20
# Files of one directory that are looked at for the parts of a set; makedumpfile writes one for each of a few processes.
MAX_SIBLINGS: Final = 1024
# What all parts of a set have in common: the header, with the time of the crash.
_HEADER: Final = 512

# A file of a set: which frames it has, where it is, and what is open of it.
_Found = tuple[tuple[int, int], Part, FileSource]


def inspect(seen: Seen, file: FileSource, below: Source, restored: Flattened | None = None) -> tuple[Dump | None, Files | None]:
    """The Dump and its files; ``below`` is the compressed file, which may lie within a flattened stream in ``file``."""
    written = Diskdump.read(below)
    verdict = _verdict(seen, written)
    if not verdict.policy.accepted:
        return seen.refused(verdict), None
    others: list[_Found] = []
    if written.split is not None:
        others = _others(seen, file, below)
        earlier = min((each for each in others if each[0] < written.split), default=None, key=lambda each: each[0])
        if earlier is not None:
            return _first_of(seen, earlier)
    parts = tuple(part for _, part, _ in others)
    sources = [below, *(source for _, _, source in others)]
    stored = Stored(restored=restored, decoded=True, parts=parts, in_parts=written.split is not None)
    key = f"{Dump(seen.place, seen.identity, seen.stored_format, 'indexing', verdict, stored=stored).etag} pages"
    quick = 2 * written.bitmap_size <= QUICK
    index = seen.index(key, lambda: Kdump.open(sources).index, quick=quick)
    if index is None:
        return seen.indexing(), None
    assert isinstance(index, Index)
    pages = Kdump.open(sources, index=index, cache=PAGES)
    dump, headers = _dump(seen, verdict, pages, stored)
    if size_of(index) > LARGE:
        _give_back()
    return dump, Files(seen.mapped(file), tuple(source for _, _, source in others), Composed(pages, headers))


def _give_back() -> None:
    """Have glibc return what was needed for a moment, which is as much again as what is kept."""
    with suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).malloc_trim(0)


def _verdict(seen: Seen, written: Diskdump) -> Verdict:
    return arch.check_uname(written.machine, _machine(written), written.bits, seen.rules.host, seen.rules.policy)


def _machine(written: Diskdump) -> int | None:
    """The e_machine of the kernel that crashed, None where its name is nobody's."""
    host = written.host
    return min(host.native(written.bits) or host.native(host.bits)) if host is not None else None


def _dump(seen: Seen, verdict: Verdict, pages: Kdump, stored: Stored) -> tuple[Dump, Source]:
    """The Dump, and the headers of its vmcore."""
    written, index, memory = pages.header, pages.index, pages.memory()
    own = vmcore.header(_machine(written) or 0, written.bits, written.data)
    raw = vmcore.notes_of(pages.parts[0].below, written)
    found = vmcore.read_notes(raw, own)
    known = vmcoreinfo.of_linux(found.notes)
    image = vmcore.compose(own, index.pages.runs, raw, linear(memory, own, known))
    doubts = [*index.problems, *consistency.of_notes(image.elf, found)]
    if (crowded := vmcore.too_many(image.elf)) is not None:
        doubts.append(crowded)
    dump = Dump(
        seen.place,
        seen.identity,
        seen.stored_format,
        "incomplete" if index.problems or (stored.restored is not None and stored.restored.problem) else "ready",
        verdict,
        (*verdict.warnings, *doubts),
        image.elf.header,
        image.elf,
        found.notes,
        (),
        known,
        stored=replace(stored, image=image.beside(HEADERS), memory=memory.layout),
    )
    return dump, image.headers


def _others(seen: Seen, file: FileSource, below: Source) -> list[_Found]:
    """The other files of the set: those beside it that start with the same header, one for each stretch of frames."""
    start = below.pread(0, _HEADER)
    folder, own = os.path.split(seen.place.path)
    found: dict[tuple[int, int], _Found] = {}
    for name in _names(folder):
        if name == own:
            continue
        path = os.path.join(folder, name)
        place = Place(path, os.path.join(os.path.dirname(seen.place.name), name), seen.place.root or folder)
        try:
            fd, stat = open_place(place)
        except BadDumpError:
            continue
        source = FileSource(fd, stat.st_size)
        try:
            if source.size < _HEADER or source.pread(0, _HEADER) != start:
                continue
            split = Diskdump.read(source).split
        except FarcoreError:
            continue
        if split is not None:
            found.setdefault(split, (split, Part(place, Identity.of(stat)), source))
    return [found[split] for split in sorted(found)]


def _names(folder: str) -> list[str]:
    """The regular files of the folder, by name, as many as may be looked at."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))[:MAX_SIBLINGS]
    except OSError:
        return []


def _first_of(seen: Seen, earlier: _Found) -> tuple[Dump | None, Files | None]:
    """A later part is no dump of its own; one that was itself named as a PATH stands for its set."""
    if seen.place.root is not None:
        return None, None
    _, (place, identity), source = earlier
    return inspect(replace(seen, place=place._replace(root=None), identity=identity), source, source)
