"""A kernel's memory by its virtual addresses: each of the ways that lead to a paddr, and what has none."""

from __future__ import annotations

import struct

import pytest

from farcore.elf import Elf
from farcore.errors import FaultError
from farcore.kernelspace import KernelSpace
from farcore.source import BytesSource, Extent
from farcore.space import PhysicalSpace
from farcore.vmcoreinfo import Vmcoreinfo
from tests.elfwriter import Dump, Segment, load, note

TOP = 0xFFFF_8880_0000_0000
STATUS = note(("CORE", 1, bytes(336)))
# What lies at a paddr tells it.
MEMORY = struct.pack("<65536Q", *range(0, 8 * 65536, 8))


def space(known: dict[str, str], *segments: Segment, machine: int = 62, bits: int = 64) -> KernelSpace:
    """The memory of such a dump."""
    file = BytesSource(Dump([STATUS, *segments], machine=machine, bits=bits).tobytes())
    elf = Elf.open(file)
    return KernelSpace(PhysicalSpace(file, elf), elf.header, Vmcoreinfo(known), elf)


def paddr(found: KernelSpace, vaddr: int) -> int:
    """Where a vaddr leads."""
    return int.from_bytes(found.pread(vaddr, 8), "little")


def tables() -> bytes:
    """MEMORY, with x86_64's tables in [0x1000, 0x5000)."""
    content = bytearray(MEMORY)
    content[0x1000:0x5000] = bytes(0x4000)
    entries = {(0x1000, TOP >> 39 & 511): 0x2063, (0x2000, 0): 0x3063, (0x3000, 0): 0x4063}
    entries |= {(0x4000, 5): 1 << 63 | 0x9163, (0x4000, 6): 0x8163, (0x4000, 7): 0xFFFFF063}
    for (table, index), entry in entries.items():
        struct.pack_into("<Q", content, table + 8 * index, entry)
    return bytes(content)


KNOWN = {"SYMBOL(swapper_pg_dir)": "ffffffff81001000", "NUMBER(phys_base)": str(-0x1000000)}


def test_the_image_of_x86_64_lies_where_phys_base_says_whatever_qemu_writes_for_p_vaddr() -> None:
    found = space(KNOWN, load(tables(), vaddr=0xFFFF_FFFF_8000_0000))
    assert paddr(found, 0xFFFFFFFF81009000) == 0x9000
    assert paddr(space(KNOWN, load(tables())), 0xFFFFFFFF81009008) == 0x9008


def test_pages_side_by_side_are_read_from_wherever_they_lie() -> None:
    found = space(KNOWN, load(tables()))
    assert found.pread(TOP + 0x5008, 0x1FF0) == MEMORY[0x9008:0xA000] + MEMORY[0x8000:0x8FF8]
    assert [bytes(one) for one in found.preadv([Extent(TOP + 0x6000, 8), Extent(TOP, 0), Extent(TOP + 0x5000, 8)])] == [
        MEMORY[0x8000:0x8008],
        b"",
        MEMORY[0x9000:0x9008],
    ]


@pytest.mark.parametrize(
    ("vaddr", "length", "space_name", "address"),
    [
        (TOP + 0x6FFE, 4, "physical", 0xFFFFF000),
        (TOP + 0x4FFE, 4, "virtual", TOP + 0x4FFE),
        (0, 1, "virtual", 0),
        ((1 << 64) - 1, 2, "virtual", (1 << 64) - 1),
        (-1, 1, "virtual", -1),
    ],
)
def test_what_is_not_mapped_or_maps_what_is_not_there_is_a_fault(
    vaddr: int, length: int, space_name: str, address: int
) -> None:
    with pytest.raises(FaultError) as caught:
        space(KNOWN, load(tables())).pread(vaddr, length)
    assert (caught.value.space, caught.value.address, caught.value.kind) == (space_name, address, "absent")


def test_virtual_addresses_of_pt_loads_count_unless_they_are_the_physical_ones() -> None:
    told = load(MEMORY, paddr=0, vaddr=TOP)
    assert paddr(space({}, told), TOP + 0x7008) == 0x7008
    with pytest.raises(FaultError):
        space({}, load(MEMORY, paddr=0x1000, vaddr=0x1000)).pread(0x1000, 8)


@pytest.mark.parametrize(
    ("machine", "bits", "known", "vaddr"),
    [
        (183, 64, {"SYMBOL(_stext)": "ffff800008010000", "NUMBER(kimage_voffset)": "0xffff800008000000"}, 0xFFFF800008018000),
        (3, 32, {}, 0xC0018000),
        (6, 64, {}, 0xC0018000),
        (21, 64, {}, 0xC000_0000_0001_8000),
        (22, 64, {}, 0x18000),
        (
            243,
            64,
            {"SYMBOL(_stext)": "ffffffff80002000", "NUMBER(va_kernel_pa_offset)": "0xffffffff80000000"},
            0xFFFFFFFF80018000,
        ),
        (243, 64, {"NUMBER(PAGE_OFFSET)": "0xff60000000000000", "NUMBER(phys_ram_base)": "0x10000"}, 0xFF60000000008000),
    ],
)
def test_without_tables_a_machines_fixed_map_is_taken(machine: int, bits: int, known: dict[str, str], vaddr: int) -> None:
    assert paddr(space(known, load(MEMORY), machine=machine, bits=bits), vaddr) == 0x18000
