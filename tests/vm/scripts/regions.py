"""Where a kernel keeps what analysts ask for: prints `KIND PADDR LENGTH` (hexadecimal) a line.

Run by drgn on an x86_64 dump, whose page tables it walks with four levels.
"""

from __future__ import annotations

from collections.abc import Iterator

from drgn import FaultError, Object, Program
from drgn.helpers.linux.mm import follow_phys, virt_to_phys
from drgn.helpers.linux.mmzone import for_each_online_pgdat
from drgn.helpers.linux.pid import for_each_task

PAGE = 4096
PRESENT, LARGE, FRAME = 1, 1 << 7, 0x000FFFFFFFFFF000
STACK = 4 * PAGE

Region = tuple[str, int, int]


def virtual(prog: Program, kind: str, start: int, end: int) -> Iterator[Region]:
    """A range of virtual addresses, page by page; what is not mapped is left out."""
    mm = prog["init_mm"].address_of_()
    for address in range(start & -PAGE, end, PAGE):
        try:
            yield kind, int(follow_phys(mm, address)) & -PAGE, PAGE
        except FaultError:
            continue


def image(prog: Program) -> Iterator[Region]:
    """The kernel's image by its linker symbols: without text, and of rodata without BTF."""
    bounds = [
        ("rodata", "__start_rodata", "kallsyms_offsets"),
        ("kallsyms", "kallsyms_offsets", "kallsyms_token_index"),
        ("rodata", "kallsyms_token_index", "__start_BTF"),
        ("data", "_sdata", "_edata"),
        ("bss", "__bss_start", "_end"),
    ]
    for kind, first, last in bounds:
        yield from virtual(prog, kind, prog.symbol(first).address, prog.symbol(last).address)


def per_cpu_areas(prog: Program) -> Iterator[Region]:
    """What is in use of every CPU's unit of the first chunk: the static per-CPU variables, and what boot allocated."""
    chunk, base = prog["pcpu_first_chunk"], int(prog["pcpu_base_addr"])
    used = int(chunk.base_addr) - base + int(chunk.nr_pages) * PAGE
    for cpu in range(int(prog["nr_cpu_ids"])):
        start = base + int(prog["pcpu_unit_offsets"][cpu])
        yield from virtual(prog, "percpu", start, start + used)


def memmap(prog: Program) -> Iterator[Region]:
    """The struct pages of every zone."""
    base, size = int(prog["vmemmap_base"]), prog.type("struct page").size
    for node in for_each_online_pgdat(prog):
        for zone in node.node_zones:
            first, count = int(zone.zone_start_pfn), int(zone.spanned_pages)
            yield from virtual(prog, "memmap", base + first * size, base + (first + count) * size)


def tables(prog: Program, table: int, level: int, seen: set[int]) -> Iterator[Region]:
    """A page table and those below it."""
    if table in seen:
        return
    seen.add(table)
    yield "tables", table, PAGE
    if level == 1:
        return
    try:
        body = prog.read(table, PAGE, physical=True)
    except FaultError:
        return
    for at in range(0, PAGE, 8):
        entry = int.from_bytes(body[at : at + 8], "little")
        if entry & PRESENT and not (level < 4 and entry & LARGE):
            yield from tables(prog, entry & FRAME, level - 1, seen)


def tasks(prog: Program) -> Iterator[Region]:
    """Page tables, kernel stacks and task structures of every task."""
    seen: set[int] = set()
    yield from tables(prog, int(virt_to_phys(prog, prog.symbol("init_top_pgt").address)), 4, seen)
    every: list[Object] = [*for_each_task(prog), prog["init_task"].address_of_()]
    for task in every:
        yield from virtual(prog, "stacks", int(task.stack), int(task.stack) + STACK)
        yield from virtual(prog, "tasks", int(task), int(task) + prog.type("struct task_struct").size)
        if task.mm:
            yield from tables(prog, int(virt_to_phys(prog, task.mm.pgd)), 4, seen)


def show(prog: Program) -> None:
    """Prints the regions."""
    for part in (image, per_cpu_areas, memmap, tasks):
        for kind, paddr, length in part(prog):
            print(f"{kind} {paddr:x} {length:x}")


show(globals()["prog"])
