"""The magics, from makedumpfile 1.7.2's diskdump_mod.h and makedumpfile.h and from elf.h."""

from __future__ import annotations

import pytest

from farcore.formats import MAGIC_SIZE, StoredFormat, sniff

MAGICS: list[tuple[bytes, StoredFormat]] = [
    (b"\x7fELF", "elf"),
    (b"KDUMP   ", "kdump-compressed"),
    (b"DISKDUMP", "kdump-compressed"),
    (b"makedumpfile\0\0\0\0", "flattened"),
]


@pytest.mark.parametrize(("magic", "name"), MAGICS)
def test_a_format_is_known_by_its_magic_whatever_follows(magic: bytes, name: StoredFormat) -> None:
    assert sniff(magic) == name
    assert sniff(magic + b"\xff" * 4096) == name
    assert sniff((magic + bytes(64))[:MAGIC_SIZE]) == name


@pytest.mark.parametrize(
    "start", [b"", bytes(4096), b"\x7fELf", b"ELF", b"KDUMP", b"diskdump", b" KDUMP   ", b"makedumpfile-1.7"]
)
def test_anything_else_is_no_format(start: bytes) -> None:
    assert sniff(start) is None


@pytest.mark.parametrize("magic", [b"\x7fELF", b"KDUMP   ", b"DISKDUMP", b"makedumpfile\0"])
def test_a_magic_cut_or_changed_at_any_byte_is_none(magic: bytes) -> None:
    for at in range(len(magic)):
        assert sniff(magic[:at]) is None
        assert sniff(magic[:at] + bytes([magic[at] ^ 0x20]) + magic[at + 1 :]) is None
