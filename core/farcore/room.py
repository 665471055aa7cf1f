"""Room: memory to read large pieces into; it begins with a page, and is not zeroed.

malloc's own large blocks begin 16 bytes behind a page's start. From memory that begins with a page, the page cache and what
sendfile(2) makes of it, Zen 3 copies there 3.5 times slower (measured: `rep movsb` of 256 KiB 112 us, elsewhere 32).
"""

from __future__ import annotations

from typing import Final

import numpy as np

PAGE: Final = 4096
# Where malloc's blocks of this size lie is not always the same, and little is copied.
SMALL: Final = 32 << 10


def room(size: int) -> memoryview:
    """Writable bytes, of any content."""
    if size <= SMALL:
        return memoryview(bytearray(size))
    whole = np.empty(size + PAGE, np.uint8)
    start = -whole.__array_interface__["data"][0] % PAGE
    return whole[start : start + size].data
