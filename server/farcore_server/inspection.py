"""Inspection: from a place to a Dump: open, sniff, check the header, and only then read further."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import Final

from farcore import arch, consistency, notes, vmcoreinfo
from farcore.elf import Ehdr, Elf
from farcore.errors import BadDumpError, FarcoreError
from farcore.file import FileSource
from farcore.flattened import Flattened
from farcore.formats import StoredFormat, sniff
from farcore.source import Source
from farcore_server import decoded, rawmemory
from farcore_server.dump import Dump, State, Stored
from farcore_server.files import Files
from farcore_server.identity import Identity
from farcore_server.opening import open_place
from farcore_server.search import Place
from farcore_server.seen import Rules, Seen

__all__ = ["Rules", "inspect"]

# Enough for every magic and for either ELF header.
_START: Final = 64
# A flattened stream up to here is indexed at once: at worst it has a million records, and takes a second.
QUICK: Final = 64 << 20
# Under such a name kexec-tools, kdump-utils and kdump-tools write a dump that is not yet whole.
_GROWING: Final = "-incomplete"


def inspect(place: Place, rules: Rules) -> tuple[Dump | None, Files | None]:
    """The Dump at ``place`` and, if its bytes may be served, the files to serve them from.

    (None, None) for a file that is nobody's dump: no known magic and no usual name, or a later part of a set. Costs O(program
    headers and notes), and of other formats O(their index), whatever the file's size. Of a file refused by its header nothing
    but headers is read; none that is refused is mapped.
    """
    try:
        fd, found = open_place(place)
    except BadDumpError as error:
        return (_refused(place, _unopened(place), None, rules, error.detail) if place.expected else None), None
    identity = Identity.of(found, in_proc=place.path.startswith("/proc/"))
    source = FileSource(fd, identity.size)
    stored_format: StoredFormat | None = None
    recognised = False
    try:
        start = bytes(source.pread(0, min(_START, source.size)))
        stored_format = sniff(start) if place.address is None else "raw"
        if stored_format is not None:
            recognised = True
            dump, files = _inspected(Seen(place, identity, stored_format, rules), start, source)
            return (dump and _named_incomplete(dump)), files
        reason = _unknown(start)
    except FarcoreError as error:
        stored_format, reason = (stored_format if isinstance(error, BadDumpError) else None), str(error)
    except OSError as error:
        stored_format, reason = None, f"it cannot be opened: {error.strerror}"
    if not (recognised or place.expected):
        return None, None
    return _refused(place, identity, stored_format, rules, reason), None


def _unopened(place: Place) -> Identity:
    """What the name itself tells of what was not opened: its times, and a size only where there are bytes."""
    try:
        found = os.lstat(place.path)
    except OSError:
        return Identity(0, 0, 0, 0)
    identity = Identity.of(found)
    return identity if stat.S_ISREG(found.st_mode) else identity._replace(size=0)


def _inspected(seen: Seen, start: bytes, source: FileSource) -> tuple[Dump | None, Files | None]:
    """By the outermost layer, and then by what is inside."""
    if seen.stored_format == "flattened":
        return _flattened(seen, source)
    if seen.stored_format == "kdump-compressed":
        return decoded.inspect(seen, source, source)
    dump = rawmemory.inspect(seen, source) if seen.stored_format == "raw" else _elf(seen, start, source)
    return dump, (Files(seen.mapped(source)) if dump.elf is not None else None)


def _flattened(seen: Seen, source: FileSource) -> tuple[Dump | None, Files | None]:
    key = f"{seen.identity.etag('flattened')} stream"
    restored = seen.index(key, lambda: Flattened.index(source), quick=source.size <= QUICK)
    if restored is None:
        return seen.indexing(), None
    assert isinstance(restored, Flattened)
    below = restored.over(source)
    start = bytes(below.pread(0, min(_START, below.size)))
    inside = sniff(start)
    if inside == "kdump-compressed":
        return decoded.inspect(seen, source, below, restored)
    if inside != "elf":
        return seen.refused(seen.rules.unread(f"within the flattened stream, {_unknown(start)}")), None
    dump = _elf(seen, start, below, restored)
    return dump, (Files(seen.mapped(source)) if dump.elf is not None else None)


def _elf(seen: Seen, start: bytes, source: Source, restored: Flattened | None = None) -> Dump:
    rules = seen.rules
    verdict = arch.check(start, rules.host, rules.policy)
    try:
        header = Ehdr.parse(start)
    except BadDumpError as error:
        return seen.refused(verdict, verdict.policy.reason or error.detail)
    if not verdict.policy.accepted:
        return seen.refused(verdict, header=header)
    try:
        elf = Elf.open(source)
        found = notes.read(source, elf)
    except BadDumpError as error:
        return seen.refused(verdict, error.detail, header)
    problem = restored.problem if restored is not None else None
    state: State = "incomplete" if problem or consistency.missing(elf, source.size) else "ready"
    return Dump(
        seen.place,
        seen.identity,
        seen.stored_format,
        state,
        verdict,
        (*verdict.warnings, *([problem] if problem else []), *consistency.warnings(elf, source.size, found)),
        header,
        elf,
        found.notes,
        found.extents,
        vmcoreinfo.of_linux(found.notes),
        stored=Stored(restored=restored),
    )


def _named_incomplete(dump: Dump) -> Dump:
    """A dump that is still being written says so by its name, and grows: each size is another version of it."""
    if dump.state != "ready" or not dump.place.name.endswith(_GROWING):
        return dump
    return replace(dump, state="incomplete", warnings=(*dump.warnings, "its name says that it is still being written"))


def _refused(place: Place, identity: Identity, stored_format: StoredFormat | None, rules: Rules, reason: str) -> Dump:
    return Dump(place, identity, stored_format, "refused", rules.unread(reason))


def _unknown(start: bytes) -> str:
    if not start.strip(b"\0"):
        return "it starts with zeros: the dump was not written to its end, or its file was restored as a hole"
    return f"no dump format starts with {start[:8].hex(' ')}; name the vmcore itself"
