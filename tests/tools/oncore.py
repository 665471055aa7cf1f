"""A core file that a local gdb can read as far as the door can: what drgn reads of a dump, at the kernel's virtual addresses.

gdb knows no page tables. On the dump's own file it has the addresses that PT_LOADs claim: with QEMU's none of the kernel's,
with kdump's all but vmalloc space, where kernel stacks are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.elfwriter import Dump, Segment, load
from tests.tools.test_readelf import readelf_rows

PAGE = 4096
# Of a task and of interrupts, on x86_64 and on arm64; aligned to it.
STACK = 4 * PAGE
# Where struct elf_prstatus has the stack pointer, by e_machine.
POINTER = {62: 112 + 19 * 8, 183: 112 + 31 * 8}


def write(dump: Path, vmlinux: Path, path: Path) -> Path:
    """The core at ``path``: the kernel's image, and the stacks and task structures of what ran when it died."""
    import drgn
    from drgn.helpers.linux.cpumask import for_each_present_cpu
    from drgn.helpers.linux.sched import cpu_curr

    program = drgn.Program()
    program.set_core_dump(dump)
    program.load_debug_info([vmlinux])
    start, end = program.main_module().address_range
    pages = set(range(start & -PAGE, end, PAGE))
    # Those that were stopped are not online any more.
    for cpu in for_each_present_cpu(program):
        task = cpu_curr(program, cpu)
        pages |= _around(task.value_(), drgn.sizeof(task.type_.type)) | _around(task.stack.value_(), STACK)
    for pointer in _stack_pointers(dump):
        pages |= _around(pointer & -STACK, STACK)
    loads = [load(b"".join(run), vaddr=start) for start, run in _runs(program, sorted(pages))]
    return Dump([Segment(type=4, content=bytes(_notes(dump))), *loads], machine=_machine(dump)).write(path)


def _machine(dump: Path) -> int:
    machine: int = struct.unpack_from("<H", dump.open("rb").read(20), 18)[0]
    return machine


def _around(address: int, length: int) -> set[int]:
    return set(range(address & -PAGE, address + length, PAGE))


def _runs(program: Any, pages: list[int]) -> Iterator[tuple[int, list[bytes]]]:
    """(address, its pages) for each stretch of memory that is there."""
    import drgn

    run: list[bytes] = []
    start = 0
    for page, following in pairwise([*pages, -1]):
        try:
            content = program.read(page, PAGE)
        except drgn.FaultError:
            content = None
        if content is not None:
            start = start if run else page
            run.append(content)
        if run and (content is None or following != page + PAGE):
            yield start, run
            run = []


def _notes(dump: Path) -> bytearray:
    """The dump's notes, with the CPUs' numbers as pids: of two idle CPUs (pid 0) gdb would show one twice."""
    offset, size = next((row[2], row[5]) for row in readelf_rows(dump) if row[0] == 4)
    with dump.open("rb") as file:
        file.seek(offset)
        notes = bytearray(file.read(size))
    for cpu, status in enumerate(_statuses(notes)):
        struct.pack_into("<i", notes, status + 32, cpu + 1)
    return notes


def _stack_pointers(dump: Path) -> list[int]:
    notes = _notes(dump)
    return [struct.unpack_from("<Q", notes, status + POINTER[_machine(dump)])[0] for status in _statuses(notes)]


def _statuses(notes: bytearray) -> Iterator[int]:
    """Where the contents of the NT_PRSTATUS are."""
    at = 0
    while at + 12 <= len(notes):
        name, desc, kind = struct.unpack_from("<III", notes, at)
        content = at + 12 + (name + 3 & -4)
        if notes[at + 12 : at + 16] == b"CORE" and kind == 1:
            yield content
        at = content + (desc + 3 & -4)
