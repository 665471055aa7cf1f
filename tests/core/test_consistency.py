from __future__ import annotations

import random

import pytest

from farcore import consistency, notes
from farcore.elf import Elf
from farcore.source import BytesSource
from tests.elfwriter import Dump, Segment, load, note

PRSTATUS = ("CORE", 1, bytes(336))
PAGE = bytes(4096)
KERNEL_TEXT = "describe physical memory again (normal: kernel text is described twice"


def told(dump: Dump) -> tuple[str, ...]:
    """The warnings for a dump as it lies in a file."""
    source = BytesSource(dump.tobytes())
    elf = Elf.open(source)
    return consistency.warnings(elf, source.size, notes.read(source, elf))


def of(*segments: Segment) -> Dump:
    return Dump([note(PRSTATUS), *segments])


def test_a_dump_that_fits_together_is_told_nothing() -> None:
    assert told(of(load(PAGE, paddr=0), load(PAGE, paddr=4096), load(PAGE, paddr=8192, memsz=8192))) == ()


def test_bytes_past_the_end_of_the_file_are_counted() -> None:
    whole = of(load(PAGE, paddr=0), load(PAGE, paddr=4096), load(PAGE, paddr=8192)).tobytes()
    for short, cut in ((1, 1), (4096, 1), (4097, 2), (8193, 3)):
        source = BytesSource(whole[:-short])
        elf = Elf.open(source)
        assert consistency.missing(elf, source.size) == short
        assert consistency.warnings(elf, source.size, notes.read(source, elf)) == (
            f"the file is {short:,} bytes short of what {cut} of its 3 PT_LOADs promise: an incomplete dump",
        )


def test_a_file_that_ends_with_its_last_pt_load_or_later_is_whole() -> None:
    raw = of(load(PAGE)).tobytes()
    elf = Elf.open(BytesSource(raw))
    assert [consistency.missing(elf, len(raw) + more) for more in (-1, 0, 1)] == [1, 0, 0]


def test_a_pt_load_without_bytes_may_lie_anywhere() -> None:
    assert told(of(load(PAGE), load(paddr=1 << 20, offset=1 << 50, filesz=0, memsz=4096))) == ()


def test_a_dump_cut_by_exabytes_is_counted_in_full() -> None:
    elf = Elf.open(BytesSource(raw := of(load(offset=1 << 63, filesz=(1 << 63) - 1)).tobytes()))
    assert consistency.missing(elf, len(raw)) == (1 << 64) - 1 - len(raw)


def test_addresses_that_wrap_are_told() -> None:
    top = (1 << 64) - 4096
    assert told(of(load(PAGE), load(PAGE, paddr=top + 1))) == (
        "p_paddr + p_memsz of 1 of 2 PT_LOADs wraps 2^64: physical memory is read without them",
    )
    assert told(of(load(PAGE), load(PAGE, paddr=top - 1))) == ()


@pytest.mark.parametrize(
    ("ranges", "again"),
    [
        ([(0, 4), (4, 8)], 0),
        ([(0, 8), (4, 6)], 1),
        ([(4, 6), (0, 8)], 1),
        ([(0, 8), (1, 2), (6, 9), (8, 10)], 3),
        ([(0, 4), (0, 4), (0, 4)], 2),
        ([(0, 0), (0, 4), (2, 2)], 0),
        ([(0, 9), (1, 2), (3, 4), (9, 10)], 2),
    ],
)
def test_physical_memory_described_again_is_counted(ranges: list[tuple[int, int]], again: int) -> None:
    found = told(of(*(load(paddr=start << 12, memsz=(stop - start) << 12) for start, stop in ranges)))
    assert [text.startswith(f"{again} of {len(ranges)} PT_LOADs {KERNEL_TEXT}") for text in found] == [True] * (again > 0)


