"""Any bytes are refused with BadDumpError, or all of it can be had: verdicts, notes, warnings, spaces, the normalised image.

Allowed: BadDumpError from Elf.open and from the image, FaultError from a read of a space. Whatever is accepted lies in the
file: program headers, notes, and every run of every layout; a layout's runs are ascending, disjoint and within its size.
"""

from __future__ import annotations

from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["farcore"]):
    from farcore import arch, consistency, image, layout, notes, vmcoreinfo
    from farcore.arch import ANY, Policy
    from farcore.elf import PHDR_SIZE, Elf
    from farcore.errors import BadDumpError, FaultError
    from farcore.hosts import HOSTS
    from farcore.layout import Layout
    from farcore.runs import Kind
    from farcore.source import BytesSource
    from farcore.space import Space

from tests.elfwriter import Dump, load, note
from tests.fuzz.seeds import fuzz

SEGMENTS = (
    note(("CORE", 1, bytes(336)), ("VMCOREINFO", 0, b"OSRELEASE=6.1\nCRASHTIME=1\n")),
    load(b"page" * 8, paddr=0x1000, memsz=64),
    load(b"text" * 4, paddr=0x1010, vaddr=0xFFFF0000),
)
SHAPES = [
    Dump(SEGMENTS, bits, data, xnum=xnum).tobytes() for bits in (32, 64) for data in ("LE", "BE") for xnum in (False, True)
]
POLICIES = (Policy(), Policy("kernel"), Policy("cross", frozenset({ANY})))


def file_of(raw: bytes) -> bytes:
    """The first byte chooses a sound file, onto whose start the rest is XORed; after 255 the rest is the file."""
    if raw[:1] == b"\xff":
        return raw[1:]
    sound = SHAPES[sum(raw[:1]) % len(SHAPES)]
    return bytes(a ^ b for a, b in zip(raw[1:], sound, strict=False)) + sound[max(0, len(raw) - 1) :]


def demand_sound(found: Layout, size: int) -> None:
    """The layout's own promises."""
    runs = found.runs
    assert (runs.start < runs.stop).all()
    assert (runs.stop[:-1] <= runs.start[1:]).all()
    # What ELF32's PT_LOADs claim above 4 GiB of virtual addresses is out of reach, not out of the runs.
    assert len(runs) == 0 or int(runs.stop[-1]) <= found.size or found.space == "virtual"
    data = runs.kind == Kind.DATA
    for offset, start, stop in zip(
        runs.offset[data].tolist(), runs.start[data].tolist(), runs.stop[data].tolist(), strict=True
    ):
        assert offset + stop - start <= size


def demand_readable(source: BytesSource, found: Layout) -> None:
    """A read around every edge gives its bytes or a FaultError that lies in what was asked for."""
    edges = {0, found.size, *runs_edges(found)}
    for edge in sorted(edge for edge in edges if edge <= found.size):
        start, stop = max(0, edge - 3), min(found.size, edge + 3)
        fault = None
        try:
            assert len(Space(source, found).pread(start, stop - start)) == stop - start
        except FaultError as error:
            fault = error
        assert fault is None or (start <= fault.address < stop and fault.kind in ("absent", "excluded"))


def runs_edges(found: Layout) -> list[int]:
    """Where the first runs begin and end."""
    return [*found.runs.start.tolist()[:8], *found.runs.stop.tolist()[:8]]


def one(raw: bytes) -> None:
    """The invariant above."""
    content = file_of(raw)
    policy = POLICIES[len(raw) % len(POLICIES)]
    verdict = arch.check(content[:64], HOSTS[sum(raw[:8]) % len(HOSTS)], policy)
    assert [term.name for term in verdict.kernel.terms] == list(arch.TERMS)
    assert verdict.policy.reason.isprintable()
    source = BytesSource(content)
    try:
        elf = Elf.open(source)
    except BadDumpError:
        return
    assert len(elf.segments) * PHDR_SIZE[elf.header.bits] <= len(content)
    found = notes.read(source, elf)
    assert all(each.name.isprintable() and notes.type_name(each).isprintable() for each in found.notes)
    assert all(0 <= offset <= offset + length <= len(content) for offset, length in found.extents)
    assert all(warning.isprintable() for warning in consistency.warnings(elf, len(content), found))
    assert consistency.missing(elf, len(content)) >= 0
    known = vmcoreinfo.of_linux(found.notes)
    assert known is None or all((key + value).isprintable() for key, value in known.values.items())
    layouts = [layout.physical(elf, len(content)), layout.virtual(elf, len(content)), layout.stored(len(content))]
    with suppress(BadDumpError):
        layouts.append(image.normalised(elf, len(content), found.extents))
    for each in layouts:
        demand_sound(each, len(content))
        demand_readable(source, each)


if __name__ == "__main__":
    fuzz(one, [*(bytes([i]) for i in range(len(SHAPES))), *(b"\xff" + shape for shape in SHAPES)])
