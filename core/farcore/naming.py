"""Naming: what a page of a dump is, in words that hold on every boot of one kernel build (profile.KINDS), and back.

Pages are numbered from bases that this boot's Regions know: what one boot's sessions read are page frames of another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Self

import numpy as np

from farcore.errors import FaultError
from farcore.pagetable import START_KERNEL_MAP, Mappings
from farcore.profile import Pages, Profile
from farcore.regions import Regions
from farcore.runs import U64, distinct
from farcore.source import Source

_PAGE: Final = 12
# KERNEL_IMAGE_SIZE under KASLR (arch/x86/include/asm/page_64_types.h): modules are above, and move by themselves.
_IMAGE_SIZE: Final = 1 << 30
# What is allocated behind the static per-CPU variables: PERCPU_MODULE_RESERVE and PERCPU_DYNAMIC_RESERVE (linux/percpu.h).
_PERCPU_RESERVE: Final = (8 << 10) + (28 << 10)
# CONFIG_NR_CPUS is at most 8,192.
_MAX_CPUS: Final = 8192
_MAX_PERCPU: Final = 16 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Naming:
    """``percpu``: the page frame where each CPU's own area starts, of ``percpu_pages`` pages; none where nobody said."""

    regions: Regions
    percpu: tuple[int, ...] = ()
    percpu_pages: int = 0

    @classmethod
    def of(cls, regions: Regions, memory: Source, symbol: Callable[[str], int | None]) -> Self:
        """With the CPUs' areas, from the link addresses that ``symbol`` gives of a vmlinux (0 and None: not known)."""
        table, start, end = (symbol(name) for name in ("__per_cpu_offset", "__per_cpu_start", "__per_cpu_end"))
        if not table or start is None or end is None or not 0 < end - start < _MAX_PERCPU:
            return cls(regions)
        found = regions.physical(table - START_KERNEL_MAP + regions.image)
        if found is None:
            return cls(regions)
        try:
            offsets = np.frombuffer(memory.pread(found, 8 * min(_MAX_CPUS, (4096 - found % 4096) // 8)), "<u8")
        except FaultError:
            return cls(regions)
        # pcpu_embed_first_chunk: areas lie in the direct map; vmalloc'ed ones, of NUMA machines, are named as vmalloc. What
        # follows the last CPU's offset leads elsewhere.
        places = ((offsets + np.uint64(start)) - np.uint64(regions.direct)).tolist()
        own = takewhile(lambda place: place < memory.size and place % (1 << _PAGE) == 0, places)
        areas = tuple(dict.fromkeys(place >> _PAGE for place in own))
        return cls(regions, areas, (end - start + _PERCPU_RESERVE) >> _PAGE)

    def profile(self, frames: U64, etag: str) -> Profile:
        """One session's Profile: page frames by kind, and those without a name as of the dump ``etag``."""
        left = distinct(frames)
        # The CPUs' areas first: parts of them are mapped a second time, in cpu_entry_area and vmalloc.
        inside = [(left >= area) & (left < area + self.percpu_pages) for area in self.percpu]
        places = [left[own] - np.uint64(area) for own, area in zip(inside, self.percpu, strict=True)]
        kinds = {"percpu": Pages.of(_joined(places))}
        left = left[~np.logical_or.reduce([np.zeros(len(left), np.bool_), *inside])]
        for kind, base, mapped in self._kinds():
            vaddr = _vaddrs(mapped, left)
            kinds[kind] = Pages.of((vaddr[vaddr > 0] - np.uint64(base)) >> np.uint64(_PAGE))
            left = left[vaddr == 0]
        return Profile(1, kinds, {etag: Pages.of(left)})

    def frames(self, profile: Profile, etag: str) -> U64:
        """Where those pages are on this boot: page frames, ascending; what is not there is left out.

        Pages without a name are those of the dump ``etag``, else, as a guess of which half comes true, of the one read last.
        """
        unnamed = profile.dumps.get(etag) or next(reversed(list(profile.dumps.values())), None)
        found = [unnamed.number if unnamed else np.zeros(0, np.uint64)]
        for kind, base, mapped in self._kinds():
            found.append(_frames(mapped, np.uint64(base) + (profile.of(kind).number << np.uint64(_PAGE))))
        own = profile.of("percpu").number
        own = own[own < self.percpu_pages]
        return distinct(np.concatenate(found + [own + np.uint64(area) for area in self.percpu]))

    def _kinds(self) -> tuple[tuple[str, int, Mappings], ...]:
        where = self.regions
        return (
            ("image", where.image, where.within(where.image, START_KERNEL_MAP + _IMAGE_SIZE)),
            ("memmap", where.vmemmap, where.memmap),
            ("vmalloc", where.vmalloc, where.within(where.vmalloc, where.vmemmap)),
        )


def _joined(pages: list[U64]) -> U64:
    return np.concatenate([np.zeros(0, np.uint64), *pages])


def _vaddrs(mapped: Mappings, frames: U64) -> U64:
    """Where each page frame is mapped, 0 where it is not."""
    if not len(mapped):
        return np.zeros(len(frames), np.uint64)
    mapped = mapped[np.argsort(mapped["paddr"], kind="stable")]
    paddr = frames << np.uint64(_PAGE)
    row = mapped[np.maximum(np.searchsorted(mapped["paddr"], paddr, side="right"), 1) - 1]
    into = paddr - row["paddr"]
    vaddrs: U64 = np.where((paddr >= row["paddr"]) & (into < row["size"]), row["vaddr"] + into, np.uint64(0))
    return vaddrs


def _frames(mapped: Mappings, vaddr: U64) -> U64:
    """The page frames of those addresses that are mapped."""
    if not len(mapped):
        return np.zeros(0, np.uint64)
    row = mapped[np.maximum(np.searchsorted(mapped["vaddr"], vaddr, side="right"), 1) - 1]
    into = vaddr - row["vaddr"]
    there = (vaddr >= row["vaddr"]) & (into < row["size"])
    frames: U64 = (row["paddr"] + into)[there] >> np.uint64(_PAGE)
    return frames
