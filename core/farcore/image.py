"""An ELF core recomposed in the layout of /proc/vmcore, for tools that look nowhere else.

makedumpfile and the kernel take the program headers to follow the ELF header at once; QEMU puts section headers there
(e_phoff 192, e_ehsize 8). Composed as fs/proc/vmcore.c composes its file (merge_note_headers_elf64,
process_ptload_program_headers_elf64): [ELF header, program headers][one PT_NOTE with all notes][PT_LOADs], each part
starting on a page. Nothing of the memory is read or moved: the image is a Layout over the dump's own bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import numpy as np

from farcore.elf import EHDR_SIZE, PHDR_SIZE, PN_XNUM, PT_NOTE, SEGMENT, Ehdr, Elf, Segments, pack_count, pack_segments
from farcore.errors import BadDumpError
from farcore.layout import Layout
from farcore.runs import U64, Kind, paint
from farcore.source import Extent

# The composition below. It is part of every ETag, so that a new composition never meets an old cache.
VERSION: Final = 2
PAGE: Final = 4096


def normalised(elf: Elf, size: int, notes: Sequence[Extent]) -> Layout:
    """The image of a dump of ``size`` bytes whose notes lie at ``notes``; O(PT_LOADs). BadDumpError past its class's limit.

    What a truncated dump has lost is left out as p_filesz < p_memsz, so that a reader faults there; notes are cut short.
    """
    loads = elf.loads.copy()
    loads["memsz"] = np.maximum(loads["memsz"], loads["filesz"])
    loads["filesz"] = np.minimum(loads["filesz"], np.uint64(size) - np.minimum(loads["offset"], np.uint64(size)))
    notes = [Extent(offset, max(0, min(length, size - offset))) for offset, length in notes]
    notes_at = up(front(elf.header, 1 + len(loads)), PAGE)
    # An extent may end without its last note's padding, which must not shift the notes behind it.
    edges = list(accumulate((up(length, 4) for _, length in notes), initial=notes_at))
    notes_end, begin = edges[-1], up(edges[-1], PAGE)
    room = rooms(loads["paddr"], loads["filesz"])
    total = begin + sum(room.tolist())
    if total >= 1 << elf.header.bits:
        raise BadDumpError("the image would be larger than its ELF class can say; read the dump as it is", term="segments")
    page = np.uint64(begin) + np.concatenate([np.zeros(1, np.uint64), np.cumsum(room, dtype=np.uint64)])
    start = page[:-1] + loads["paddr"] % np.uint64(PAGE)
    segments = np.zeros(1 + len(loads), SEGMENT)
    segments[0] = (PT_NOTE, 0, notes_at, 0, 0, notes_end - notes_at, notes_end - notes_at, 0)
    segments[1:] = loads
    segments["offset"][1:] = start
    segments["align"] = 0
    head = headers(elf.header, segments).ljust(notes_at, b"\0")
    # The rest of a page is zero: one piece below all others.
    bounds = np.array([notes_at, total], np.uint64)
    offset, length = np.array(notes, np.uint64).reshape(-1, 2).T
    note_start = np.array(edges[:-1], np.uint64)
    runs = paint(
        np.concatenate([note_start, start, bounds[:1]]),
        np.concatenate([note_start + length, start + loads["filesz"], bounds[1:]]),
        np.concatenate([offset, loads["offset"], bounds[:1]]),
        np.repeat(np.array([Kind.DATA, Kind.ZERO], np.uint8), [len(notes) + len(loads), 1]),
    )
    return Layout("vmcore", total, runs, head)


def up(size: int, grain: int) -> int:
    """``size`` rounded up to a multiple of ``grain``."""
    return -(-size // grain) * grain


def front(header: Ehdr, count: int) -> int:
    """Bytes of ELF header, program headers and, under PN_XNUM, section header 0."""
    extra = len(pack_count(count, header)) if count >= PN_XNUM else 0
    return EHDR_SIZE[header.bits] + count * PHDR_SIZE[header.bits] + extra


def rooms(paddr: U64, filesz: U64) -> U64:
    """How many bytes of whole pages each PT_LOAD takes: uint64 (PT_LOADs,)."""
    page = np.uint64(PAGE)
    taken: U64 = (paddr % page + filesz + page - np.uint64(1)) // page * page
    return taken


def headers(own: Ehdr, segments: Segments) -> bytes:
    """ELF header, program headers, and section header 0 where the count needs it."""
    count = len(segments)
    return placed(own, count).pack() + pack_segments(segments, own) + (pack_count(count, own) if count >= PN_XNUM else b"")


def placed(own: Ehdr, count: int) -> Ehdr:
    """The header before ``count`` program headers, and section header 0 behind them where the count needs it."""
    extended = count >= PN_XNUM
    return dataclasses.replace(
        own,
        entry=0,
        phoff=EHDR_SIZE[own.bits],
        shoff=EHDR_SIZE[own.bits] + count * PHDR_SIZE[own.bits] if extended else 0,
        ehsize=EHDR_SIZE[own.bits],
        phentsize=PHDR_SIZE[own.bits],
        phnum=PN_XNUM if extended else count,
        shentsize=len(pack_count(count, own)) if extended else 0,
        shnum=1 if extended else 0,
        shstrndx=0,
    )
