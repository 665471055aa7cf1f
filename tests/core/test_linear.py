"""Where kernels map their memory, as found in real dumps without their program headers; those are the oracle."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from farcore import notes, vmcore, vmcoreinfo
from farcore.elf import Bits, Data, Elf
from farcore.errors import FaultError
from farcore.file import FileSource
from farcore.kdump import Kdump
from farcore.layout import Layout
from farcore.linear import linear
from farcore.runs import Kind
from farcore.source import BytesSource
from farcore.space import PhysicalSpace, Space
from farcore.vmcoreinfo import Vmcoreinfo
from tests.faulty import Faulty
from tests.kdumpwriter import Kdump as File


def opened(path: Path) -> tuple[FileSource, Elf, Vmcoreinfo]:
    """A real dump."""
    source = FileSource(os.open(path, os.O_RDONLY), path.stat().st_size)
    elf = Elf.open(source)
    known = vmcoreinfo.of_linux(notes.read(source, elf).notes)
    assert known is not None
    return source, elf, known


@pytest.mark.parametrize("name", ["x86_64-panic.elf", "aarch64-panic.elf", "i386-panic.elf"])
def test_every_run_of_a_composed_image_has_a_virtual_address_that_the_kernel_itself_wrote(
    sample: Callable[[str], Path], name: str
) -> None:
    source, elf, known = opened(sample(name))
    memory = PhysicalSpace(source, elf)
    own = vmcore.header(elf.header.machine, elf.header.bits, elf.header.data)
    image = vmcore.compose(own, memory.layout.runs, b"", linear(memory, own, known))
    written = {(int(each["vaddr"]) - int(each["paddr"])) % (1 << 64) for each in elf.loads}
    composed = {(int(each["vaddr"]) - int(each["paddr"])) % (1 << 64) for each in image.elf.loads}
    # The cut of arm64's dump has no page tables of the image.
    assert composed == written if name != "aarch64-panic.elf" else composed < written
    again = Space(source, image.layout)
    for load in image.elf.loads[:: max(1, len(image.elf.loads) // 40)]:
        assert again.pread(int(load["offset"]), 16) == memory.pread(int(load["paddr"]), 16)


def test_a_dump_that_says_nothing_has_no_virtual_addresses(sample: Callable[[str], Path]) -> None:
    source, elf, known = opened(sample("x86_64-panic.elf"))
    memory = PhysicalSpace(source, elf)
    own = vmcore.header(elf.header.machine, elf.header.bits, elf.header.data)
    nothing = Vmcoreinfo({key: value for key, value in known.values.items() if "pg_dir" not in key and "top_pgt" not in key})
    assert linear(memory, own, None) == linear(memory, own, nothing) == ()
    runs = replace(memory.layout.runs, kind=np.full_like(memory.layout.runs.kind, Kind.EXCLUDED))
    blind = Space(source, Layout("physical", memory.size, runs))
    assert linear(blind, own, known) == ()
    image = vmcore.compose(own, memory.layout.runs, b"")
    assert (image.elf.loads["vaddr"] == image.elf.loads["paddr"]).all()


def test_storage_that_fails_is_an_error_and_never_another_answer(sample: Callable[[str], Path]) -> None:
    source, elf, known = opened(sample("x86_64-panic.elf"))
    own = vmcore.header(elf.header.machine, elf.header.bits, elf.header.data)
    memory = PhysicalSpace(source, elf)
    frames = {
        at >> 12: bytes(memory.pread(at, 4096))
        for run in memory.layout.runs.walk(0, memory.size)
        if run.kind is Kind.DATA
        for at in range(-(-run.start // 4096) * 4096, run.stop - 4095, 4096)
    }
    disk = Faulty(BytesSource(File(pages=frames, compress="raw").tobytes()))
    kdump = Kdump.open([disk]).memory()
    disk.asked.clear()
    true = linear(kdump, own, known)
    assert len(true) == 2
    reads = len(disk.asked)
    failed = []
    for nth in {*range(1, reads, max(1, reads // 8)), reads}:
        disk.asked.clear()
        disk.calls = {nth: "unreadable"}
        try:
            # Descriptors are asked for once more, without their neighbours.
            assert linear(kdump, own, known) == true
        except FaultError as error:
            failed.append((error.space, error.kind))
    assert set(failed) == {("stored", "unreadable")}
    disk.calls = {}
    assert linear(kdump, own, known) == true


class Layouts(NamedTuple):
    """What a kernel's crash_core writes, and where it has its memory mapped: the p_vaddr of a p_paddr, None for high memory."""

    machine: int
    bits: Bits
    data: Data
    known: dict[str, str]
    vaddr: Callable[[int], int | None]
    ranges: tuple[tuple[int, int], ...]


