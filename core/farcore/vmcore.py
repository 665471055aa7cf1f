"""VmcoreImage: physical memory of any stored form as one plain ELF core, composed as fs/proc/vmcore.c composes /proc/vmcore.

[ELF header, program headers][one PT_NOTE with all notes][PT_LOADs], each part from a page on; a PT_LOAD for each run of pages
that are there, and none for what was left out, so that a tool faults where it does on the dump itself. A run of the kernel's
own image has a second program header with the same bytes at the image's virtual address.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from farcore import notes
from farcore.diskdump import Diskdump
from farcore.elf import ET_CORE, MAX_PHNUM, PN_XNUM, PT_LOAD, PT_NOTE, SEGMENT, Bits, Data, Ehdr, Elf, Segments
from farcore.errors import BadDumpError
from farcore.image import PAGE, front, headers, rooms, up
from farcore.layout import Layout
from farcore.notes import MAX_BYTES, Notes
from farcore.runs import U64, Kind, Runs, paint
from farcore.source import BytesSource, Source

# Read, write, execute, as /proc/vmcore has it.
_FLAGS: Final = 7
_NOTE: Final[dict[Data, str]] = {"LE": "<3I", "BE": ">3I"}


@dataclass(frozen=True, slots=True)
class Linear:
    """Physical [start, stop) is mapped from virtual ``vaddr`` on; ``again`` where that is a second mapping, of the image."""

    start: int
    stop: int
    vaddr: int
    again: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class VmcoreImage:
    """The image: ``elf`` as its reader sees it, and ``layout`` over what ``runs`` were over."""

    elf: Elf
    layout: Layout


def header(machine: int, bits: Bits, data: Data) -> Ehdr:
    """The ELF header of a core of that machine, its sizes and counts still 0."""
    return Ehdr(bits, data, 1, ET_CORE, machine, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def compose(own: Ehdr, runs: Runs, raw_notes: bytes, linear: tuple[Linear, ...] = ()) -> VmcoreImage:
    """The image of physical memory ``runs``. BadDumpError (segments) for more PT_LOADs than any reader takes.

    A 32-bit image that would not fit its class is ELF64, as QEMU and kexec-tools write those of i386 with PAE.
    """
    loads, again = _loads(runs, linear)
    if 1 + len(loads) + len(again) > MAX_PHNUM:
        raise BadDumpError(
            f"the dump is in {len(loads):,} fragments, and an ELF core has {MAX_PHNUM:,} at most: read it with crash",
            term="segments",
        )
    count = 1 + len(loads) + len(again)
    highest = int((loads["paddr"] + loads["memsz"]).max(initial=0))
    needed = highest + int(loads["filesz"].sum()) + (count + 2 << 6) + len(raw_notes) + count * 2 * PAGE
    if own.bits == 32 and needed >= 1 << 32:
        own = header(own.machine, 64, own.data)
    notes_at = up(front(own, count), PAGE)
    begin = up(notes_at + len(raw_notes), PAGE)
    page = np.uint64(begin) + np.concatenate([np.zeros(1, np.uint64), np.cumsum(rooms(loads), dtype=np.uint64)])
    start = page[:-1] + loads["paddr"] % np.uint64(PAGE)
    total = int(page[-1])
    segments = np.zeros(count, SEGMENT)
    segments[0] = (PT_NOTE, 0, notes_at, 0, 0, len(raw_notes), len(raw_notes), 0)
    segments[1 : 1 + len(again)] = again
    segments[1 + len(again) :] = loads
    segments["offset"][1 + len(again) :] = start
    # The image's bytes are where the run has them.
    each = np.searchsorted(loads["paddr"], again["paddr"], side="right") - 1
    segments["offset"][1 : 1 + len(again)] = start[each] + (again["paddr"] - loads["paddr"][each])
    segments.flags.writeable = False
    head = headers(own, segments).ljust(notes_at, b"\0") + raw_notes
    bounds = np.array([notes_at + len(raw_notes), total], np.uint64)
    layout = paint(
        np.concatenate([start, bounds[:1]]),
        np.concatenate([start + loads["filesz"], bounds[1:]]),
        np.concatenate([loads["offset"], bounds[:1] * np.uint64(0)]),
        np.repeat(np.array([Kind.DATA, Kind.ZERO], np.uint8), [len(loads), 1]),
    )
    written = Ehdr.parse(head[:64])
    return VmcoreImage(Elf(written, segments), Layout("vmcore", max(total, len(head)), layout, head))


def _loads(runs: Runs, linear: tuple[Linear, ...]) -> tuple[Segments, Segments]:
    """PT_LOADs for all runs of data, ``offset`` still that of the source below, and those that describe some again."""
    data = runs.kind == Kind.DATA
    start, stop, offset = _cut(runs.start[data], runs.stop[data], runs.offset[data], linear)
    loads = np.zeros(len(start), SEGMENT)
    loads["type"], loads["flags"], loads["offset"] = PT_LOAD, _FLAGS, offset
    loads["paddr"] = loads["vaddr"] = start
    loads["filesz"] = loads["memsz"] = stop - start
    again = []
    for each in linear:
        inside = np.flatnonzero((loads["paddr"] >= np.uint64(each.start)) & (stop <= np.uint64(each.stop)))
        vaddr = loads["paddr"][inside] - np.uint64(each.start) + np.uint64(each.vaddr)
        if each.again:
            some = loads[inside].copy()
            some["vaddr"] = vaddr
            again.append(some)
        else:
            loads["vaddr"][inside] = vaddr
    return loads, np.concatenate(again) if again else np.empty(0, SEGMENT)


def _cut(start: U64, stop: U64, offset: U64, linear: tuple[Linear, ...]) -> tuple[U64, U64, U64]:
    """The same runs, cut where a mapping begins or ends."""
    for edge in sorted({np.uint64(edge) for each in linear for edge in (each.start, each.stop)}):
        i = int(np.searchsorted(stop, edge, side="right"))
        if i < len(start) and start[i] < edge:
            offset = np.insert(offset, i + 1, offset[i] + (edge - start[i]))
            start, stop = np.insert(start, i + 1, edge), np.insert(stop, i, edge)
    return start, stop, offset


def note(name: str, kind: int, desc: bytes, data: Data) -> bytes:
    """One note, padded to 4 bytes."""
    owner = name.encode() + b"\0"
    head = struct.pack(_NOTE[data], len(owner), len(desc), kind)
    return head + owner.ljust(up(len(owner), 4), b"\0") + desc.ljust(up(len(desc), 4), b"\0")


def notes_of(below: Source, written: Diskdump) -> bytes:
    """A kdump-compressed dump's notes as one PT_NOTE; what it has of VMCOREINFO and of erased symbols beside them is added."""
    found = bytes(below.pread(*written.notes))[:MAX_BYTES] if written.notes else b""
    found = found.ljust(up(len(found), 4), b"\0")
    for extent, name in ((written.vmcoreinfo, "VMCOREINFO"), (written.eraseinfo, "ERASEINFO")):
        if extent is not None and name.encode() + b"\0" not in found:
            found += note(name, 0, bytes(below.pread(extent.offset, min(extent.length, MAX_BYTES))), written.data)
    return found


def read_notes(raw: bytes, own: Ehdr) -> Notes:
    """The notes in one PT_NOTE of a core with that header."""
    segments = np.zeros(1, SEGMENT)
    segments["type"], segments["filesz"] = PT_NOTE, len(raw)
    return notes.read(BytesSource(raw), Elf(own, segments))


def too_many(elf: Elf) -> str | None:
    """A sentence where crash and makedumpfile will not read the image: their count of program headers has 16 bits."""
    if len(elf.segments) < PN_XNUM:
        return None
    return (
        f"the dump is in {len(elf.loads):,} fragments, more than crash and makedumpfile take in an ELF core: "
        "they read it as it is stored"
    )
