"""Room: writable memory of any size, which lies in its page where copies from and to it are quick."""

from __future__ import annotations

import numpy as np
import pytest

from farcore.room import INTO, PAGE, SMALL, room


@pytest.mark.parametrize("size", [0, 1, SMALL, SMALL + 1, 256 << 10, (2 << 20) + 7])
def test_it_has_its_size_and_can_be_written(size: int) -> None:
    found = room(size)
    assert (len(found), found.readonly, found.format) == (size, False, "B")
    found[:] = b"\xa5" * size
    assert bytes(found) == b"\xa5" * size


@pytest.mark.parametrize("size", [SMALL + 1, 256 << 10, 3 << 20])
def test_what_is_large_begins_at_the_same_place_of_a_page(size: int) -> None:
    held = [room(size) for _ in range(5)]
    assert {np.frombuffer(each, np.uint8).ctypes.data % PAGE for each in held} == {INTO}
