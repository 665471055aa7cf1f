from __future__ import annotations

import struct

from farcore.elf import Elf
from farcore.source import BytesSource
from farcore.space import PhysicalSpace
from farcore_client.target import Target
from tests.elfwriter import Dump, load, note


def prstatus(pid: int, rip: int) -> bytes:
    desc = bytearray(336)
    struct.pack_into("<i", desc, 32, pid)
    struct.pack_into("<Q", desc, 112 + 16 * 8, rip)
    return bytes(desc)


def test_a_target_has_the_cpus_and_vmcoreinfo_of_the_notes_and_memory_by_address() -> None:
    content = bytes(range(256)) * 16
    cpus = note(
        ("CORE", 1, prstatus(7, 0xFFFFFFFF81000000)), ("CORE", 1, b"too short"), ("VMCOREINFO", 0, b"OSRELEASE=6.1.0\n")
    )
    raw = Dump([cpus, load(content, paddr=0x100000)]).tobytes()
    source = BytesSource(raw)
    target = Target.open(source, PhysicalSpace(source, Elf.open(source)))
    assert target.physical.pread(0x100010, 4) == content[0x10:0x14]
    assert [cpu and (cpu.pid, cpu.registers["rip"]) for cpu in target.cpus] == [(7, 0xFFFFFFFF81000000), None]
    assert target.vmcoreinfo is not None
    assert target.vmcoreinfo.kernel_release == "6.1.0"
