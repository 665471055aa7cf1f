"""Warm-up: what every session on a Linux kernel reads first, found from VMCOREINFO alone and brought before it is asked for.

A debugger loads symbols for seconds before it reads a dump in earnest, and then misses page after page, each a round trip.
Meanwhile: page tables, _sdata.._end, the struct pages, per-CPU areas, the CPUs' stacks; in two compressed batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from itertools import pairwise
from typing import Final, Literal

import numpy as np

from farcore.errors import FaultError
from farcore.pagetable import START_KERNEL_MAP, Mappings
from farcore.regions import Regions
from farcore.runs import U64
from farcore.source import Extent, Source
from farcore.vmcoreinfo import Vmcoreinfo
from farcore_client.aside import aside
from farcore_client.remote import RemoteDump, through
from farcore_client.target import Target

# Symbols of VMCOREINFO (kernel/vmcore_info.c, arch/x86/kernel/vmcore_info_64.c) that lie in .data or .bss.
_IN_DATA: Final = ("init_uts_ns", "swapper_pg_dir", "init_top_pgt", "node_online_map", "vmap_area_list", "prb", "log_buf")
# .data begins on a large page of its own (arch/x86/kernel/vmlinux.lds.S, X86_ALIGN_RODATA_END).
_LARGE: Final = 2 << 20
_IMAGE_SIZE: Final = 1 << 30
# Bytes before compression, of which most are zeros and repeat: 48 MiB of struct pages are those of 3 GiB, and 2 MB of zstd.
MOST_MEMMAP: Final = 48 << 20
MOST_DATA: Final = 64 << 20
MOST_PERCPU: Final = 32 << 20
# Stacks of all tasks, for the most part: 16 KiB each, nearly all of it zeros.
MOST_VMALLOC: Final = 8 << 20
# What is constant after boot (__ro_after_init) follows kallsyms in .rodata: 850 KiB behind its last table in Debian's 6.1.
_AFTER_KALLSYMS: Final = 1280 << 10
# A CPU's static variables and what is allocated behind them first: 220 KiB of Debian's 6.1.
_PERCPU: Final = 256 << 10
# Areas lie this far apart at most (pcpu_embed_first_chunk fills large pages).
_MOST_STRIDE: Final = 4 << 20
# THREAD_SIZE of x86_64 (16 KiB; 32 with KASAN): from the stack pointer up to the end is what is in use.
_STACK: Final = 16 << 10


def warm(remote: RemoteDump, *, space: Literal["physical", "vmcore"] = "physical") -> Future[list[Extent]]:
    """Start to bring what a session reads first, in a thread of its own; the result is what was asked for, by address.

    ``space``: through which the tool reads; a mount's is vmcore (for an ELF the two are one). Nothing for kernels that are
    not known here (x86_64 is). What is read is right without it: errors show in reads.
    """
    return aside(lambda: _bring(remote, space))


def _bring(remote: RemoteDump, space: Literal["physical", "vmcore"]) -> list[Extent]:
    target = remote.target() if space == "physical" else remote.target_of_vmcore()
    known = target.vmcoreinfo
    regions = Regions.of(target.physical, target.elf.header, known) if known else None
    return [] if regions is None else bring(remote, space, target, regions)


def bring(remote: RemoteDump, space: Literal["physical", "vmcore"], target: Target, regions: Regions) -> list[Extent]:
    """What ``warm`` does, in this thread, for a target whose regions are known."""
    known = target.vmcoreinfo
    if known is None:
        return []
    constant, data = constants(regions, known), image_data(regions, target)
    first = [*constant, *data, *memmap(regions), *stacks(regions, target), *vmalloc(regions)]
    remote.prefetch(space, _at(first, target, space)).result()
    areas = percpu([*constant, *data], target.physical, regions, len(target.cpus))
    remote.prefetch(space, _at(areas, target, space)).result()
    return [*first, *areas]


def _at(extents: list[Extent], target: Target, space: str) -> list[Extent]:
    return through(target.elf, target.vmcore.size, extents) if space == "vmcore" else extents


def constants(regions: Regions, known: Vmcoreinfo) -> list[Extent]:
    """Where page_offset_base, __per_cpu_offset and the like lie, which every session starts with: behind kallsyms (6.0)."""
    start = known.symbol("kallsyms_token_index")
    if start is None or start < regions.image:
        return []
    found = (regions.physical(page) for page in range(start & -4096, start + _AFTER_KALLSYMS, 4096))
    return _joined(Extent(paddr, 4096) for paddr in found if paddr is not None)


def text(regions: Regions, known: Vmcoreinfo) -> list[Extent]:
    """Where the kernel's text and .rodata lie: what is in front of image_data()."""
    image = regions.within(regions.image, START_KERNEL_MAP + _IMAGE_SIZE)
    data = _data(regions, known)
    return [] if data is None else _cut(image[image["vaddr"] < data], MOST_DATA)


