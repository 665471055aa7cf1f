"""Any memory and any VMCOREINFO give a log or NoLogError: at most MAX_RECORDS messages and MAX_TEXT bytes, and safe text.

Allowed: NoLogError. A log's text is printable ASCII, tabs and line ends; the reason it gives for a crash is one short line.
"""

from __future__ import annotations

from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["farcore"]):
    from farcore import crashreason, dmesg, notes
    from farcore.elf import Elf
    from farcore.errors import NoLogError
    from farcore.source import BytesSource
    from farcore.space import PhysicalSpace

from tests import logwriter, xenwriter
from tests.fuzz.seeds import fuzz
from tests.logwriter import PADDR, Line

LINES = [Line(n * 1_000_000, b"message %d " % n + b"x" * (n * 7 % 40)) for n in range(30)]
PANIC = [*LINES, Line(1, b"Kernel panic - not syncing: \x1b[2J")]
MEMORIES = [
    logwriter.ring(PANIC),
    logwriter.ring(PANIC, word=4),
    logwriter.ring(PANIC, order=">"),
    logwriter.records(PANIC),
    logwriter.records(PANIC, word=4),
    logwriter.plain(b"<1>[    1.000000] Kernel panic - not syncing: \n" * 9),
]
FILES = [memory.dump().tobytes() for memory in MEMORIES]
# The log's own memory, where a few bytes decide: the pointers and counts behind the arrays.
STARTS = [file.index(bytes(memory.content)) for file, memory in zip(FILES, MEMORIES, strict=True)]
FILES.append(xenwriter.dump(dom0=MEMORIES[0].vmcoreinfo(), cr3=(PADDR,), memory=()).tobytes())
STARTS.append(0)


def file_of(raw: bytes) -> bytes:
    """The first byte chooses a dump; then come patches of three bytes: where in its log or its notes, and what is XORed."""
    which = sum(raw[:1]) % len(FILES)
    content = bytearray(FILES[which])
    for at in range(1, len(raw) - 2, 3):
        place = int.from_bytes(raw[at : at + 2], "little")
        start = STARTS[which] if place & 1 else 0
        content[start + (place >> 1) % (len(content) - start)] ^= raw[at + 2]
    return bytes(content)


def one(raw: bytes) -> None:
    """The invariant above."""
    source = BytesSource(file_of(raw))
    with suppress(ValueError):
        elf = Elf.open(source)
        found = notes.read(source, elf).notes
        with suppress(NoLogError):
            log = dmesg.of(PhysicalSpace(source, elf), elf, found)
            assert len(log.records) <= dmesg.MAX_RECORDS
            assert sum(len(record.text) for record in log.records) <= dmesg.MAX_TEXT
            text = log.text()
            assert text.isascii()
            assert text.replace("\n", "").replace("\t", "").isprintable()
            reason = crashreason.reason(text.splitlines())
            assert reason is None or len(reason) <= crashreason.MAX_LENGTH


if __name__ == "__main__":
    fuzz(one, [bytes([which]) for which in range(len(FILES))])
