"""Seen: a file that was opened and sniffed, on its way to a Dump; and the rules by which it is looked at."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from farcore import arch
from farcore.arch import KernelVerdict, Policy, PolicyVerdict, Term, Verdict
from farcore.elf import Ehdr
from farcore.file import FileSource
from farcore.formats import StoredFormat
from farcore.hosts import Host
from farcore_server.dump import Dump
from farcore_server.identity import Identity
from farcore_server.indexes import Found, Indexes
from farcore_server.mapping import MappedSource
from farcore_server.search import Place


@dataclass(frozen=True, slots=True)
class Rules:
    """What a header is checked against, and how much address space one dump's map may take (0: as the host allows).

    ``indexes``: where those of compressed and flattened dumps are kept; without, each is made anew, and waited for.
    """

    host: Host
    policy: Policy
    map_limit: int = 0
    indexes: Indexes | None = None

    def unread(self, reason: str) -> Verdict:
        """The verdict on a file whose header was not read; it is not served."""
        terms = tuple(Term(name, None, "", None) for name in arch.TERMS)
        return Verdict(self.host.name, KernelVerdict(False, None, terms), PolicyVerdict(False, reason), ())


@dataclass(frozen=True, slots=True)
class Seen:
    """Where it lies, which version of it this is, and what its start looks like."""

    place: Place
    identity: Identity
    stored_format: StoredFormat
    rules: Rules

    def refused(self, verdict: Verdict, reason: str | None = None, header: Ehdr | None = None) -> Dump:
        """The Dump of a file whose bytes are not served, for the verdict's own reason or another."""
        if reason is not None:
            verdict = replace(verdict, policy=PolicyVerdict(False, reason))
        return Dump(self.place, self.identity, self.stored_format, "refused", verdict, verdict.warnings, header)

    def indexing(self, verdict: Verdict | None = None) -> Dump:
        """The Dump of a file whose index is being made."""
        if verdict is None:
            verdict = self.rules.unread("its index is being made; ask again in a few seconds")
        return Dump(self.place, self.identity, self.stored_format, "indexing", verdict, verdict.warnings)

    def index(self, key: str, make: Callable[[], Found], *, quick: bool) -> Found | None:
        """What ``make`` finds, or found before; None while a thread is at it, which is for what is not ``quick``."""
        indexes = self.rules.indexes
        return make() if indexes is None else indexes.get(key, make, wait=quick)

    def mapped(self, source: FileSource) -> MappedSource:
        """The file, mapped."""
        limit, windowed = self.rules.map_limit, self.identity.boot_id is not None
        mapped = MappedSource(os.dup(source.fd), self.identity.size, limit=limit, windowed=windowed)
        mapped.failed = source.failed
        return mapped
