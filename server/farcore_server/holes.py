"""Holes: stretches of a sparse file that no disk block stands behind are zeros, and need not be read to be known as such."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Final

import numpy as np

from farcore.layout import Layout
from farcore.runs import Kind, paint

# Holes that are looked for: each is two system calls. What lies behind the last of them is read.
MAX_HOLES: Final = 4096
# Bytes of a batch for which it is worth while.
WORTH: Final = 16 << 20


def shown(layout: Layout, fd: int, low: int, high: int) -> Layout:
    """The layout of a file as it is, with its holes within [low, high) as runs of zeros; blocks."""
    if layout.head or len(layout.runs) != 1 or int(layout.runs.offset[0]) != int(layout.runs.start[0]):
        return layout
    zeros = _holes(fd, low, min(high, layout.size))
    if not zeros:
        return layout
    edges = np.array(zeros, np.uint64)
    whole = np.array([0, *edges[:, 1].tolist()], np.uint64), np.array([*edges[:, 0].tolist(), layout.size], np.uint64)
    start, stop = np.concatenate([whole[0], edges[:, 0]]), np.concatenate([whole[1], edges[:, 1]])
    kind = np.repeat(np.array([Kind.DATA, Kind.ZERO], np.uint8), [len(edges) + 1, len(edges)])
    return replace(layout, runs=paint(start, stop, start, kind))


def _holes(fd: int, low: int, high: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    try:
        while low < high and len(found) < MAX_HOLES:
            begin = os.lseek(fd, low, os.SEEK_HOLE)
            if begin >= high:
                break
            try:
                end = min(high, os.lseek(fd, begin, os.SEEK_DATA))
            except OSError:  # ENXIO: nothing but a hole up to the end
                end = high
            found.append((begin, end))
            low = end
    except OSError:  # a file system, or /proc, that does not tell
        return []
    return found
