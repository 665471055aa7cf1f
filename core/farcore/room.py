"""Room: memory to read large pieces into; it lies where copies to and from it are quick, and is not zeroed.

malloc's own large blocks begin 16 bytes behind a page's start. From memory that begins with a page, the page cache and what
sendfile(2) makes of it, Zen 3 copies there 3.5 times slower (`rep movsb` of 256 KiB 112 us, elsewhere 32; benchmarks.pages_cpu
measures it), as it does wherever a copy goes up to 63 bytes further into its page than it comes from.
"""

from __future__ import annotations

from typing import Final

import numpy as np

PAGE: Final = 4096
# Where in a page it begins: far enough behind a page's start to read to, and behind malloc's to be read from by libfuse.
INTO: Final = 128
# Where malloc's blocks of this size lie is not always the same, and little is copied.
SMALL: Final = 32 << 10


def room(size: int) -> memoryview:
    """Writable bytes, of any content."""
    if size <= SMALL:
        return memoryview(bytearray(size))
    whole = np.empty(size + PAGE, np.uint8)
    start = (INTO - whole.__array_interface__["data"][0]) % PAGE
    return whole[start : start + size].data
