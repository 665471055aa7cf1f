"""What a batch of pages costs by stage, in CPU time of one core, on a real dump; and what a frame's size and place are worth.

    python -m benchmarks.pages_cpu DUMP

CPU time and not the clock: it is nearly the same on a busy machine. Every figure is the best of several passes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from backports import zstd

from farcore import frames, gather, layout
from farcore.batch import Batch
from farcore.file import FileSource
from farcore.frames import Decoder
from farcore.gather import FRAME, Gathered, Plan
from farcore.room import INTO, room

PAGE = 4096
COUNT = 2008
PASSES = 9
SIZES = (64 << 10, 256 << 10, 1 << 20, 4 << 20)
LEVELS = (-5, -1, 1, 3, 6, 9, 12)
SAMPLE = 16 << 20


def best(work: Callable[[], object], passes: int = PASSES) -> float:
    """Milliseconds of CPU."""
    times = []
    for _ in range(passes):
        begun = time.thread_time()
        work()
        times.append(time.thread_time() - begun)
    return min(times) * 1e3


def filled(path: str) -> list[int]:
    """The pages of a file that are not zero."""
    pages = np.memmap(path, np.uint64, "r", shape=(os.path.getsize(path) // PAGE, PAGE // 8))
    found: list[int] = np.flatnonzero(pages.any(axis=1)).tolist()
    return found


def stages(path: str, offsets: list[int]) -> None:
    """Each stage of a batch, alone."""
    source = FileSource(os.open(path, os.O_RDONLY), os.path.getsize(path))
    body = Batch.of([("stored", offset, PAGE) for offset in offsets], 1).pack()
    batch = Batch.parse(body)
    stored = layout.stored(source.size)
    drafts = list(Plan(batch, {"stored": stored}))
    found = [gather.collect(source, draft) for draft in drafts]

    def read() -> None:
        for draft in drafts:
            content, at = room(draft.raw), 0
            for offset, length in draft.reads:
                os.preadv(source.fd, [content[at : at + length]], offset, os.RWF_NOWAIT)
                at += length

    def pack(level: int | None) -> list[bytes | memoryview]:
        parts: list[bytes | memoryview] = [frames.opening(batch.total)]
        for draft, one in zip(drafts, found, strict=True):
            parts += frames.frame(draft.at, *one, level)
        return [*parts, frames.closing(batch.total, len(drafts))]

    def decode(answer: bytes) -> None:
        for _ in batch.split(Decoder(batch.total, zstd=True).feed(answer)):
            pass

    plain, packed = b"".join(pack(None)), b"".join(pack(1))
    rows: dict[str, Callable[[], object]] = {
        "parse the batch": lambda: Batch.parse(body),
        "plan": lambda: list(Plan(batch, {"stored": stored})),
        "preadv": read,
        "look for zeros": lambda: [
            gather.without_zeros(draft.at, Gathered(*one)) for draft, one in zip(drafts, found, strict=True)
        ],
        "frames with xxh3": lambda: pack(None),
        "frames with zstd 1": lambda: pack(1),
        "read the answer, plain": lambda: decode(plain),
        "read the answer, zstd 1": lambda: decode(packed),
    }
    print(f"{len(offsets):,} pages, {len(plain) / 1e6:.2f} MB plain, {len(packed) / 1e6:.2f} MB at zstd 1; CPU ms:")
    for name, work in rows.items():
        print(f"  {name:<24}{best(work):8.2f}")


def sizes(path: str, pages: list[int]) -> None:
    """MB and MB/s by level and by size of a frame, for pages in their order."""
    with open(path, "rb") as file:
        text = b"".join(os.pread(file.fileno(), PAGE, page * PAGE) for page in pages[: SAMPLE // PAGE])
    print(f"{len(text) / 1e6:.1f} MB of pages by frames of 64 KiB, 256 KiB, 1 MiB, 4 MiB: MB, and MB/s of one core")
    for level in LEVELS:
        cells = []
        for size in SIZES:
            parts = [text[at : at + size] for at in range(0, len(text), size)]
            length = sum(len(zstd.compress(part, level)) for part in parts)
            spent = best(lambda parts=parts, level=level: [zstd.compress(part, level) for part in parts], 3)  # type: ignore[misc]
            cells.append(f"{length / 1e6:8.2f} {len(text) / spent / 1e3:6.0f}")
        print(f"  zstd {level:>3}" + "".join(cells))


def _read(fd: int, there: memoryview, pieces: range) -> None:
    for at in pieces:
        os.preadv(fd, [there], at)


def placement(path: str) -> None:
    """Microseconds for a frame's bytes out of the page cache, by how far into a page they are read to."""
    whole = np.empty(FRAME + 2 * PAGE, np.uint8)
    start = -whole.ctypes.data % PAGE
    with open(path, "rb") as file:
        pieces = range(0, min(os.path.getsize(path), SAMPLE) - FRAME, FRAME)
        print(f"{FRAME >> 10} KiB by preadv, so many bytes into a page: us")
        for into in (0, 16, 48, 64, INTO):
            there = whole[start + into : start + into + FRAME].data
            spent = best(partial(_read, file.fileno(), there, pieces))
            print(f"  {into:4}{spent / len(pieces) * 1e3:8.1f}")


def main() -> None:
    """The tables for the dump that was named."""
    path = sys.argv[1]
    pages = filled(path)
    chosen = np.sort(np.random.default_rng(COUNT).choice(pages, min(COUNT, len(pages)), replace=False))
    stages(path, [int(page) * PAGE for page in chosen])
    sizes(path, pages)
    placement(path)


if __name__ == "__main__":
    main()
