"""Sparse: a dump as that of a machine with far more memory, all of it zeros: one PT_LOAD more, which is a hole of the file."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path
from typing import Final

# Elf64_Ehdr's e_phoff, e_phnum; Elf64_Phdr: p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align.
_PHOFF, _PHNUM = 32, 56
_EHDR: Final = 64
_PHDR: Final = struct.Struct("<IIQQQQQQ")
_LOAD: Final = 1
_GIB: Final = 1 << 30
# Where the content of the dump is moved to: room for the headers.
_ROOM: Final = 1 << 16


def sparse(dump: Path, made: Path, gib: int) -> None:
    """Write ``dump`` (ELF64, little-endian) as ``made``, with ``gib`` GiB of zeros above all of its memory."""
    with dump.open("rb") as source, made.open("wb") as out:
        header = bytearray(source.read(_EHDR))
        (phoff,), (phnum,) = struct.unpack_from("<Q", header, _PHOFF), struct.unpack_from("<H", header, _PHNUM)
        source.seek(phoff)
        rows = [_PHDR.unpack(source.read(_PHDR.size)) for _ in range(phnum)]
        loads = [row for row in rows if row[0] == _LOAD]
        top = -(-max(row[4] + row[6] for row in loads) // _GIB) * _GIB
        direct = max((row[3] - row[4] for row in loads if row[3] < 0xFFFF_FFFF_0000_0000), default=0)
        size = dump.stat().st_size
        rows = [(*row[:2], row[2] + _ROOM, *row[3:]) for row in rows]
        hole = -(-(size + _ROOM) // 4096) * 4096
        rows.append((_LOAD, 7, hole, top + direct if direct else 0, top, gib * _GIB, gib * _GIB, 0))
        struct.pack_into("<Q", header, _PHOFF, _EHDR)
        struct.pack_into("<H", header, _PHNUM, len(rows))
        out.write(header + b"".join(_PHDR.pack(*row) for row in rows))
        out.seek(_ROOM)
        source.seek(0)
        shutil.copyfileobj(source, out, 1 << 22)
        os.truncate(out.fileno(), hole + gib * _GIB)
