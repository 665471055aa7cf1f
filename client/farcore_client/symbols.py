"""Symbols: the names and addresses of a vmlinux (ELF .symtab), found without reading the rest of its hundreds of megabytes.

pyelftools makes an object of each of the 120,000 entries, which takes seconds; here they are one array.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np

from farcore.arrays import Array
from farcore.elf import Ehdr
from farcore.errors import BadDumpError
from farcore.file import FileSource
from farcore.runs import U64, distinct
from farcore.source import Source

SHT_SYMTAB: Final = 2
_SHN_UNDEF: Final = 0
_STT_NAMED: Final = 2  # NOTYPE, OBJECT, FUNC: what the assembler and the compiler name, and neither sections nor files
# A kernel with everything built in has 20 MB of names and 400,000 symbols; the sizes are the file's own words.
MAX_TABLE: Final = 256 << 20
MAX_SECTIONS: Final = 1 << 16

_SECTION: Final = {
    64: (("name", "u4"), ("type", "u4"), ("flags", "u8"), ("addr", "u8"), ("offset", "u8"), ("size", "u8"), ("link", "u4")),
    32: (("name", "u4"), ("type", "u4"), ("flags", "u4"), ("addr", "u4"), ("offset", "u4"), ("size", "u4"), ("link", "u4")),
}
_SYMBOL: Final = {
    64: (("name", "u4"), ("info", "u1"), ("other", "u1"), ("shndx", "u2"), ("value", "u8"), ("size", "u8")),
    32: (("name", "u4"), ("value", "u4"), ("size", "u4"), ("info", "u1"), ("other", "u1"), ("shndx", "u2")),
}
Rows = Array[np.void]


@dataclass(frozen=True, slots=True, eq=False)
class Symbols:
    """The symbols of one vmlinux, at link addresses (KASLR is not in them). ``sections``: its section headers."""

    source: Source
    sections: Rows
    table: Rows
    names: bytes

    @classmethod
    def read(cls, source: Source) -> Self:
        """The .symtab; BadDumpError for a file that has none, or is no ELF file."""
        header = Ehdr.parse(bytes(source.pread(0, min(source.size, 64))))
        sections = _sections(source, header)
        tables = sections[sections["type"] == SHT_SYMTAB]
        if len(tables) == 0 or int(tables[0]["link"]) >= len(sections):
            raise BadDumpError("the vmlinux has no symbols: it is stripped", term="symtab")
        kind = _row(_SYMBOL[header.bits], header)
        raw = _content(source, tables[0])
        rows = np.frombuffer(raw, kind, count=len(raw) // kind.itemsize)
        chosen = (rows["shndx"] != _SHN_UNDEF) & (rows["info"] & 0xF <= _STT_NAMED)
        return cls(source, sections, rows[chosen], bytes(_content(source, sections[int(tables[0]["link"])])))

    def addresses(self, names: Iterable[str]) -> dict[str, int]:
        """The lowest address of each of the names that are there."""
        named, values = self.table["name"].copy(), self.table["value"]
        found: dict[str, int] = {}
        for name in names:
            # A linker lets one name end in another.
            rows = [np.flatnonzero(named == place) for place in self._places(name.encode() + b"\0")]
            if any(len(each) for each in rows):
                found[name] = int(values[np.concatenate(rows)].min())
        return found

    def _places(self, name: bytes) -> Iterator[int]:
        at = self.names.find(name)
        while at >= 0:
            yield at
            at = self.names.find(name, at + 1)

    def starts(self, low: int, high: int) -> U64:
        """Where symbols start in [low, high): ascending, each once."""
        values = self.table["value"].astype(np.uint64)
        return distinct(values[(values >= np.uint64(low)) & (values < np.uint64(high))])

    def content(self, address: int, length: int) -> bytes | None:
        """Up to ``length`` bytes that the file has for a link address; None where it has none (.bss, a debug-only file)."""
        sections = self.sections
        here = (sections["type"] == 1) & (sections["addr"] <= address) & (address - sections["addr"] < sections["size"])
        for row in sections[here & (sections["addr"] > 0)]:
            at = address - int(row["addr"])
            return bytes(self.source.pread(int(row["offset"]) + at, min(length, int(row["size"]) - at)))
        return None


def _sections(source: Source, header: Ehdr) -> Rows:
    kind = _row(_SECTION[header.bits], header, header.shentsize)
    count = header.shnum
    if not 0 < count <= MAX_SECTIONS or header.shoff + count * header.shentsize > source.size:
        raise BadDumpError("the vmlinux has no section headers: it is cut short, or no vmlinux", term="sections")
    return np.frombuffer(source.pread(header.shoff, count * header.shentsize), kind)


def _content(source: Source, section: np.void) -> memoryview:
    offset, size = int(section["offset"]), int(section["size"])
    if size > MAX_TABLE or offset + size > source.size:
        raise BadDumpError(f"the vmlinux's symbols ({size:,} bytes at {offset:,}) are cut short", term="symtab")
    return source.pread(offset, size)


def _row(fields: tuple[tuple[str, str], ...], header: Ehdr, size: int = 0) -> np.dtype[np.void]:
    order = "<" if header.data == "LE" else ">"
    row = np.dtype([(name, order + kind) for name, kind in fields])
    if not size:
        return row
    if size < row.itemsize:
        raise BadDumpError(f"section headers of {size} bytes cannot be read", term="sections")
    offsets = [row.fields[name][1] for name, _ in fields] if row.fields else []
    return np.dtype(
        {"names": list(row.names or ()), "formats": [order + kind for _, kind in fields], "offsets": offsets, "itemsize": size}
    )


def read(path: Path) -> Symbols:
    """The symbols of the vmlinux at ``path``; BadDumpError as Symbols.read, OSError where it cannot be opened."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return Symbols.read(FileSource(fd, os.fstat(fd).st_size))