def _data(regions: Regions, known: Vmcoreinfo) -> int | None:
    """The address of the large page with the first symbol that is known to be in .data."""
    named = (known.symbol(name) for name in _IN_DATA)
    symbols = [address for address in named if address and address >= regions.image]
    return min(symbols) // _LARGE * _LARGE if symbols else None


def image_data(regions: Regions, target: Target) -> list[Extent]:
    """Where the kernel's .data and .bss lie: from the large page with the first symbol that is known to be there, to _end."""
    known = target.vmcoreinfo
    image = regions.within(regions.image, START_KERNEL_MAP + _IMAGE_SIZE)
    data = _data(regions, known) if known else None
    if data is None or not len(image):
        return []
    found = _cut(image[image["vaddr"] >= data], MOST_DATA)
    # kexec describes the image by a PT_LOAD of its own, which ends at _end: what the last large page has behind it is others'.
    loads = target.elf.loads
    own = loads[(loads["vaddr"] >= regions.image) & (loads["vaddr"] < START_KERNEL_MAP + _IMAGE_SIZE)]
    end = int((own["paddr"] + own["memsz"]).max()) if len(own) else target.physical.size
    return [Extent(start, min(length, end - start)) for start, length in found if start < end]


def memmap(regions: Regions) -> list[Extent]:
    """Where the struct pages lie, those of low addresses first."""
    return _cut(regions.memmap, MOST_MEMMAP)


def vmalloc(regions: Regions) -> list[Extent]:
    """What is mapped lowest in vmalloc."""
    return _cut(regions.within(regions.vmalloc, regions.vmemmap), MOST_VMALLOC)


def stacks(regions: Regions, target: Target) -> list[Extent]:
    """The stacks that the CPUs were on, as far as they are mapped in vmalloc (CONFIG_VMAP_STACK)."""
    tops = [status.registers.get("rsp", 0) & -_STACK for status in target.cpus if status]
    found = (regions.physical(page) for top in tops for page in range(top, top + _STACK, 4096))
    return _joined(Extent(paddr, 4096) for paddr in found if paddr is not None)


def percpu(data: Sequence[Extent], physical: Source, regions: Regions, cpus: int) -> list[Extent]:
    """The CPUs' own areas, found by what __per_cpu_offset looks like in the image's data; none where nothing does.

    An array of direct-map addresses, one a CPU that is possible, then, up to NR_CPUS, the one address of the image that it
    was initialised with (arch/x86/kernel/setup_percpu.c).
    """
    for content in _contents(data, physical):
        words = np.frombuffer(content, "<u8")
        place = words - np.uint64(regions.direct)
        area = (place < np.uint64(physical.size)) & (place & np.uint64(4095) == 0)
        image = (words >= np.uint64(regions.image)) & (words & np.uint64(4095) == 0)
        for start, stop in _runs(area):
            rest = words[stop : stop + 2]
            if stop - start >= max(cpus, 1) and len(rest) == 2 and image[stop] and rest[0] == rest[1]:
                return _areas(place[start:stop], cpus)
    return []


def _areas(place: U64, cpus: int) -> list[Extent]:
    # Pointers to pages may stand in front of the array: it is the last of them that lie evenly.
    steps = np.diff(place)
    uneven = np.flatnonzero((steps == 0) | (steps > _MOST_STRIDE))
    own = place[int(uneven[-1]) + 1 if len(uneven) else 0 :].tolist()
    if len(own) < cpus:
        return []
    size = min([_PERCPU, *(after - before for before, after in pairwise(own))])
    return [Extent(start, size) for start in own[: MOST_PERCPU // size]]


def _runs(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Iterator[tuple[int, int]]:
    """The stretches [start, stop) that are true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _contents(data: Sequence[Extent], physical: Source) -> Iterator[memoryview]:
    for extent in data:
        try:
            yield physical.pread(*extent)
        except FaultError:
            continue


def _cut(mapped: Mappings, most: int) -> list[Extent]:
    """The physical extents of these mappings, up to the one in which ``most`` bytes are reached."""
    enough = int(np.searchsorted(np.cumsum(mapped["size"]), np.uint64(most)))
    return _joined(Extent(paddr, size) for _, paddr, size in mapped[: enough + 1].tolist())


def _joined(extents: Iterable[Extent]) -> list[Extent]:
    """Neighbours as one."""
    found: list[Extent] = []
    for paddr, size in extents:
        if found and sum(found[-1]) == paddr:
            found[-1] = Extent(found[-1].offset, found[-1].length + size)
        else:
            found.append(Extent(paddr, size))
    return found
