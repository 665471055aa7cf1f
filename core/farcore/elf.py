"""ELF core files as a dump has them: the header, and program headers as one structured array.

Either class, either byte order, any e_phoff, and PN_XNUM (ELF gABI: e_phnum 0xffff, the count in section header 0's
sh_info). Opening costs O(program headers): 70,000 of them are a few milliseconds and 4 MiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from farcore.arrays import Array
from farcore.errors import BadDumpError, FaultError
from farcore.source import Source

Data = Literal["LE", "BE"]
Bits = Literal[32, 64]

MAGIC: Final = b"\x7fELF"
ET_CORE: Final = 4
PT_LOAD: Final = 1
PT_NOTE: Final = 4
PN_XNUM: Final = 0xFFFF

EHDR_SIZE: Final[dict[int, int]] = {32: 52, 64: 64}
PHDR_SIZE: Final[dict[int, int]] = {32: 32, 64: 56}

# The count is the file's own word: four times the most that QEMU was seen to write (66,127), 15 MB read, no harm from a lie.
MAX_PHNUM: Final = 1 << 18
# Of a core in more of them, which farcore itself composes: where the kernel's image is mapped comes first. 900 KB.
FEW: Final = 1 << 14

# Elf.segments: every field widened to 64 bits in the host's byte order.
SEGMENT: Final = np.dtype(
    [
        ("type", "u4"),
        ("flags", "u4"),
        ("offset", "u8"),
        ("vaddr", "u8"),
        ("paddr", "u8"),
        ("filesz", "u8"),
        ("memsz", "u8"),
        ("align", "u8"),
    ]
)
Segments = Array[np.void]

_ORDER: Final[dict[Data, Literal["<", ">"]]] = {"LE": "<", "BE": ">"}
_EHDR_FIELDS: Final = (
    ("type", "u2"),
    ("machine", "u2"),
    ("version", "u4"),
    ("entry", "uN"),
    ("phoff", "uN"),
    ("shoff", "uN"),
    ("flags", "u4"),
    ("ehsize", "u2"),
    ("phentsize", "u2"),
    ("phnum", "u2"),
    ("shentsize", "u2"),
    ("shnum", "u2"),
    ("shstrndx", "u2"),
)
_PHDR64: Final = ("type", "flags", "offset", "vaddr", "paddr", "filesz", "memsz", "align")
_PHDR32: Final = ("type", "offset", "vaddr", "paddr", "filesz", "memsz", "flags", "align")


def _layout(fields: tuple[tuple[str, str], ...], bits: int, data: Data) -> np.dtype[np.void]:
    word = f"u{bits // 8}"
    return np.dtype([(name, _ORDER[data] + kind.replace("uN", word)) for name, kind in fields])


def _phdr(bits: int, data: Data) -> np.dtype[np.void]:
    names = _PHDR64 if bits == 64 else _PHDR32
    return _layout(tuple((name, "u4" if name in ("type", "flags") else "uN") for name in names), bits, data)


@dataclass(frozen=True, slots=True)
class Ehdr:
    """An ELF header's fields, read in the byte order ``data`` (which need not be the file's own)."""

    bits: Bits
    data: Data
    ident_version: int
    type: int
    machine: int
    version: int
    entry: int
    phoff: int
    shoff: int
    flags: int
    ehsize: int
    phentsize: int
    phnum: int
    shentsize: int
    shnum: int
    shstrndx: int

    @classmethod
    def parse(cls, raw: bytes, data: Data | None = None) -> Ehdr:
        """The header that ``raw`` starts with, in its own byte order unless told another; BadDumpError (magic, class)."""
        if raw[:4] != MAGIC:
            raise BadDumpError(f"not an ELF file: it starts with {raw[:4].hex() or 'nothing'}", term="magic")
        if len(raw) < 16 or raw[4] not in (1, 2):
            raise BadDumpError("the ELF class is neither 32 nor 64 bits", term="class")
        bits: Bits = 64 if raw[4] == 2 else 32
        if len(raw) < EHDR_SIZE[bits]:
            raise BadDumpError(f"the ELF header is cut off: {len(raw)} of {EHDR_SIZE[bits]} bytes", term="magic")
        own: Data = "BE" if raw[5] == 2 else "LE"
        fields = np.frombuffer(raw, _layout(_EHDR_FIELDS, bits, data or own), count=1, offset=16)[0]
        return cls(bits, data or own, raw[6], *(int(value) for value in fields.item()))

    def pack(self) -> bytes:
        """The header as a file has it: 64 or 52 bytes."""
        fields = np.zeros(1, _layout(_EHDR_FIELDS, self.bits, self.data))
        for name, _ in _EHDR_FIELDS:
            fields[name] = getattr(self, name)
        ident = MAGIC + bytes([2 if self.bits == 64 else 1, 2 if self.data == "BE" else 1, self.ident_version])
        return ident.ljust(16, b"\0") + fields.tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class Elf:
    """An ELF core: its header, and ``segments``, an array of SEGMENT, one entry a program header, in file order.

    Of one that was composed in more fragments than a description lists, ``unlisted`` PT_LOADs behind them are left out.
    """

    header: Ehdr
    segments: Segments
    unlisted: int = 0

    @property
    def count(self) -> int:
        """How many program headers there are, listed or not."""
        return len(self.segments) + self.unlisted

    @property
    def loads(self) -> Segments:
        """The PT_LOADs, in file order."""
        return _of_type(self.segments, PT_LOAD)

    @property
    def notes(self) -> Segments:
        """The PT_NOTEs, in file order."""
        return _of_type(self.segments, PT_NOTE)

    @classmethod
    def open(cls, source: Source) -> Elf:
        """Header and program headers, whole; BadDumpError where they cannot be followed, FaultError where the storage fails."""
        return cls._demand(source, None)

    @classmethod
    def first(cls, source: Source) -> Elf:
        """As open; of more than MAX_PHNUM program headers the first FEW, the others ``unlisted``: for who can do without."""
        return cls._demand(source, FEW)

    @classmethod
    def _demand(cls, source: Source, few: int | None) -> Elf:
        try:
            return cls._read(source, few)
        except FaultError as error:
            if error.kind == "unreadable":
                raise  # the storage fails, which says nothing of the dump and may end
            raise BadDumpError(f"the ELF headers cannot be read: {error}", term="phnum") from error

    @classmethod
    def glance(cls, start: bytes) -> Elf:
        """The header, and those program headers that the first bytes of a file have whole; BadDumpError."""
        header = Ehdr.parse(start)
        size = PHDR_SIZE[header.bits]
        if header.phentsize != size:
            raise BadDumpError(
                f"program headers of {header.phentsize} bytes cannot be read (expected {size})", term="phentsize"
            )
        count = min(header.phnum, max(0, len(start) - header.phoff) // size)
        return cls(header, _parsed(memoryview(start)[header.phoff :][: count * size], header))

    @classmethod
    def _read(cls, source: Source, few: int | None) -> Elf:
        header = Ehdr.parse(bytes(source.pread(0, min(source.size, 64))))
        size = PHDR_SIZE[header.bits]
        if header.phentsize != size:
            raise BadDumpError(
                f"program headers of {header.phentsize} bytes cannot be read (expected {size})", term="phentsize"
            )
        count = _count(source, header)
        if count > MAX_PHNUM and few is None:
            raise BadDumpError(
                f"{count:,} program headers are more than the {MAX_PHNUM:,} that are read: serve the compressed dump instead",
                term="phnum",
            )
        if header.phoff + count * size > source.size:
            raise BadDumpError(
                f"{count:,} program headers at byte {header.phoff:,} do not fit a file of {source.size:,} bytes", term="phnum"
            )
        listed = few if few is not None and count > MAX_PHNUM else count
        return cls(header, _parsed(source.pread(header.phoff, listed * size), header), count - listed)


def _parsed(content: memoryview, header: Ehdr) -> Segments:
    raw = np.frombuffer(content, _phdr(header.bits, header.data))
    segments = np.empty(len(raw), SEGMENT)
    for name in SEGMENT.names or ():
        segments[name] = raw[name]
    _refuse_wraps(segments)
    segments.flags.writeable = False
    return segments


def pack_segments(segments: Segments, header: Ehdr) -> bytes:
    """Program headers as a file of this class and byte order has them."""
    raw = np.zeros(len(segments), _phdr(header.bits, header.data))
    for name in SEGMENT.names or ():
        raw[name] = segments[name]
    return raw.tobytes()


def pack_count(count: int, header: Ehdr) -> bytes:
    """Section header 0 under PN_XNUM: all zero but sh_info, the count of program headers."""
    size, at = (64, 44) if header.bits == 64 else (40, 28)
    return bytes(at) + count.to_bytes(4, "little" if header.data == "LE" else "big") + bytes(size - at - 4)


def _of_type(segments: Segments, kind: int) -> Segments:
    chosen: Segments = segments[segments["type"] == kind]
    return chosen


def _count(source: Source, header: Ehdr) -> int:
    """e_phnum, or section header 0's sh_info under PN_XNUM; 0xffff stands for itself where no other count is given."""
    at = header.shoff + (44 if header.bits == 64 else 28)
    if header.phnum != PN_XNUM or header.shoff == 0:
        return header.phnum
    if at + 4 > source.size:
        raise BadDumpError("e_phnum is PN_XNUM but section header 0, which has the count, is past the end", term="phnum")
    return int.from_bytes(source.pread(at, 4), "little" if header.data == "LE" else "big") or PN_XNUM


def _refuse_wraps(segments: Segments) -> None:
    """BadDumpError where p_offset + p_filesz wraps 2^64: no file has such bytes, and every sum after it would lie."""
    wraps = np.flatnonzero(segments["offset"] + segments["filesz"] < segments["offset"])
    if len(wraps):
        first = int(wraps[0])
        raise BadDumpError(f"program header {first}: p_offset + p_filesz wraps 2^64", term="segments")