# As of Linux 6.1. ppc64: __va is PAGE_OFFSET + paddr (arch/powerpc/include/asm/page.h). riscv: __va is paddr - phys_ram_base +
# PAGE_OFFSET (arch/riscv/include/asm/page.h), both in VMCOREINFO (arch/riscv/kernel/crash_core.c). arm64: __phys_to_virt is
# (paddr - PHYS_OFFSET) | PAGE_OFFSET (arch/arm64/include/asm/memory.h). i386: lowmem ends 896 MiB behind PAGE_OFFSET.
RISCV = {"NUMBER(PAGE_OFFSET)": "0xff60000000000000", "NUMBER(phys_ram_base)": "0x80000000"}
KERNELS = {
    "ppc64": Layouts(21, 64, "BE", {}, lambda paddr: 0xC000 << 48 | paddr, ((0, 4 << 20), (0x10000000, 0x10010000))),
    "ppc64le": Layouts(21, 64, "LE", {}, lambda paddr: 0xC000 << 48 | paddr, ((0, 4 << 20), (1 << 40, (1 << 40) + 0x20000))),
    "riscv64": Layouts(
        243,
        64,
        "LE",
        RISCV,
        lambda paddr: 0xFF60 << 48 | paddr - 0x80000000,
        ((0x80000000, 0x80200000), (0x80400000, 0x80500000)),
    ),
    "arm64": Layouts(
        183,
        64,
        "LE",
        {"NUMBER(VA_BITS)": "48", "NUMBER(PHYS_OFFSET)": "0x40000000", "NUMBER(TCR_EL1_T1SZ)": "0x10"},
        lambda paddr: 0xFFFF << 48 | paddr - 0x40000000,
        ((0x40000000, 0x40200000), (0x48000000, 0x48010000)),
    ),
    "i386": Layouts(
        3,
        32,
        "LE",
        {},
        lambda paddr: 0xC0000000 + paddr if paddr < 0x38000000 else None,
        ((0x1000, 0x9F000), (0x37FFE000, 0x38000000), (0x38000000, 0x38003000)),
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_p_vaddr_is_what_the_kernel_of_a_machine_without_page_tables_here_has_by_its_own_formula(name: str) -> None:
    kernel = KERNELS[name]
    addresses = [at for low, high in kernel.ranges for at in range(low, min(high, low + 0x9000), 4096)]
    frames = {at >> 12: bytes([at >> 12 & 255]) * 4096 for at in addresses}
    machine = "i686" if name == "i386" else "x86_64"
    written = File(pages=frames, bits=kernel.bits, data=kernel.data, machine=machine, compress="raw").tobytes()
    memory = Kdump.open([BytesSource(written)]).memory()
    own = vmcore.header(kernel.machine, kernel.bits, kernel.data)
    image = vmcore.compose(own, memory.layout.runs, b"", linear(memory, own, Vmcoreinfo(kernel.known)))
    composed = Elf.open(BytesSource(bytes(image.headers.pread(0, image.headers.size))))
    starts = {low for low, _ in kernel.ranges}
    told = {int(load["paddr"]): int(load["vaddr"]) for load in composed.loads}
    assert told.keys() == starts
    assert told == {paddr: paddr if (vaddr := kernel.vaddr(paddr)) is None else vaddr for paddr in starts}
