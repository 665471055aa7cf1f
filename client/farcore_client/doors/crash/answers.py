"""What crash hears: words that end with a NUL; memory behind a head of 13 bytes (remote.c of crash 8.0: DATA_HDRSIZE)."""

from __future__ import annotations

from typing import Final

# What crash takes for "no": of words, and of memory.
NO: Final = b"<FAIL>\0"


def said(*words: object) -> bytes:
    """Words, with a blank between."""
    return " ".join(str(word) for word in words).encode("latin-1") + b"\0"


def memory(content: memoryview) -> bytes:
    """Bytes that crash asked for."""
    return b"DONE %07d\0" % len(content) + content


def no_memory(errno: int) -> bytes:
    """Bytes that crash asked for and cannot have."""
    return b"FAIL %d\0" % errno
