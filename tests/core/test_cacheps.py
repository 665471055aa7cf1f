"""Cacheps: a cache is known on another boot by a pointer of the image to it; with slabs and images that are written here."""

from __future__ import annotations

import numpy as np
import pytest

from farcore import cacheps
from farcore.cacheps import MOST, Cacheps
from farcore.runs import U64
from farcore.slabs import Slabs
from farcore.source import BytesSource, Extent

# Two boots: where the caches are, which page frames they have, and where the image is.
BOOTS = (
    ({"task": 0xFFFF888001000100, "pid": 0xFFFF888001000200, "odd": 0xFFFF888001000300}, 0x10, 0),
    ({"task": 0xFFFF9A0C05000A00, "pid": 0xFFFF9A0C04000B00, "odd": 0xFFFF9A0C07000C00}, 0x900, 0x3000),
)
DATA = 0x1000  # the image's data, from START_KERNEL_MAP on
WORDS = ("", "pid", "", "task", "task", "", "pid")


def boot(caches: dict[str, int], first: int, base: int) -> tuple[Slabs, BytesSource]:
    """Each cache has three frames, every third from ``first`` on."""
    names = list(caches)
    frame = np.arange(first, first + 3 * len(names), dtype=np.uint64)
    cache = np.array([caches[names[at % len(names)]] for at in range(len(frame))], np.uint64)
    image = np.array([caches.get(word, 7) for word in WORDS], "<u8").tobytes()
    return Slabs(frame, cache), BytesSource(bytes(base + DATA) + image)


def numbers(*values: int) -> U64:
    return np.array(values, np.uint64)


def test_what_one_boot_names_another_one_finds() -> None:
    (caches, first, base), (others, start, moved) = BOOTS
    slabs, memory = boot(caches, first, base)
    extents = [Extent(base + DATA, 8 * len(WORDS))]
    known = Cacheps.of(slabs, extents, base, memory)
    named = known.names(numbers(first, first + 3, first + 1, first + 2, 0x5555))
    assert named.tolist() == [DATA // 8 + 3, DATA // 8 + 1]
    there, elsewhere = boot(others, start, moved)
    found = cacheps.frames(there, cacheps.pointers(named, moved), elsewhere)
    assert found.tolist() == [frame for frame in range(start, start + 9) if (frame - start) % 3 < 2]


def test_what_no_pointer_leads_to_or_nobody_can_read_is_left_out() -> None:
    caches, first, base = BOOTS[0]
    slabs, memory = boot(caches, first, base)
    assert len(Cacheps.of(slabs, [Extent(memory.size, 4096)], base, memory).cache) == 0
    assert len(Cacheps.of(slabs, [], base, memory).names(slabs.frame)) == 0
    # Not a cache's, behind the end of memory, in front of its start.
    wrong = numbers(DATA // 8, 1 << 40)
    assert cacheps.frames(slabs, cacheps.pointers(wrong, base), memory).tolist() == []
    assert cacheps.pointers(numbers(1), -4096) == []


@pytest.mark.parametrize("small", [1, MOST])
def test_small_caches_come_first_and_large_ones_only_where_there_is_room(small: int) -> None:
    one, other = 0xFFFF888001000100, 0xFFFF888001000200
    cache = np.array([one] * small + [other] * MOST, np.uint64)
    slabs = Slabs(np.arange(len(cache), dtype=np.uint64), cache)
    memory = BytesSource(np.array([one, other], "<u8").tobytes())
    found = cacheps.frames(slabs, [Extent(8, 8), Extent(0, 8)], memory)
    assert found.tolist() == list(range(small))
