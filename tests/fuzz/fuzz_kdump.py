"""Any bytes are refused with BadDumpError, or are a dump whose memory, notes and composed image can all be read.

Allowed: BadDumpError from opening and composing, FaultError from a read. Whatever is accepted keeps its promises: runs are
ascending and disjoint, a read gives its bytes or a fault, and the image is an ELF core that Elf.open takes as it was composed.
"""

from __future__ import annotations

from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["farcore"]):
    from farcore import rawmemory, vmcore
    from farcore.composed import HEADERS, Composed
    from farcore.diskdump import Diskdump
    from farcore.elf import Elf
    from farcore.errors import BadDumpError, FaultError
    from farcore.flattened import Flattened
    from farcore.kdump import Kdump
    from farcore.linear import linear
    from farcore.pagecache import PageCache
    from farcore.source import BytesSource, Source
    from farcore.space import Space
    from farcore.vmcoreinfo import of_linux

from tests.fuzz.seeds import fuzz
from tests.kdumpwriter import Kdump as File
from tests.kdumpwriter import flattened

PAGES = {0: b"\1" * 512, 1: bytes(512), 2: b"page" * 128, 9: b"\2" * 512}
NOTES = b"\x05\0\0\0\x08\0\0\0\x01\0\0\0CORE\0\0\0\0status!!"
SHAPES = [
    File(
        pages=PAGES,
        excluded={3, 4},
        version=version,
        bits=bits,
        data=data,
        machine=machine,
        block=512,
        compress=compress,
        notes=NOTES,
        vmcoreinfo=b"OSRELEASE=6.1\n",
    ).tobytes()
    for version, (bits, data, machine), compress in (
        (6, (64, "LE", "x86_64"), "zlib"),
        (6, (64, "BE", "s390x"), "lzo"),
        (5, (32, "LE", "i686"), "snappy"),
        (3, (32, "BE", "ppc"), "zstd"),
        (1, (32, "LE", "armv7l"), "raw"),
    )
]
SHAPES.append(flattened([(0, SHAPES[0][:700]), (600, SHAPES[0][600:])]))
LIME = b"EMiL\1\0\0\0" + bytes(8) + b"\x0f" + bytes(15) + b"sixteen bytes!!!"


def file_of(raw: bytes) -> bytes:
    """The first byte chooses a sound file, the rest changes it: where (two bytes) and by what it is XORed (one).

    After 255 the rest is the file itself.
    """
    if raw[:1] == b"\xff":
        return raw[1:]
    content = bytearray(SHAPES[sum(raw[:1]) % len(SHAPES)])
    for at in range(1, len(raw) - 2, 3):
        content[int.from_bytes(raw[at : at + 2], "little") % len(content)] ^= raw[at + 2]
    return bytes(content)


def demand_readable(source: Source, edges: list[int]) -> None:
    """A read around every edge gives its bytes or a fault."""
    for edge in edges:
        start, stop = max(0, edge - 3), min(source.size, edge + 3)
        if start < stop:
            with suppress(FaultError):
                assert len(source.pread(start, stop - start)) == stop - start


def one(raw: bytes) -> None:
    """The invariant above."""
    content = file_of(raw)
    source: Source = BytesSource(content)
    with suppress(BadDumpError):
        runs, _ = rawmemory.lime(source)
        assert (runs.stop[:-1] <= runs.start[1:]).all()
    if content.startswith(b"makedumpfile"):
        try:
            found = Flattened.index(source)
        except BadDumpError:
            return
        assert found.size == int(found.runs.stop[-1])
        source = found.over(source)
        demand_readable(source, [0, found.size, *found.runs.start.tolist()[:8]])
    try:
        kdump = Kdump.open([source], cache=PageCache(4096))
        raw_notes = vmcore.notes_of(source, kdump.header)
    except (BadDumpError, FaultError):
        return
    runs = kdump.pages.runs
    assert (runs.start < runs.stop).all()
    assert (runs.stop[:-1] <= runs.start[1:]).all()
    memory = kdump.memory()
    demand_readable(kdump, [0, kdump.size])
    demand_readable(memory, [0, memory.size, *runs.start.tolist()[:8], *runs.stop.tolist()[:8]])
    written: Diskdump = kdump.header
    own = vmcore.header(min(written.host.native(written.bits), default=0) if written.host else 0, written.bits, written.data)
    notes = vmcore.read_notes(raw_notes, own)
    with suppress(BadDumpError):
        image = vmcore.compose(own, runs, raw_notes, linear(memory, own, of_linux(notes.notes)))
        whole = Space(Composed(kdump, image.headers), image.beside(HEADERS))
        again = Elf.open(whole)
        assert again.segments.tobytes() == image.elf.segments.tobytes()
        demand_readable(whole, [0, image.headers.size, whole.size])


if __name__ == "__main__":
    fuzz(one, [*(bytes([i]) for i in range(len(SHAPES))), *(b"\xff" + shape for shape in SHAPES), b"\xff" + LIME])
