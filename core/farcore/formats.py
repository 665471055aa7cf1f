"""Which of the field's dump formats a file starts like, by its magic alone."""

from __future__ import annotations

from typing import Final, Literal

from farcore.elf import MAGIC

StoredFormat = Literal["elf", "kdump-compressed", "flattened", "raw"]

# makedumpfile 1.7.2: diskdump_mod.h (KDUMP_SIGNATURE, and diskdump's own), makedumpfile.h (MAKEDUMPFILE_SIGNATURE).
_MAGICS: Final[tuple[tuple[bytes, StoredFormat], ...]] = (
    (MAGIC, "elf"),
    (b"KDUMP   ", "kdump-compressed"),
    (b"DISKDUMP", "kdump-compressed"),
    (b"makedumpfile\0", "flattened"),
    # LiME, v1 (farcore.rawmemory).
    (b"EMiL\1\0\0\0", "raw"),
)
MAGIC_SIZE: Final = max(len(magic) for magic, _ in _MAGICS)


def sniff(start: bytes) -> StoredFormat | None:
    """The format of a file whose first MAGIC_SIZE bytes are ``start``; None where no magic is known."""
    return next((name for magic, name in _MAGICS if start.startswith(magic)), None)
