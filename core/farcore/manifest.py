"""Manifest: blake3 digests of a vmcore's chunks, by which a copy is proved without reading the original again."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

ALGORITHM: Final = "blake3"
# Bytes of a chunk: 1 TiB has 8 MiB of digests, and what differs is found within 4 MiB.
CHUNK: Final = 4 << 20
DIGEST: Final = 32


@cache
def _blake3() -> Any:
    try:
        return importlib.import_module("blake3")
    except ImportError:  # a crash kernel's initramfs
        return None


def has_digests() -> bool:
    """Whether this installation can make them."""
    return _blake3() is not None


def digest(content: bytes | memoryview) -> bytes:
    """The 32 bytes that a manifest has for a chunk."""
    found: bytes = _blake3().blake3(content).digest()
    return found


def count(size: int) -> int:
    """How many chunks a vmcore of ``size`` bytes has; the last one may be shorter."""
    return -(-size // CHUNK)


def first_difference(known: Sequence[bytes], found: Sequence[bytes]) -> int | None:
    """The number of the first chunk whose digests differ, among those that both have."""
    return next((number for number, (one, other) in enumerate(zip(known, found, strict=False)) if one != other), None)
