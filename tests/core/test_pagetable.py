from __future__ import annotations

import struct
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from farcore.elf import Ehdr, Elf
from farcore.errors import FaultError
from farcore.pagetable import Format, PageTables
from farcore.source import BytesSource
from farcore.space import PhysicalSpace
from farcore.vmcoreinfo import Vmcoreinfo
from farcore_client.target import Target
from tests.elfwriter import Dump as ElfFile
from tests.samples import unpack

X86_64 = Format((39, 30, 21, 12), 47, 256, 0x000FFFFFFFFFF000, (7, 1))
BASE = 0xFFFF800000000000


def tables(*entries: tuple[int, int, int], size: int = 0x8000) -> BytesSource:
    """Memory with 64-bit entries: (table, index, entry)."""
    memory = bytearray(size)
    for table, index, entry in entries:
        struct.pack_into("<Q", memory, table + 8 * index, entry)
    return BytesSource(bytes(memory))


def test_the_tables_of_a_real_kernel_say_where_its_pt_loads_lie(tmp_path: Path) -> None:
    source = BytesSource(unpack("x86_64-panic.elf", tmp_path).read_bytes())
    target = Target.open(source, PhysicalSpace(source, Elf.open(source)))
    assert target.vmcoreinfo is not None
    found = PageTables.of(target.physical, target.elf.header, target.vmcoreinfo)
    assert found is not None
    mapped = found.walk(found.format.base, 1 << 64)
    assert all(int(one["vaddr"] + one["size"]) <= int(after["vaddr"]) for one, after in pairwise(mapped[:-1]))
    checked = 0
    for load in target.elf.loads:
        vaddr, paddr, size = int(load["vaddr"]), int(load["paddr"]), int(load["filesz"])
        for at in {0, size // 2, size - 1}:
            with suppress(FaultError):  # what the kernel has unmapped since: its own initial code, the crash kernel's memory
                assert found.translate(vaddr + at) == paddr + at
                checked += 1
    assert checked > 2 * len(target.elf.loads)


def arm64(page_size: int, bits: int, table: int, memory: BytesSource) -> PageTables | None:
    header = Ehdr.parse(ElfFile([], machine=183).tobytes())
    values = {"SYMBOL(swapper_pg_dir)": f"{0xFFFF800000000000 + table:x}", "NUMBER(kimage_voffset)": "0xffff800000000000"}
    values |= {"NUMBER(VA_BITS)": str(bits), "PAGESIZE": str(page_size)}
    return PageTables.of(memory, header, Vmcoreinfo(values))


def test_arm64s_tables_are_cut_as_its_page_size_has_it() -> None:
    # A block where x86_64 has a table: bit 1 is clear. Attributes above and below the address count for nothing.
    small = arm64(
        4096,
        48,
        0x1000,
        tables((0x1000, 5, 0x2003), (0x2000, 1, 0x0060000040000701), (0x2000, 2, 0x3003), (0x3000, 0, 0x70F01)),
    )
    assert small is not None
    base = 0xFFFF000000000000 + (5 << 39)
    assert small.translate(base + (1 << 30) + 0x123456) == 0x40123456
    with pytest.raises(FaultError):
        small.translate(base + (3 << 30))
    large = arm64(65536, 42, 0x10000, tables((0x10000, 8191, 0x20003), (0x20000, 8191, 0xABC0003), size=0x30000))
    assert large is not None
    assert large.translate((1 << 64) - 0x10000 + 0x77) == 0xABC0077
    assert arm64(8192, 48, 0x1000, tables()) is None
    assert arm64(4096, 53, 0x1000, tables()) is None


def test_pages_of_every_size_are_found_and_nothing_beside_them() -> None:
    memory = tables(
        (0x0, 256, 0x1001),
        (0x0, 3, 0x7001),  # user space
        (0x1000, 0, 0x40000083),  # 1 GiB
        (0x1000, 1, 0x2063),
        (0x2000, 5, 0x80A00083 | 1 << 63),  # 2 MiB, not to be executed
        (0x2000, 6, 0x3063),
        (0x3000, 511, 0x12345063),  # 4 KiB
        (0x3000, 510, 0x99999062),  # not present
    )
    found = PageTables(memory, 0, X86_64)
    assert [tuple(one) for one in found.walk(BASE, 1 << 64)] == [
        (BASE, 0x40000000, 1 << 30),
        (BASE + (1 << 30) + (5 << 21), 0x80A00000, 1 << 21),
        (BASE + (1 << 30) + (6 << 21) + (511 << 12), 0x12345000, 1 << 12),
    ]
    assert found.translate(BASE + 0x1234567) == 0x41234567
    assert found.translate(BASE + (1 << 30) + (6 << 21) + (511 << 12) + 5) == 0x12345005
    assert len(found.walk(BASE + (1 << 30), BASE + (1 << 30) + (6 << 21))) == 1
    for nowhere in (0, 0x1000, BASE + (2 << 30), BASE + (1 << 30) + (6 << 21) + (510 << 12), (1 << 64) - 1):
        with pytest.raises(FaultError) as caught:
            found.translate(nowhere)
        assert (caught.value.address, caught.value.space) == (nowhere, "virtual")


def test_tables_that_are_not_there_or_lead_in_circles_map_nothing_and_end() -> None:
    missing = tables((0x0, 256, 0x1001), (0x0, 257, 0xF00001), (0x1000, 0, 0x40000083))
    assert len(PageTables(missing, 0, X86_64).walk(BASE, 1 << 64)) == 1
    circle = tables(*((0x0, index, 0x1) for index in range(512)))
    assert len(PageTables(circle, 0, X86_64).walk(BASE, 1 << 64)) < 1 << 24
