from __future__ import annotations

from pathlib import Path

from farcore.elf import Elf
from farcore.regions import Regions
from farcore.source import BytesSource
from farcore.space import PhysicalSpace
from farcore.vmcoreinfo import Vmcoreinfo
from farcore_client.target import Target
from tests.samples import unpack

# What crash 8.0.6 prints of x86_64-panic.elf: p/x page_offset_base, vmalloc_base, vmemmap_base.
BASES = (0xFFFF8E6BC0000000, 0xFFFFD120C0000000, 0xFFFFF3B600000000)
# 320 MiB, in struct pages of 64 bytes, mapped in 2 MiB pages by sections of 128 MiB.
MEMMAP = 3 * (128 << 20) // 4096 * 64


def opened(name: str, folder: Path) -> Target:
    source = BytesSource(unpack(name, folder).read_bytes())
    return Target.open(source, PhysicalSpace(source, Elf.open(source)))


def test_the_regions_of_a_real_kernel_are_where_crash_finds_them(tmp_path: Path) -> None:
    target = opened("x86_64-panic.elf", tmp_path)
    assert target.vmcoreinfo is not None
    found = Regions.of(target.physical, target.elf.header, target.vmcoreinfo)
    assert found is not None
    assert (found.direct, found.vmalloc, found.vmemmap) == BASES
    assert found.image == 0xFFFFFFFF80000000 + 0x28000000
    assert int(found.memmap["size"].sum()) == MEMMAP
    first = found.within(found.image, (1 << 64) - 1)[0]
    assert int(first["paddr"]) - int(first["vaddr"]) == -559939584 - 0xFFFFFFFF80000000  # NUMBER(phys_base)


def test_where_the_tables_tell_nothing_there_are_no_regions(tmp_path: Path) -> None:
    target = opened("x86_64-panic.elf", tmp_path)
    assert target.vmcoreinfo is not None
    header = target.elf.header
    assert Regions.of(target.physical, header, Vmcoreinfo({})) is None
    assert Regions.of(BytesSource(b""), header, target.vmcoreinfo) is None
    assert Regions.of(BytesSource(bytes(1 << 20)), header, Vmcoreinfo({"SYMBOL(swapper_pg_dir)": "ffffffff80000000"})) is None
    foreign = opened("aarch64-panic.elf", tmp_path)
    assert foreign.vmcoreinfo is not None
    assert Regions.of(foreign.physical, foreign.elf.header, foreign.vmcoreinfo) is None
