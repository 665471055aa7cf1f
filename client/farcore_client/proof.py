"""Proof: whether a local file is a dump's vmcore, chunk by chunk, by the server's manifest."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from farcore import manifest
from farcore.errors import FarcoreError
from farcore_client.errors import ProtocolError
from farcore_client.fields import Fields

_HEX: Final = re.compile(r"[0-9a-f]{64}")

# Reads up to so many bytes at a position.
Read = Callable[[int, int], bytes]


class Manifest(NamedTuple):
    """Digests of the first chunks of ``size`` bytes; ``trouble``: why the server makes no more of them."""

    size: int
    etag: str
    digests: list[bytes]
    complete: bool
    trouble: str


class DiffersError(FarcoreError, ValueError):
    """A file that is not the dump."""


def parsed(said: dict[str, Any]) -> Manifest:
    """The manifest that a server sent; ProtocolError for one that cannot be used."""
    fields = Fields(said)
    size, etag, digests = fields.number("size"), fields.text("etag"), said.get("digests")
    if fields.text("algorithm") != manifest.ALGORITHM or fields.number("chunk_size") != manifest.CHUNK:
        raise ProtocolError("the server's manifest is of another kind than this farcore knows; is one of the two newer?")
    if size is None or not etag or not isinstance(digests, list) or len(digests) > manifest.count(size):
        raise ProtocolError("the server's manifest is not one; is this the URL of a farcored?")
    if not all(isinstance(each, str) and _HEX.fullmatch(each) for each in digests):
        raise ProtocolError("the server's manifest has something else than digests; is this the URL of a farcored?")
    found = [bytes.fromhex(each) for each in digests]
    return Manifest(size, etag, found, len(found) == manifest.count(size), fields.text("trouble"))


async def compare(read: Read, size: int, digests: Sequence[bytes], first: int = 0) -> int | None:
    """The number of the first chunk, from ``first`` on, that differs from its digest; None if none of them does."""
    loop = asyncio.get_running_loop()

    def digest(number: int) -> bytes:
        at = number * manifest.CHUNK
        return manifest.digest(read(at, min(manifest.CHUNK, size - at)))

    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="proof") as threads:
        step = 4 * (os.cpu_count() or 1)
        for low in range(first, len(digests), step):
            numbers = range(low, min(low + step, len(digests)))
            found = await asyncio.gather(*(loop.run_in_executor(threads, digest, number) for number in numbers))
            different = manifest.first_difference(digests[low : low + step], found)
            if different is not None:
                return low + different
    return None


def place(number: int, size: int) -> str:
    """Where a chunk is, for a person."""
    at = number * manifest.CHUNK
    return f"somewhere in bytes {at:,} to {min(at + manifest.CHUNK, size) - 1:,}"
