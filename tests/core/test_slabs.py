"""Slabs by struct pages that are written here: which frames are of one cache, and where nothing is told."""

from __future__ import annotations

import struct
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore.pagetable import MAPPING
from farcore.regions import Regions
from farcore.slabs import MOST_KIN, Slabs
from farcore.source import BytesSource
from farcore.vmcoreinfo import Vmcoreinfo

DIRECT, VMALLOC, VMEMMAP = 0xFFFF888000000000, 0xFFFFC90000000000, 0xFFFFEA0000000000
KNOWN = Vmcoreinfo({"NUMBER(PG_slab)": "9", "SIZE(page)": "64", "OFFSET(page.compound_head)": "8"})
SLAB = 1 << 9
FIRST = 1000  # the frame of the first struct page here


def memmap(pages: list[bytes]) -> tuple[Regions, BytesSource]:
    mapped = np.array([(VMEMMAP + FIRST * 64, 0, len(pages) * 64)], MAPPING)
    return Regions(DIRECT, VMALLOC, VMEMMAP, 0xFFFFFFFF80000000, mapped), BytesSource(b"".join(pages))


def head(cache: int, word: int, frame: int) -> bytes:
    """A slab's first page: its cache, and a free list within itself."""
    words = [SLAB, 0, 0, 0, 0, 0, 0, 0]
    words[word], words[word + 1] = DIRECT + cache * 256, DIRECT + frame * 4096 + 64
    return struct.pack("<8Q", *words)


def tail(of: int) -> bytes:
    return struct.pack("<8Q", 0, VMEMMAP + of * 64 + 1, 0, 0, 0, 0, 0, 0)


ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.booleans()), min_size=12, max_size=60)


@given(ROWS, st.sampled_from([1, 3]))
def test_frames_are_akin_if_their_slabs_are_of_one_cache(slabs: list[tuple[int, int, bool]], word: int) -> None:
    pages: list[bytes] = []
    expected: dict[int, list[int]] = defaultdict(list)
    for cache, tails, used in slabs:
        frame = FIRST + len(pages)
        if used:
            pages.append(bytes(64))
        else:
            # Where the cache stands in the second word, only a tail page's is odd.
            pages += [head(cache, word, frame), *(tail(frame) for _ in range(tails))]
            expected[cache] += range(frame, frame + 1 + tails)
    found = Slabs.of(*memmap_and_info(pages))
    if found is None:
        assert sum(not used for *_, used in slabs) < 2 * len(expected)
        return
    for frames in expected.values():
        assert all(found.kin(frame).tolist() == frames for frame in frames)
    rest = {*range(FIRST - 1, FIRST + len(pages) + 1)}.difference(*expected.values())
    assert all(found.kin(frame).tolist() == [] for frame in rest)


def memmap_and_info(pages: list[bytes]) -> tuple[Regions, Vmcoreinfo, BytesSource]:
    regions, memory = memmap(pages)
    return regions, KNOWN, memory


def test_of_many_the_nearest_are_named() -> None:
    found = Slabs.of(*memmap_and_info([head(7, 3, FIRST + n) for n in range(3 * MOST_KIN)]))
    assert found is not None
    for frame in (FIRST, FIRST + MOST_KIN, FIRST + 3 * MOST_KIN - 1):
        kin = found.kin(frame).tolist()
        assert len(kin) == MOST_KIN
        assert frame in kin
        assert kin == list(range(kin[0], kin[0] + MOST_KIN))


@pytest.mark.parametrize("lacks", ["NUMBER(PG_slab)", "SIZE(page)"])
def test_a_kernel_that_does_not_say_enough_has_none(lacks: str) -> None:
    regions, memory = memmap([head(7, 3, FIRST)] * 4)
    assert Slabs.of(regions, Vmcoreinfo({key: value for key, value in KNOWN.values.items() if key != lacks}), memory) is None


def test_struct_pages_of_random_bytes_name_nothing() -> None:
    noise = np.random.default_rng(1).bytes(64 * 100)
    assert Slabs.of(*memmap_and_info([noise[at : at + 64] for at in range(0, len(noise), 64)])) is None
