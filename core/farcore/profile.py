"""Profile: which pages sessions on one kernel build read, named by what they are and not by where they lie.

On another boot the same pages have other addresses: page numbers foretell 16 % of what the next session reads, places
within the kernel's image, the memmap, a CPU's own area and vmalloc 98 %. What has no such name is kept as page frame numbers
beside the ETag of the one dump for which they are true. No memory contents are in it.

As JSON: {"version": 1, "sessions": N, "kinds": {"image": [[first, count, seen], ...], ...}, "dumps": {ETAG: [...]}}, where
``seen`` is the number of the session that read those pages last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np

from farcore.errors import BadProfileError
from farcore.runs import U64, distinct

VERSION: Final = 1
# What a page can be named by; each counts pages of 4 KiB from a base that a dump of any boot tells:
# image: the kernel's link address; memmap: vmemmap; vmalloc: VMALLOC_START; percpu: a CPU's area, whichever CPU.
# slab names no page but a cache of the allocator's, all whose pages are meant, by cacheps' numbers.
KINDS: Final[tuple[str, ...]] = ("image", "memmap", "vmalloc", "percpu", "slab")
# crash's `sys; bt -a; ps; log; kmem -i` reads 2,000 pages of a small guest and 10,000 of one with 2 GiB.
MAX_PAGES: Final = 1 << 15
# Dumps whose own pages are remembered: those of the last few crashes.
MAX_DUMPS: Final = 8
# As JSON: MAX_PAGES of every kind, each a run by itself, take 20 bytes a page.
MAX_SIZE: Final = 8 << 20
_MAX_SESSIONS: Final = 1 << 32


@dataclass(frozen=True, slots=True, eq=False)
class Pages:
    """Page numbers, ascending and each once, and the session that read each last: uint64 (n,) both."""

    number: U64
    seen: U64

    @classmethod
    def of(cls, numbers: U64 | Sequence[int], session: int = 1) -> Self:
        """These pages, read in one session."""
        number = distinct(np.asarray(numbers, np.uint64))
        return cls(number, np.full(len(number), session, np.uint64))

    def __len__(self) -> int:
        return len(self.number)

    def later(self, by: int) -> Pages:
        """The same, ``by`` sessions later."""
        return Pages(self.number, self.seen + np.uint64(by))

    def merged(self, other: Pages) -> Pages:
        """Both; of more than MAX_PAGES those that were read last."""
        number = np.concatenate([self.number, other.number])
        seen = np.concatenate([self.seen, other.seen])
        order = np.lexsort((seen, number))
        number, seen = number[order], seen[order]
        last = np.concatenate([number[1:] != number[:-1], np.ones(min(1, len(number)), np.bool_)])
        number, seen = number[last], seen[last]
        if len(number) > MAX_PAGES:
            kept = np.sort(np.argsort(seen, kind="stable")[-MAX_PAGES:])
            number, seen = number[kept], seen[kept]
        return Pages(number, seen)

    def runs(self) -> list[list[int]]:
        """[first, count, seen] for each row of neighbours that were read last in the same session."""
        if not len(self.number):
            return []
        breaks = (np.diff(self.number) != 1) | (np.diff(self.seen) != 0)
        heads = np.flatnonzero(np.concatenate([[True], breaks]))
        counts = np.diff(np.concatenate([heads, [len(self.number)]]))
        return [list(run) for run in zip(self.number[heads].tolist(), counts.tolist(), self.seen[heads].tolist(), strict=True)]


_NONE: Final = Pages.of([])


@dataclass(frozen=True, slots=True)
class Profile:
    """What ``sessions`` sessions read: Pages by kind, and by ETag those without a name, as page frame numbers."""

    sessions: int = 0
    kinds: Mapping[str, Pages] = field(default_factory=dict)
    dumps: Mapping[str, Pages] = field(default_factory=dict)

    def of(self, kind: str) -> Pages:
        """The pages of that kind, perhaps none."""
        return self.kinds.get(kind, _NONE)

    def merged(self, later: Profile) -> Profile:
        """This profile and what sessions after it read; bounded, what was read last is kept."""
        moved = {kind: pages.later(self.sessions) for kind, pages in later.kinds.items()}
        kinds = {kind: self.of(kind).merged(moved.get(kind, _NONE)) for kind in KINDS}
        dumps = dict(self.dumps)
        for etag, pages in later.dumps.items():  # the last one read stands last
            dumps[etag] = dumps.pop(etag, _NONE).merged(pages.later(self.sessions))
        kept = list(dumps.items())[-MAX_DUMPS:]
        return Profile(min(self.sessions + later.sessions, _MAX_SESSIONS), kinds, dict(kept))

    def pack(self) -> bytes:
        """The profile as JSON."""
        kinds = {kind: pages.runs() for kind, pages in self.kinds.items() if len(pages)}
        dumps = {etag: pages.runs() for etag, pages in self.dumps.items() if len(pages)}
        said = {"version": VERSION, "sessions": self.sessions, "kinds": kinds, "dumps": dumps}
        return json.dumps(said, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, raw: bytes | bytearray) -> Profile:
        """The profile that ``raw`` is; BadProfileError with what is wrong in it. Kinds that are not known are passed over."""
        if len(raw) > MAX_SIZE:
            raise BadProfileError(f"a profile has at most {MAX_SIZE:,} bytes; this one has {len(raw):,}")
        try:
            said = json.loads(raw)
        except (ValueError, RecursionError):
            raise BadProfileError("a profile is JSON; this is not") from None
        if not isinstance(said, dict) or said.get("version") != VERSION:
            raise BadProfileError(f"a profile is an object of version {VERSION}; `farcore profile export` writes one")
        sessions = said.get("sessions")
        if type(sessions) is not int or not 0 <= sessions <= _MAX_SESSIONS:
            raise BadProfileError("a profile says how many sessions it is of, from 0 to 2^32")
        kinds, dumps = _object(said, "kinds"), _object(said, "dumps")
        if len(dumps) > MAX_DUMPS:
            raise BadProfileError(f"a profile is of at most {MAX_DUMPS} dumps; this one is of {len(dumps):,}")
        known = {kind: _pages(kinds[kind], sessions) for kind in KINDS if kind in kinds}
        return cls(sessions, known, {etag: _pages(runs, sessions) for etag, runs in dumps.items()})


def _object(said: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = said.get(name, {})
    if not isinstance(found, dict):
        raise BadProfileError(f"a profile's {name} are an object")
    return found


def _pages(runs: object, sessions: int) -> Pages:
    wrong = BadProfileError("a profile's pages are [first, count, seen], ascending, of sessions that there were")
    if not isinstance(runs, list) or len(runs) > MAX_PAGES:
        raise wrong
    for run in runs:
        if not (isinstance(run, list) and len(run) == 3 and all(type(one) is int and 0 <= one < 1 << 52 for one in run)):
            raise wrong
    first, count, seen = np.array(runs, np.uint64).reshape(-1, 3).T
    if (count == 0).any() or int(count.sum()) > MAX_PAGES or count.max(initial=0) > MAX_PAGES or (seen > sessions).any():
        raise wrong
    if (first[1:] < first[:-1] + count[:-1]).any():
        raise wrong
    within = np.arange(int(count.sum()), dtype=np.uint64) - np.repeat(np.cumsum(count) - count, count.astype(np.intp))
    return Pages(np.repeat(first, count.astype(np.intp)) + within, np.repeat(seen, count.astype(np.intp)))
