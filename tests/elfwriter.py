"""ELF files written with struct alone, right or wrong on purpose; knows nothing of farcore, so that it can be its oracle.

    Dump([note(("CORE", 1, b"...")), load(b"page", paddr=0x1000)], bits=32, data="BE").tobytes()

Layout: ELF header, section header 0 (only with PN_XNUM), program headers, gap, the segments' content in order, trailing bytes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

EHDR = {32: "HHIIIIIHHHHHH", 64: "HHIQQQIHHHHHH"}
PHDR = {32: "8I", 64: "2I6Q"}
SHDR = {32: "10I", 64: "2I4Q2I2Q"}
EHDR_SIZE = {32: 52, 64: 64}
PHDR_SIZE = {32: 32, 64: 56}
SHDR_SIZE = {32: 40, 64: 64}
PN_XNUM = 0xFFFF

Note = tuple[str, int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A program header and its bytes. ``offset`` also moves the bytes there; what is None follows from the rest."""

    type: int
    content: bytes = b""
    notes: tuple[Note, ...] = ()
    offset: int | None = None
    vaddr: int = 0
    paddr: int = 0
    filesz: int | None = None
    memsz: int | None = None
    flags: int = 0
    align: int = 0


def load(
    content: bytes = b"",
    *,
    paddr: int = 0,
    vaddr: int = 0,
    memsz: int | None = None,
    offset: int | None = None,
    filesz: int | None = None,
    flags: int = 7,
    align: int = 0,
) -> Segment:
    """A PT_LOAD. An ``offset`` or ``filesz`` that does not fit the content is written down as it stands."""
    return Segment(
        type=1, content=content, paddr=paddr, vaddr=vaddr, memsz=memsz, offset=offset, filesz=filesz, flags=flags, align=align
    )


def note(*notes: Note, offset: int | None = None, filesz: int | None = None) -> Segment:
    """A PT_NOTE of (name, type, desc) triples, padded to 4 bytes as the kernel writes them."""
    return Segment(type=4, notes=notes, offset=offset, filesz=filesz)


@dataclass(frozen=True, slots=True)
class Dump:
    """An ELF core file. ``header`` replaces fields by name (``{"e_ehsize": 8}``) and moves nothing; ``phoff`` moves."""

    segments: Sequence[Segment]
    bits: int = 64
    data: str = "LE"
    machine: int = 62
    header: Mapping[str, int] = field(default_factory=dict)
    phoff: int | None = None
    xnum: bool | None = None  # None: as the gABI has it, from 0xffff program headers on
    sh_info: int | None = None
    gap: int = 0
    trailing: bytes = b""
    size: int | None = None  # cuts the file, or makes it longer

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """The file as (position, bytes), holes left out, later pieces over earlier ones."""
        count, phoff, contents = len(self.segments), self._phoff(), [self._content(one) for one in self.segments]
        yield 0, self._ehdr()
        if self._extended():
            info = count if self.sh_info is None else self.sh_info
            yield EHDR_SIZE[self.bits], self._pack(SHDR[self.bits], 0, 0, 0, 0, 0, 0, 0, info, 0, 0)
        at = end = phoff + count * PHDR_SIZE[self.bits] + self.gap
        headers = []
        for segment, content in zip(self.segments, contents, strict=True):
            offset = at if segment.offset is None else segment.offset
            headers.append(self._phdr(segment, offset, len(content)))
            if content:
                yield offset, content
                end = max(end, offset + len(content))
            if segment.offset is None:
                at += len(content)
        yield phoff, b"".join(headers)
        yield end, self.trailing

    def tobytes(self) -> bytes:
        """The whole file."""
        content = bytearray()
        for at, piece in self.pieces():
            content.extend(bytes(max(0, at + len(piece) - len(content))))
            content[at : at + len(piece)] = piece
        if self.size is not None:
            content.extend(bytes(max(0, self.size - len(content))))
        return bytes(content[: self.size])

    def write(self, path: Path) -> Path:
        """The file at ``path``, with holes where nothing is written: terabytes cost nothing."""
        with path.open("wb", buffering=0) as file:
            for at, piece in self.pieces():
                os.pwrite(file.fileno(), piece, at)
            if self.size is not None:
                file.truncate(self.size)
        return path

    def _extended(self) -> bool:
        return len(self.segments) >= PN_XNUM if self.xnum is None else self.xnum

    def _phoff(self) -> int:
        behind = EHDR_SIZE[self.bits] + (SHDR_SIZE[self.bits] if self._extended() else 0)
        return behind if self.phoff is None else self.phoff

    def _pack(self, layout: str, *values: int) -> bytes:
        return struct.pack(("<" if self.data == "LE" else ">") + layout, *values)

    def _ehdr(self) -> bytes:
        """Fields by their names in elf.h, so that ``header`` can replace any."""
        extended = self._extended()
        fields = {
            "EI_CLASS": self.bits // 32,
            "EI_DATA": 1 if self.data == "LE" else 2,
            "EI_VERSION": 1,
            "EI_OSABI": 0,
            "e_type": 4,
            "e_machine": self.machine,
            "e_version": 1,
            "e_entry": 0,
            "e_phoff": self._phoff(),
            "e_shoff": EHDR_SIZE[self.bits] if extended else 0,
            "e_flags": 0,
            "e_ehsize": EHDR_SIZE[self.bits],
            "e_phentsize": PHDR_SIZE[self.bits],
            "e_phnum": PN_XNUM if extended else len(self.segments),
            "e_shentsize": SHDR_SIZE[self.bits] if extended else 0,
            "e_shnum": 1 if extended else 0,
            "e_shstrndx": 0,
        }
        unknown = self.header.keys() - fields.keys()
        if unknown:
            raise KeyError(f"not a field of an ELF header: {sorted(unknown)}")
        values = [*{**fields, **self.header}.values()]
        return b"\x7fELF" + bytes(values[:4]) + bytes(8) + self._pack(EHDR[self.bits], *values[4:])

    def _phdr(self, segment: Segment, offset: int, length: int) -> bytes:
        filesz = length if segment.filesz is None else segment.filesz
        memsz = filesz if segment.memsz is None else segment.memsz
        where = (offset, segment.vaddr, segment.paddr, filesz, memsz)
        if self.bits == 64:
            return self._pack(PHDR[64], segment.type, segment.flags, *where, segment.align)
        return self._pack(PHDR[32], segment.type, *where, segment.flags, segment.align)

    def _content(self, segment: Segment) -> bytes:
        return segment.content + b"".join(self._note(one) for one in segment.notes)

    def _note(self, triple: Note) -> bytes:
        name, kind, desc = triple
        text = name.encode() + b"\0" if name else b""
        return self._pack("3I", len(text), len(desc), kind) + _padded(text) + _padded(desc)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)
