"""Dumps at random, and what their PT_LOADs say of each address: a dict painted byte by byte, which knows nothing of farcore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hypothesis import strategies as st

from tests.elfwriter import Dump, load, note

Field = Literal["paddr", "vaddr"]
EXCLUDED = None

# Where pieces of up to 40 bytes start: at the bottom, around the sign bit, and up to and over the end of the addresses.
BASES = {32: (0, (1 << 31) - 20, (1 << 32) - 30), 64: (0, (1 << 63) - 20, (1 << 64) - 60)}


class Row(NamedTuple):
    """What a PT_LOAD says, by one of its two addresses."""

    start: int
    offset: int
    filesz: int
    memsz: int

    @property
    def stop(self) -> int:
        """One past the last address."""
        return self.start + max(self.filesz, self.memsz)


def placed(rows: Sequence[Row], bits: int = 64) -> list[Row]:
    """The rows that have an address: not ~0, and not up to 2^64 or past it."""
    return [row for row in rows if row.start != (1 << bits) - 1 and row.stop < 1 << 64]


def painted(rows: Sequence[Row], content: bytes, bits: int = 64) -> dict[int, int | None]:
    """Address -> its byte, or EXCLUDED; what is absent is not in it. Data beats exclusions, the first PT_LOAD the others."""
    memory: dict[int, int | None] = {}
    for row in placed(rows, bits):
        for i in range(row.filesz):
            if row.offset + i < len(content):
                memory.setdefault(row.start + i, content[row.offset + i])
    for row in placed(rows, bits):
        for i in range(row.filesz, row.memsz):
            memory.setdefault(row.start + i, EXCLUDED)
    return memory


@dataclass(frozen=True, slots=True)
class Painted:
    """A dump file, its PT_LOADs, and the memory that they describe, all of it within [low, high)."""

    content: bytes
    rows: Sequence[Row]
    memory: Mapping[int, int | None]
    low: int
    high: int
    span: int


@st.composite
def dumps(draw: st.DrawFn, field: Field = "paddr") -> Painted:
    """Small dumps with all that can be odd: overlaps, tails, what is past the file's end, ~0, sizes of 0."""
    bits, data = draw(st.tuples(st.sampled_from((32, 64)), st.sampled_from(("LE", "BE"))))
    base, top = draw(st.sampled_from(BASES[bits])), (1 << bits) - 1
    starts = st.integers(base, min(base + 40, top)) | st.just(top)
    rows = draw(st.lists(st.builds(Row, starts, st.integers(0, 500), st.integers(0, 24), st.integers(0, 30)), max_size=6))
    other = draw(st.integers(0, top))
    loads = []
    for start, offset, filesz, memsz in rows:
        paddr, vaddr = (start, other) if field == "paddr" else (other, start)
        loads.append(load(paddr=paddr, vaddr=vaddr, offset=offset, filesz=filesz, memsz=memsz))
    trailing = draw(st.binary(max_size=120))
    content = Dump([note(("CORE", 1, b"status")), *loads], bits=bits, data=data, trailing=trailing).tobytes()
    span = max((row.stop for row in placed(rows, bits) if row.stop > row.start), default=0)
    low, high = max(0, base - 4), min(base + 80, (1 << 64) - 1)
    return Painted(content, rows, painted(rows, content, bits), low, high, span)
