"""Inspection: from a place to a Dump: open, sniff, check the header, and only then read further."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from typing import Final

from farcore import arch, consistency, notes, vmcoreinfo
from farcore.arch import KernelVerdict, Policy, PolicyVerdict, Term, Verdict
from farcore.elf import Ehdr, Elf
from farcore.errors import BadDumpError, FarcoreError
from farcore.file import FileSource
from farcore.formats import StoredFormat, sniff
from farcore.hosts import Host
from farcore_server.dump import Dump, State
from farcore_server.identity import Identity
from farcore_server.mapping import MappedSource
from farcore_server.opening import open_place
from farcore_server.search import Place

# Enough for every magic and for either ELF header.
_START: Final = 64

_UNSERVED: Final = {
    "kdump-compressed": "kdump-compressed dumps are not served yet; makedumpfile -E or `crash` on a copy reads this one",
    "flattened": "flattened dumps are not served yet; `makedumpfile -R vmcore < FILE` restores one",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What a header is checked against, and how much address space one dump's map may take (0: as the host allows)."""

    host: Host
    policy: Policy
    map_limit: int = 0


def inspect(place: Place, rules: Rules) -> tuple[Dump | None, MappedSource | None]:
    """The Dump at ``place`` and, if its bytes may be served, the source to serve them from.

    (None, None) for a file that is nobody's dump: no known magic and no usual name. Costs O(program headers and notes),
    whatever the file's size. A file refused by its header has its first 64 bytes read; none that is refused is mapped.
    """
    try:
        fd, found = open_place(place)
    except BadDumpError as error:
        return (_refused(place, _unopened(place), None, rules, error.detail) if place.expected else None), None
    identity = Identity.of(found, in_proc=place.path.startswith("/proc/"))
    source = FileSource(fd, identity.size)
    try:
        start = bytes(source.pread(0, min(_START, source.size)))
        stored_format = sniff(start)
        if stored_format == "elf":
            dump = _elf(place, identity, start, source, rules)
            return dump, (_mapped(source, identity, rules) if dump.elf is not None else None)
        reason = _UNSERVED.get(stored_format or "") or _unknown(start)
    except FarcoreError as error:
        stored_format, reason = None, str(error)
    except OSError as error:
        stored_format, reason = None, f"it cannot be opened: {error.strerror}"
    if stored_format is None and not place.expected:
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


def _mapped(source: FileSource, identity: Identity, rules: Rules) -> MappedSource:
    return MappedSource(os.dup(source.fd), identity.size, limit=rules.map_limit, windowed=identity.boot_id is not None)


def _elf(place: Place, identity: Identity, start: bytes, source: FileSource, rules: Rules) -> Dump:
    verdict = arch.check(start, rules.host, rules.policy)
    try:
        header = Ehdr.parse(start)
    except BadDumpError as error:
        return _refused(place, identity, "elf", rules, verdict.policy.reason or error.detail, verdict)
    if not verdict.policy.accepted:
        return Dump(place, identity, "elf", "refused", verdict, verdict.warnings, header)
    try:
        elf = Elf.open(source)
        found = notes.read(source, elf)
    except BadDumpError as error:
        refusal = replace(verdict, policy=PolicyVerdict(False, error.detail))
        return Dump(place, identity, "elf", "refused", refusal, verdict.warnings, header)
    state: State = "incomplete" if consistency.missing(elf, identity.size) else "ready"
    return Dump(
        place,
        identity,
        "elf",
        state,
        verdict,
        (*verdict.warnings, *consistency.warnings(elf, identity.size, found)),
        header,
        elf,
        found.notes,
        found.extents,
        vmcoreinfo.of_linux(found.notes),
    )


def _refused(
    place: Place,
    identity: Identity,
    stored_format: StoredFormat | None,
    rules: Rules,
    reason: str,
    verdict: Verdict | None = None,
) -> Dump:
    if verdict is None:
        unread = tuple(Term(name, None, "", None) for name in arch.TERMS)
        verdict = Verdict(rules.host.name, KernelVerdict(False, None, unread), PolicyVerdict(False, reason), ())
    return Dump(place, identity, stored_format, "refused", replace(verdict, policy=PolicyVerdict(False, reason)))


def _unknown(start: bytes) -> str:
    if not start.strip(b"\0"):
        return "it starts with zeros: the dump was not written to its end, or its file was restored as a hole"
    return f"no dump format starts with {start[:8].hex(' ')}; name the vmcore itself"
