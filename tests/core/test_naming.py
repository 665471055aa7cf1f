from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from farcore.naming import Naming
from farcore.pagetable import MAPPING, START_KERNEL_MAP
from farcore.profile import Pages, Profile
from farcore.regions import Regions
from farcore.runs import U64
from farcore.source import BytesSource
from farcore_client.target import Target
from tests.core.test_regions import opened

# Of the kernel that x86_64-panic.elf is of, as `nm vmlinux` prints them; and what crash 8.0.6 prints of its __per_cpu_offset.
SYMBOLS = {"__per_cpu_offset": 0xFFFFFFFF8239EB60, "__per_cpu_start": 0, "__per_cpu_end": 0x34000}
PER_CPU_OFFSET = (18446619192342872064, 18446619192343920640)
DIRECT = 0xFFFF8E6BC0000000


def frames(*numbers: int) -> U64:
    return np.array(numbers, np.uint64)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return opened("x86_64-panic.elf", tmp_path)


@pytest.fixture
def regions(target: Target) -> Regions:
    assert target.vmcoreinfo is not None
    found = Regions.of(target.physical, target.elf.header, target.vmcoreinfo)
    assert found is not None
    return found


def test_pages_of_a_real_dump_have_names_and_are_found_by_them(target: Target, regions: Regions) -> None:
    naming = Naming.of(regions, target.physical, SYMBOLS.get)
    assert naming.percpu == tuple(offset - DIRECT >> 12 for offset in PER_CPU_OFFSET)
    assert target.vmcoreinfo is not None
    text = target.vmcoreinfo.symbol("_stext")
    assert text is not None
    paddr = text - START_KERNEL_MAP - 559939584
    read = frames(paddr >> 12, naming.percpu[1] + 5, 0x100, int(regions.memmap[0]["paddr"]) >> 12)
    profile = Profile.parse(naming.profile(read, '"a"').pack())
    names = {kind: profile.of(kind).number.tolist() for kind in ("image", "memmap", "percpu", "vmalloc")}
    assert names == {"image": [0x1000], "memmap": [0], "percpu": [5], "vmalloc": []}
    assert profile.dumps['"a"'].number.tolist() == [0x100]
    # Of every CPU, for the next session may have panicked on another.
    assert set(naming.frames(profile, '"a"').tolist()) == {*read.tolist(), naming.percpu[0] + 5}
    every = np.arange(0, target.physical.size >> 12, 7, dtype=np.uint64)
    assert set(every.tolist()) <= set(naming.frames(naming.profile(every, '"a"'), '"a"').tolist())


def boot(image: int, vmalloc: int, vmemmap: int, *mapped: tuple[int, int, int]) -> Regions:
    return Regions(DIRECT, vmalloc, vmemmap, image, np.array(sorted(mapped), MAPPING))


def test_a_name_leads_to_another_place_on_another_boot() -> None:
    one = boot(
        0xFFFFFFFF90000000,
        0xFFFFD00000000000,
        0xFFFFF00000000000,
        (0xFFFFFFFF91000000, 0x5000000, 0x200000),
        (0xFFFFD00000001000, 0x7000, 0x1000),
        (0xFFFFF00000000000, 0x8000000, 0x200000),
        (0xFFFFFFFFC0000000, 0x9000, 0x1000),
    )
    other = boot(
        0xFFFFFFFFA0000000,
        0xFFFFD10000000000,
        0xFFFFF10000000000,
        (0xFFFFFFFFA1000000, 0x2000000, 0x100000),
        (0xFFFFD10000001000, 0xB000, 0x1000),
        (0xFFFFF10000000000, 0x3000000, 0x1000),
    )
    # Of the image one that both have and one that only the first has; a module, which has no name.
    read = frames(0x5003, 0x5100, 0x7, 0x8000, 0x8001, 0x9, 0x1234)
    profile = Naming(one).profile(read, '"one"')
    assert profile.dumps['"one"'].number.tolist() == [0x9, 0x1234]
    assert Naming(other).frames(replace(profile, dumps={}), '"other"').tolist() == [0xB, 0x2003, 0x3000]
    guessed = Naming(other).frames(profile, '"other"')
    assert guessed.tolist() == [0x9, 0xB, 0x1234, 0x2003, 0x3000]
    known = replace(profile, dumps={'"other"': Pages.of([0x77]), **profile.dumps})
    assert Naming(other).frames(known, '"other"').tolist() == [0xB, 0x77, 0x2003, 0x3000]


@pytest.mark.parametrize("lie", [{"__per_cpu_offset": 0xFFFFFFFF00000000}, {"__per_cpu_end": 1 << 40}, {"__per_cpu_offset": 0}])
def test_symbols_that_lie_give_no_areas(target: Target, regions: Regions, lie: dict[str, int]) -> None:
    assert Naming.of(regions, target.physical, (SYMBOLS | lie).get).percpu == ()
    assert Naming.of(regions, BytesSource(b""), SYMBOLS.get).percpu == ()
