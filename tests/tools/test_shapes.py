"""Kdump-compressed files of every shape that drgn (libkdumpfile) reads, page for page, what is not there included.

Word sizes, byte orders, block sizes, header versions and codecs; those that drgn does not read (32-bit PowerPC, header versions
1, 2 and 4 as the standard has them) are held against what was written alone, in tests/core/test_kdump.py.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from farcore.errors import FaultError
from farcore.file import FileSource
from farcore.kdump import Kdump
from tests.kdumpwriter import ORDER
from tests.kdumpwriter import Kdump as File
from tests.requires import requires

INFO = """OSRELEASE=6.1.0
PAGESIZE={block}
SYMBOL(init_uts_ns)=ffffffff81000000
SYMBOL(swapper_pg_dir)=ffffffff81001000
SYMBOL(_stext)=ffffffff81000000
NUMBER(VA_BITS)=48
NUMBER(PHYS_OFFSET)=0x0
NUMBER(kimage_voffset)=0xffff800000000000
NUMBER(phys_base)=0
KERNELOFFSET=0
"""
FRAMES = (0, 1, 2, 3, 4, 9, 40, 41)
EXCLUDED = {5, 42}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a file is like."""

    machine: str = "x86_64"
    bits: int = 64
    data: str = "LE"
    block: int = 4096
    compress: str = "lzo"
    version: int = 6

    def __str__(self) -> str:
        return f"{self.machine}-{self.data}-{self.block}-{self.compress}-{self.version}"

    def file(self) -> File:
        """The file."""
        info = INFO.format(block=self.block).encode()
        note = (
            struct.pack(ORDER[self.data] + "3I", 11, len(info), 0)
            + b"VMCOREINFO\0\0"
            + info.ljust(-(-len(info) // 4) * 4, b"\0")
        )
        return File(
            pages={frame: page(frame, self.block) for frame in FRAMES},
            excluded=EXCLUDED,
            version=self.version,
            bits=self.bits,
            data=self.data,
            machine=self.machine,
            block=self.block,
            compress=self.compress,
            vmcoreinfo=info,
            notes=note,
            eraseinfo=b"erase nothing\n",
            # libkdumpfile would take what stands by default here for a 32-bit file's block size.
            microseconds=5,
        )


def page(number: int, size: int) -> bytes:
    """A page like no other; every fifth is zeros."""
    return bytes(size) if number % 5 == 4 else random.Random(number).randbytes(size // 2) + bytes([number]) * (size // 2)


CODECS = [
    Shape(compress=compress, version=version) for compress in ("raw", "zlib", "lzo", "snappy", "zstd") for version in (3, 5, 6)
]
MACHINES = [Shape("i686", 32), Shape("armv7l", 32), Shape("aarch64"), Shape()]
SHAPES = [
    *CODECS,
    *(replace(shape, block=block, compress="zlib") for shape in MACHINES for block in (4096, 16384, 65536)),
    *(Shape("ppc64", data="BE", block=65536, compress=compress) for compress in ("zlib", "lzo", "zstd")),
    Shape("ppc64le", block=65536),
]

DRGN = """
import hashlib, json, sys
from drgn import FaultError, Program
found = {}
for name, (path, block) in json.load(sys.stdin).items():
    program = Program()
    program.set_core_dump(path)
    found[name] = []
    for frame in range(45):
        try:
            found[name].append(hashlib.sha256(program.read(frame * block, block, True)).hexdigest())
        except FaultError:
            found[name].append(None)
print(json.dumps(found))
"""


def drgn(files: dict[Shape, Path]) -> dict[str, list[str | None]]:
    """A digest of each page of each file as drgn reads it, None where it does not."""
    asked = {str(shape): (str(path), shape.block) for shape, path in files.items()}
    done = subprocess.run([sys.executable, "-c", DRGN], input=json.dumps(asked), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str | None]] = json.loads(done.stdout)
    return found


def farcore(shape: Shape, path: Path) -> list[str | None]:
    """The same of one file as farcore reads it."""
    found: list[str | None] = []
    with path.open("rb") as file:
        memory = Kdump.open([FileSource(file.fileno(), path.stat().st_size)]).memory()
        for frame in range(45):
            try:
                found.append(hashlib.sha256(memory.pread(frame * shape.block, shape.block)).hexdigest())
            except FaultError:
                found.append(None)
    return found


@requires("drgn")
def test_a_file_of_any_shape_is_read_as_drgn_reads_it(tmp_path: Path) -> None:
    files = {shape: tmp_path / str(shape) for shape in SHAPES}
    for shape, path in files.items():
        path.write_bytes(shape.file().tobytes())
    read = {str(shape): farcore(shape, path) for shape, path in files.items()}
    assert read == drgn(files)
    assert {tuple(frame for frame, digest in enumerate(found) if digest) for found in read.values()} == {FRAMES}
