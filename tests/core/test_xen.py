"""Dumps of whole Xen machines: what their notes say, whom to believe, and dom0's log."""

from __future__ import annotations

import struct

import pytest

from farcore import consistency, dmesg, notes, xen
from farcore.elf import Elf
from farcore.errors import NoLogError
from farcore.notes import Note
from farcore.source import BytesSource
from farcore.space import PhysicalSpace
from tests import logwriter, xenwriter
from tests.elfwriter import Dump, load
from tests.logwriter import BASE, Line

MACHINE = "a dump of a whole Xen machine: its physical addresses are machine addresses, the hypervisor's and not dom0's"


def read(dump: Dump) -> tuple[BytesSource, Elf, notes.Notes]:
    """The dump opened."""
    source = BytesSource(dump.tobytes())
    elf = Elf.open(source)
    return source, elf, notes.read(source, elf)


@pytest.mark.parametrize("bits", [32, 64])
def test_what_the_hypervisor_wrote_is_read_in_its_own_longs(bits: int) -> None:
    _, _, found = read(xenwriter.dump(bits=bits, machine=62 if bits == 64 else 3, cr3=(0x1000, 0x2000)))
    known = xen.of(found.notes, "LE")
    assert known is not None
    assert (known.bits, known.version, known.phys_start, known.p2m) == (bits, "4.17", xenwriter.PHYS_START, xenwriter.P2M)
    assert known.cr3 == (0x1000, 0x2000)
    assert known.vmcoreinfo is not None
    assert known.vmcoreinfo.type_size("page_info") == 32


def test_on_arm64_there_is_no_physical_start() -> None:
    known = xen.of([Note(*xenwriter.info(64, x86=False))], "LE")
    assert known == xen.Xen(bits=64, major=4, minor=17)


@pytest.mark.parametrize("size", [0, 4, 39, 41, 79, 81, 800])
def test_notes_of_no_known_size_tell_only_that_there_is_a_hypervisor(size: int) -> None:
    assert xen.of([Note("Xen", xenwriter.INFO, bytes(size))], "LE") == xen.Xen()
    assert xen.of([Note("Xen", xenwriter.REGS, bytes(size))], "LE") == xen.Xen()


def test_a_machine_without_a_hypervisor_has_none() -> None:
    assert xen.of([Note("CORE", 1, bytes(336)), Note("VMCOREINFO", 0, b"A=1\n")], "LE") is None


@pytest.mark.parametrize(
    ("machine", "elf", "bits", "told"),
    [
        (62, 64, 64, []),
        (3, 64, 64, ["x86_64's 336: believe the notes", "of a 64-bit hypervisor, e_machine is EM_386: believe the notes"]),
        (3, 32, 64, ["x86_64's 336: believe the notes", "of a 64-bit hypervisor, e_machine is EM_386: believe the notes"]),
        (3, 32, 32, []),
        (62, 64, 32, ["have 144 bytes", "of a 32-bit hypervisor, e_machine is EM_X86_64: believe the notes"]),
    ],
)
def test_64_bit_notes_of_a_hypervisor_under_either_machine_are_known_and_a_warning_says_which_side_to_believe(
    machine: int, elf: int, bits: int, told: list[str]
) -> None:
    dump = xenwriter.dump(machine=machine, elf=elf, bits=bits)
    source, opened, found = read(dump)
    warnings = consistency.warnings(opened, source.size, found)
    assert MACHINE in warnings
    assert len(warnings) == 1 + len(told)
    assert all(any(words in warning for warning in warnings) for words in told)


def test_a_32_bit_dom0_under_a_64_bit_header_is_believed_about_itself() -> None:
    source, elf, found = read(xenwriter.dump(dom0=b"SIZE(atomic_long_t)=4\n"))
    assert consistency.warnings(elf, source.size, found)[1:] == (
        "VMCOREINFO is of a 32-bit dom0, e_machine is EM_X86_64: "
        "believe e_machine about the machine and its registers, and VMCOREINFO about dom0",
    )


def with_dom0(*cr3: int) -> Dump:
    """dom0's log in machine frames in turned order, and page tables at 0x1000 that lead there; there is none at 0x9000."""
    log = logwriter.ring([Line(1000, b"hello from dom0")])
    content = bytes(log.content) + bytes(-len(log.content) % 4096)
    count, tables = len(content) // 4096, bytearray(0x4000)
    for table, index, entry in (
        (0, BASE[8] >> 39 & 511, 0x2063),
        (1, BASE[8] >> 30 & 511, 0x3063),
        (2, BASE[8] >> 21 & 511, 0x4063),
    ):
        struct.pack_into("<Q", tables, table * 0x1000 + 8 * index, entry)
    for page in range(count):
        frame = 0x100 + count - page
        struct.pack_into("<Q", tables, 0x3000 + 8 * ((BASE[8] >> 12 & 511) + page), frame << 12 | 0x63)
    turned = b"".join(content[page * 4096 :][:4096] for page in reversed(range(count)))
    # p_vaddr and phys_base say what holds for dom0's own idea of physical memory alone.
    memory = [load(bytes(tables), paddr=0x1000), load(turned, paddr=0x101000, vaddr=BASE[8])]
    return xenwriter.dump(cr3=cr3, memory=memory, dom0=log.vmcoreinfo("NUMBER(phys_base)=0"))


@pytest.mark.parametrize("cr3", [(0x1000,), (0x9000, 0x1000), (0x1000, 0x9000)])
def test_the_log_of_dom0_is_found_by_the_page_tables_of_a_cpu(cr3: tuple[int, ...]) -> None:
    source, elf, found = read(with_dom0(*cr3))
    assert dmesg.of(PhysicalSpace(source, elf), elf, found.notes).text() == "[    0.000001] hello from dom0\n"


def test_where_no_cpu_was_in_dom0_there_is_no_log() -> None:
    source, elf, found = read(with_dom0(0x9000))
    with pytest.raises(NoLogError, match="dom0"):
        dmesg.of(PhysicalSpace(source, elf), elf, found.notes)
