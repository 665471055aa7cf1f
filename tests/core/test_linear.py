"""Where kernels map their memory, as found in real dumps without their program headers; those are the oracle."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from farcore import notes, vmcore, vmcoreinfo
from farcore.elf import Elf
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
    for nth in {*range(1, reads, max(1, reads // 8)), reads}:
        disk.asked.clear()
        disk.calls = {nth: "unreadable"}
        with pytest.raises(FaultError) as caught:
            linear(kdump, own, known)
        assert (caught.value.space, caught.value.kind) == ("stored", "unreadable")
    disk.calls = {}
    assert linear(kdump, own, known) == true
