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
from farcore.coreheaders import Headers, Linear, Loads
from farcore.diskdump import Diskdump
from farcore.elf import ET_CORE, PN_XNUM, PT_NOTE, SEGMENT, Bits, Data, Ehdr, Elf
from farcore.image import PAGE, front, rooms, up
from farcore.layout import Layout
from farcore.notes import MAX_BYTES, Notes
from farcore.runs import U64, Kind, Runs, join
from farcore.source import BytesSource, Source

__all__ = ["LISTED", "Linear", "VmcoreImage", "compose", "header", "note", "notes_of", "read_notes", "too_many"]

_NOTE: Final[dict[Data, str]] = {"LE": "<3I", "BE": ">3I"}
# Program headers of an image that are kept at hand, for descriptions (3.5 MB of JSON) and virtual addresses; the image has all.
LISTED: Final = 1 << 14


@dataclass(frozen=True, slots=True, eq=False)
class VmcoreImage:
    """The image: ``elf`` as its reader sees it, its ``headers``, and the ``body`` behind them, over what ``runs`` were over."""

    elf: Elf
    headers: Headers
    body: Runs
    size: int

    @property
    def layout(self) -> Layout:
        """The image, with its headers in memory: of one in few fragments."""
        return Layout("vmcore", self.size, self.body, bytes(self.headers.pread(0, self.headers.size)))

    def beside(self, at: int) -> Layout:
        """The image, over a source that has the headers too, at ``at``."""
        front, body = np.array([0, self.headers.size, at], np.uint64), self.body
        start, stop, offset = (
            np.concatenate([front[i : i + 1], each]) for i, each in enumerate((body.start, body.stop, body.offset))
        )
        return Layout("vmcore", self.size, Runs(start, stop, offset, np.append(np.uint8(Kind.DATA), body.kind)))


def header(machine: int, bits: Bits, data: Data) -> Ehdr:
    """The ELF header of a core of that machine, its sizes and counts still 0."""
    return Ehdr(bits, data, 1, ET_CORE, machine, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def compose(own: Ehdr, runs: Runs, raw_notes: bytes, linear: tuple[Linear, ...] = ()) -> VmcoreImage:
    """The image of physical memory ``runs``.

    A 32-bit image that would not fit its class is ELF64, as QEMU and kexec-tools write those of i386 with PAE.
    """
    runs = _cut(runs, linear)
    where = np.flatnonzero(runs.kind == Kind.DATA).astype(np.uint32)
    loads = Loads(runs, where, np.zeros(len(where), np.uint64), linear)
    images = [each for each in linear if each.again]
    count = 1 + sum(len(loads.again(each)) for each in images) + len(where)
    start, stop = runs.start[where], runs.stop[where]
    room = rooms(start, stop - start)
    needed = int(stop.max(initial=0)) + int(room.sum()) + (count + 2 << 6) + len(raw_notes) + 2 * PAGE
    if own.bits == 32 and needed >= 1 << 32:
        own = header(own.machine, 64, own.data)
    notes_at = up(front(own, count), PAGE)
    begin = up(notes_at + len(raw_notes), PAGE)
    # An offset and its address are at the same place of a page.
    loads.offset[:] = np.uint64(begin) + np.cumsum(room, dtype=np.uint64) - room + start % np.uint64(PAGE)
    few = np.zeros(1, SEGMENT)
    few[0] = (PT_NOTE, 0, notes_at, 0, 0, len(raw_notes), len(raw_notes), 0)
    # The image's bytes are where the run has them.
    few = np.concatenate([few, *map(loads.again, images)])
    headers = Headers(own, few, loads, notes_at, raw_notes)
    size = max(headers.size, begin + int(room.sum()))
    listed = np.concatenate([few, loads.rows(0, max(0, LISTED - len(few)))])
    listed.flags.writeable = False
    elf = Elf(headers.header, listed, count - len(listed))
    return VmcoreImage(elf, headers, _body(loads, stop - start, headers.size, size), size)


def _body(loads: Loads, length: U64, begin: int, size: int) -> Runs:
    """The PT_LOADs' bytes by where they stand, and zeros between them."""
    kind = np.zeros(len(loads), np.uint8)
    # Pages that follow each other below are one run, of however many PT_LOADs.
    held = join(loads.offset, loads.offset + length, loads.runs.offset[loads.where], kind)
    edges = np.append(np.uint64(begin), held.stop), np.append(held.start, np.uint64(size))
    gaps = np.flatnonzero(edges[0] < edges[1])
    start = np.concatenate([held.start, edges[0][gaps]])
    order = np.argsort(start, kind="stable")
    return Runs(
        start[order],
        np.concatenate([held.stop, edges[1][gaps]])[order],
        np.concatenate([held.offset, np.zeros(len(gaps), np.uint64)])[order],
        np.concatenate([held.kind, np.full(len(gaps), Kind.ZERO, np.uint8)])[order],
    )


def _cut(runs: Runs, linear: tuple[Linear, ...]) -> Runs:
    """The same runs, cut where a mapping begins or ends within one."""
    for edge in sorted({np.uint64(edge) for each in linear if not each.again for edge in (each.start, each.stop)}):
        i = int(np.searchsorted(runs.stop, edge, side="right"))
        if i < len(runs) and runs.start[i] < edge:
            moved = runs.offset[i] + (edge - runs.start[i])
            runs = Runs(
                np.insert(runs.start, i + 1, edge),
                np.insert(runs.stop, i, edge),
                np.insert(runs.offset, i + 1, moved),
                np.insert(runs.kind, i + 1, runs.kind[i]),
            )
    return runs


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
    if elf.count < PN_XNUM:
        return None
    return (
        f"the dump is in {len(elf.loads) + elf.unlisted:,} fragments, more than crash and makedumpfile take in an ELF core: "
        "they read it as it is stored"
    )
