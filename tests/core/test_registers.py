"""NT_PRSTATUS. OFFSETS are offsetof and sizeof, as C programs printed them that each machine's gcc of Debian 12 compiled.

Not riscv32's, whose glibc has another timeval than the kernel: there they follow from the size of QEMU's note and from gdb.
"""

from __future__ import annotations

import re
import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from farcore.elf import Data
from farcore.registers import Layout, layout, layout_of, read
from tests.elfwriter import Dump, note
from tests.requires import requires

# (e_machine, class): sizeof(struct elf_prstatus), offsetof pr_pid, sizeof(long), registers, and where some of them are.
OFFSETS: dict[tuple[int, int], tuple[int, int, int, int, dict[str, int]]] = {
    (62, 64): (336, 32, 8, 27, {"r15": 112, "rbp": 144, "rax": 192, "rip": 240, "rsp": 264, "fs_base": 280, "gs": 320}),
    (62, 32): (336, 32, 8, 27, {"r15": 112, "rip": 240, "gs": 320}),
    (3, 32): (144, 24, 4, 17, {"ebx": 72, "eax": 96, "ds": 100, "orig_eax": 116, "eip": 120, "esp": 132, "ss": 136}),
    (3, 64): (144, 24, 4, 17, {"ebx": 72, "eip": 120, "ss": 136}),
    (6, 32): (144, 24, 4, 17, {"ebx": 72, "eip": 120, "ss": 136}),
    (183, 64): (392, 32, 8, 34, {"x0": 112, "x29": 344, "x30": 352, "sp": 360, "pc": 368, "cpsr": 376}),
    (40, 32): (148, 24, 4, 18, {"r0": 72, "r12": 120, "sp": 124, "lr": 128, "pc": 132, "cpsr": 136, "orig_r0": 140}),
    (22, 64): (336, 32, 8, 35, {"pswm": 112, "pswa": 120, "r0": 128, "r15": 248, "acr0": 256, "acr15": 316, "orig_r2": 320}),
    (0xA390, 64): (336, 32, 8, 35, {"pswm": 112, "orig_r2": 320}),
    (21, 64): (
        504,
        32,
        8,
        44,
        {"r0": 112, "r31": 360, "pc": 368, "msr": 376, "lr": 400, "cr": 416, "result": 456},
    ),
    (243, 32): (204, 24, 4, 32, {"pc": 72, "ra": 76, "sp": 80, "fp": 104, "a0": 112, "t6": 196}),
    (243, 64): (376, 32, 8, 32, {"pc": 112, "ra": 120, "sp": 128, "fp": 176, "s1": 184, "a0": 192, "t3": 336, "t6": 360}),
}


def known(machine: int, bits: int) -> Layout:
    found = layout(machine, bits)
    assert found is not None
    return found


@pytest.mark.parametrize(("machine", "bits"), OFFSETS)
def test_sizes_and_offsets_are_the_compilers(machine: int, bits: int) -> None:
    size, pid, long, count, places = OFFSETS[machine, bits]
    found = known(machine, bits)
    assert (found.prstatus_size, found.pid_offset, len(found.registers)) == (size, pid, count)
    for name, offset, length in found.registers:
        assert places.get(name, offset) == offset
        assert length == (4 if name.startswith("acr") else long)
    assert places.keys() <= {name for name, _, _ in found.registers}


@pytest.mark.parametrize(("machine", "bits"), OFFSETS)
def test_registers_follow_each_other_without_gap_or_repetition(machine: int, bits: int) -> None:
    registers = known(machine, bits).registers
    assert len({name for name, _, _ in registers}) == len(registers)
    for (_, offset, length), (_, following, _) in pairwise(registers):
        assert following == offset + length


@pytest.mark.parametrize("data", ["LE", "BE"])
@pytest.mark.parametrize(("machine", "bits"), OFFSETS)
def test_values_are_read_in_the_dumps_byte_order(machine: int, bits: int, data: Data) -> None:
    size, pid, long, _, places = OFFSETS[machine, bits]
    order = "<" if data == "LE" else ">"
    desc = bytearray(size)
    struct.pack_into(order + "h", desc, 12, 11)
    struct.pack_into(order + "i", desc, pid, -2)
    values = {name: 0xF0E1D2C3 + place for place, name in enumerate(places)}
    for name, value in values.items():
        struct.pack_into(order + ("I" if name.startswith("acr") or long == 4 else "Q"), desc, places[name], value)
    found = read(bytes(desc), known(machine, bits), data)
    assert found is not None
    assert (found.pid, found.signal) == (-2, 11)
    assert {name: found.registers[name] for name in values} == values
    assert not any(value for name, value in found.registers.items() if name not in values)


@pytest.mark.parametrize(("machine", "bits"), OFFSETS)
def test_a_desc_that_is_too_short_has_no_registers(machine: int, bits: int) -> None:
    found = known(machine, bits)
    whole = bytes(found.prstatus_size)
    assert read(whole, found, "LE") is not None
    assert read(whole + b"more", found, "LE") is not None
    assert read(whole[:-1], found, "LE") is None
    assert read(b"", found, "LE") is None


@pytest.mark.parametrize(("machine", "bits"), [(0, 64), (20, 32), (22, 32), (40, 64), (183, 32), (21, 32), (8, 64), (62, 0)])
def test_a_machine_that_is_not_known_has_no_layout(machine: int, bits: int) -> None:
    assert layout(machine, bits) is None
    assert layout_of(336, machine, bits) is None


@pytest.mark.parametrize(("machine", "bits"), OFFSETS)
def test_a_note_of_the_promised_size_has_the_promised_layout(machine: int, bits: int) -> None:
    size = OFFSETS[machine, bits][0]
    assert layout_of(size, machine, bits) == known(machine, bits)
    assert layout_of(size + 4, machine, bits) is None
    assert layout_of(size - 4, machine, bits) is None


@pytest.mark.parametrize("bits", [32, 64])
def test_a_64_bit_note_under_em_386_is_xens_and_read_as_x86_64(bits: int) -> None:
    assert layout_of(336, 3, bits) == known(62, 64)
    assert layout_of(144, 62, bits) is None


@requires("gdb")
@pytest.mark.parametrize(("machine", "bits"), [(62, 64), (3, 32)])
def test_every_x86_register_is_gdbs(machine: int, bits: int, tmp_path: Path) -> None:
    size, first = (336, 112) if bits == 64 else (144, 72)
    desc = bytearray(size)
    # gdb shows flags and segment registers with 32 bits: one different number below 2^31 for each slot.
    for place in range(first, size - 8, bits // 8):
        struct.pack_into("<I", desc, place, 0x1020304 * place & 0x7FFFFFFF)
    path = Dump([note(("CORE", 1, bytes(desc)))], bits=bits, machine=machine).write(tmp_path / "core")
    found = read(bytes(desc), known(machine, bits), "LE")
    assert found is not None
    asked = [word for name in found.registers for word in ("-ex", f"echo {name}", "-ex", f"print/x ${name}")]
    done = subprocess.run(["gdb", "-nx", "-batch", "-ex", f"core {path}", *asked], capture_output=True, text=True, check=True)
    shown = re.findall(r"^(\w+)\$\d+ = (0x[0-9a-f]+)$", done.stdout, re.MULTILINE)
    assert shown == [(name, f"{value:#x}") for name, value in found.registers.items()]
