"""ELF vmcores as the recipe reads and writes them: header, notes, PT_LOADs. Not farcore's own reader, on purpose.

Written files have the layout of fs/proc/vmcore.c: program headers right behind the ELF header, PT_NOTE first and at
the next page, every PT_LOAD at a page, no section headers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

PAGE = 4096
PT_LOAD, PT_NOTE = 1, 4
ET_CORE = 4


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header: `filesz` bytes of the file at `offset` are memory at `paddr`."""

    kind: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    flags: int
    align: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """A class and a byte order of ELF: sizes and struct formats."""

    bits: int
    order: str

    @property
    def ehsize(self) -> int:
        return 64 if self.bits == 64 else 52

    @property
    def phentsize(self) -> int:
        return 56 if self.bits == 64 else 32

    def header(self) -> struct.Struct:
        """What follows e_ident."""
        return struct.Struct(self.order + ("HHIQQQIHHHHHH" if self.bits == 64 else "HHIIIIIHHHHHH"))

    def segment(self, raw: bytes) -> Segment:
        if self.bits == 64:
            kind, flags, offset, vaddr, paddr, filesz, memsz, align = struct.unpack(self.order + "IIQQQQQQ", raw)
        else:
            kind, offset, vaddr, paddr, filesz, memsz, flags, align = struct.unpack(self.order + "8I", raw)
        return Segment(kind, offset, vaddr, paddr, filesz, memsz, flags, align)

    def pack(self, s: Segment) -> bytes:
        if self.bits == 64:
            wide = (s.kind, s.flags, s.offset, s.vaddr, s.paddr, s.filesz, s.memsz, s.align)
            return struct.pack(self.order + "IIQQQQQQ", *wide)
        narrow = (s.kind, s.offset, s.vaddr, s.paddr, s.filesz, s.memsz, s.flags, s.align)
        return struct.pack(self.order + "8I", *narrow)


@dataclass(frozen=True, slots=True)
class Core:
    """An opened vmcore."""

    path: Path
    ident: bytes
    layout: Layout
    machine: int
    flags: int
    segments: tuple[Segment, ...]

    @property
    def loads(self) -> list[Segment]:
        return [s for s in self.segments if s.kind == PT_LOAD]

    def notes(self) -> bytes:
        """All notes, one PT_NOTE after the other."""
        return b"".join(self.read(s.offset, s.filesz) for s in self.segments if s.kind == PT_NOTE)

    def read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)


def read(path: Path) -> Core:
    """The headers of a vmcore of either class and byte order, wherever its program headers are."""
    with path.open("rb") as file:
        ident = file.read(16)
        layout = Layout(64 if ident[4] == 2 else 32, "<" if ident[5] == 1 else ">")
        fields = layout.header().unpack(file.read(layout.ehsize - 16))
        _, machine, _, _, phoff, _, flags, _, _, count, *_ = fields
        if ident[:4] != b"\x7fELF" or fields[0] != ET_CORE or count == 0xFFFF:
            raise SystemExit(f"{path}: not an ELF core of fewer than 65,535 program headers")
        file.seek(phoff)
        raw = [file.read(layout.phentsize) for _ in range(count)]
    return Core(path, ident, layout, machine, flags, tuple(map(layout.segment, raw)))


def vmcoreinfo(core: Core) -> dict[str, str]:
    """VMCOREINFO's lines KEY=VALUE; none if the dump has no such note."""
    notes, at = core.notes(), 0
    while at + 12 <= len(notes):
        namesz, descsz, _ = struct.unpack_from(core.layout.order + "III", notes, at)
        name, start = notes[at + 12 : at + 12 + namesz], at + 12 + -(-namesz // 4) * 4
        if name.rstrip(b"\0") == b"VMCOREINFO":
            text = notes[start : start + descsz].decode("ascii", "replace")
            return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        at = start + -(-descsz // 4) * 4
    return {}


def up(value: int) -> int:
    """`value`, or the next multiple of a page."""
    return -(-value // PAGE) * PAGE


def write(path: Path, source: Core, loads: Sequence[Segment], notes: bytes) -> None:
    """A vmcore of parts of `source`: `loads` tell, by their offset and filesz, which bytes of it."""
    layout, count = source.layout, 1 + len(loads)
    start = up(layout.ehsize + layout.phentsize * count)
    note = Segment(PT_NOTE, start, 0, 0, len(notes), len(notes), 0)
    placed = list(_place(loads, up(start + len(notes))))
    sizes = (layout.ehsize, layout.phentsize, count, 0, 0, 0)
    header = layout.header().pack(ET_CORE, source.machine, 1, 0, layout.ehsize, 0, source.flags, *sizes)
    with path.open("wb") as out:
        out.write(source.ident + header + b"".join(layout.pack(s) for s in (note, *placed)))
        out.seek(start)
        out.write(notes)
        for old, new in zip(loads, placed, strict=True):
            out.seek(new.offset)
            out.write(source.read(old.offset, old.filesz))
        out.truncate(up(out.tell()))


def _place(loads: Iterable[Segment], offset: int) -> Iterable[Segment]:
    """The same segments, one after the other, each at a page."""
    for load in loads:
        yield replace(load, offset=offset)
        offset = up(offset + load.filesz)