def test_the_count_is_what_a_loop_over_all_pairs_counts() -> None:
    draw = random.Random(7)
    for _ in range(200):
        ranges = [(start := draw.randrange(30), start + draw.randrange(5)) for _ in range(draw.randrange(1, 12))]
        order = sorted(range(len(ranges)), key=lambda i: (ranges[i][0], i))
        again = sum(
            any(ranges[j][0] <= ranges[i][0] < ranges[j][1] for j in order[:place]) and ranges[i][0] < ranges[i][1]
            for place, i in enumerate(order)
        )
        found = told(of(*(load(paddr=start, memsz=stop - start) for start, stop in ranges)))
        assert (f"{again} of " == found[0][: len(f"{again} of ")]) if again else found == ()


def test_a_dump_without_memory_or_notes_is_told_so() -> None:
    assert [text.split(":")[0] for text in told(Dump([note(PRSTATUS)]))] == ["there is no PT_LOAD"]
    assert [text.split(":")[0] for text in told(Dump([load(PAGE)]))] == ["there are no notes"]


def test_the_warnings_of_the_notes_are_among_them() -> None:
    dump = Dump([note(PRSTATUS, filesz=1 << 20), load(PAGE)])
    source = BytesSource(dump.tobytes())
    own = notes.read(source, Elf.open(source)).warnings
    assert len(own) == 1
    assert own[0] in told(dump)


@pytest.mark.parametrize(
    ("machine", "bits", "data", "size"),
    [
        (62, 64, "LE", 336),
        (3, 32, "LE", 144),
        (3, 64, "LE", 144),
        (183, 64, "LE", 392),
        (22, 64, "BE", 336),
        (21, 64, "BE", 504),
    ],
)
def test_the_size_that_a_machine_writes_is_told_nothing(machine: int, bits: int, data: str, size: int) -> None:
    for desc, odd in ((size, False), (size - 4, True), (size + 4, True)):
        found = told(Dump([note(("CORE", 1, bytes(desc))), load(PAGE)], bits, data, machine))
        assert ["believe e_machine" in text for text in found] == [True] * odd


@pytest.mark.parametrize(("machine", "name"), [(3, "EM_386"), (6, "EM_486")])
def test_xens_64_bit_notes_under_a_32_bit_header_are_believed(machine: int, name: str) -> None:
    assert told(Dump([note(PRSTATUS, PRSTATUS, ("CORE", 1, bytes(144))), load(PAGE)], machine=machine)) == (
        f"2 of 3 NT_PRSTATUS have 336 bytes, {name}'s have 144 and x86_64's 336: "
        "believe the notes (a 64-bit Xen hypervisor writes its own under a 32-bit dom0's header)",
    )


def test_32_bit_notes_under_a_64_bit_header_are_not_believed() -> None:
    assert told(Dump([note(("CORE", 1, bytes(144))), load(PAGE)])) == (
        "1 of 1 NT_PRSTATUS have 144 bytes, EM_X86_64's have 336: believe e_machine, and no registers of theirs",
    )


def test_only_nt_prstatus_is_measured_and_only_of_machines_that_are_known() -> None:
    others = [("VMCOREINFO", 0, b"x"), ("CORE", 3, bytes(8)), ("LINUX", 1, bytes(8)), PRSTATUS]
    assert told(Dump([note(*others), load(PAGE)])) == ()
    assert told(Dump([note(("CORE", 1, bytes(8))), load(PAGE)], machine=0x1234)) == ()


def test_notes_of_many_odd_sizes_are_told_in_a_few_sentences() -> None:
    assert len(told(Dump([note(*(("CORE", 1, bytes(size)) for size in range(0, 300, 4))), load(PAGE)]))) == 3


def test_pn_xnum_is_told_with_the_real_count() -> None:
    assert told(Dump([note(PRSTATUS), load(PAGE)], xnum=True)) == (
        "e_phnum stands for 2 program headers (PN_XNUM): makedumpfile and crash take it for 65,535",
    )


def test_70_000_pt_loads_are_counted() -> None:
    dump = of(*(load(paddr=(page * 7919 % 70_000) << 12, memsz=8192) for page in range(70_000)))
    source = BytesSource(dump.tobytes())
    elf = Elf.open(source)
    read = notes.read(source, elf)
    found = consistency.warnings(elf, source.size, read)
    assert found[0].startswith(f"69,999 of 70,000 PT_LOADs {KERNEL_TEXT}")
