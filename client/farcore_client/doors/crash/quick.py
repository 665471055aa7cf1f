"""Quick: the read that a crash makes a hundred thousand times, answered in a few microseconds. No I/O but the source's.

Nearly all of a session's requests are for a few bytes of memory that it has read before, and crash waits for each: what they
cost here is what a session through the door takes longer. So such a request is not parsed into values and handed from layer
to layer: whatever is not plainly one is left to those.
"""

from __future__ import annotations

from typing import Final

from farcore.errors import FarcoreError
from farcore.source import Source
from farcore_client.doors.crash import answers
from farcore_client.doors.crash.session import MEMORY

PAGE: Final = 4096
# Pages that are kept beside the source's own cache: 64 MiB, eight times a session's.
MOST: Final = 1 << 14
_START: Final = b"READ_LIVE %d " % MEMORY


class Quick:
    """Answers reads within a page of ``memory`` (position = paddr) that was read before."""

    def __init__(self, memory: Source) -> None:
        self._memory = memory
        self._pages: dict[int, bytes] = {}
        self._heads: dict[bytes, tuple[int, bytes]] = {}

    def answer(self, received: bytes) -> bytes | None:
        """The answer to ``received``, None where that is not one such request and nothing else."""
        if not received.startswith(_START) or received.find(0) != len(received) - 1:
            return None
        words = received[len(_START) : -1].split(b" ")
        known = self._heads.get(words[1]) if len(words) > 1 else None
        if known is None:
            return None
        try:
            address = int(words[0], 16)
        except ValueError:
            return None
        length, head = known
        page, within = self._pages.get(address >> 12), address & (PAGE - 1)
        if page is None or within + length > PAGE:
            return None
        return head + page[within : within + length]

    def learn(self, address: int, length: int) -> None:
        """A read that was answered otherwise, and may come again."""
        page = address // PAGE
        if length > PAGE or page in self._pages:
            return
        self._heads.setdefault(b"%d" % length, (length, answers.memory(memoryview(bytes(length)))[:-length]))
        if (page + 1) * PAGE > self._memory.size:
            return
        if len(self._pages) >= MOST:
            self._pages.clear()
        try:
            self._pages[page] = bytes(self._memory.pread(page * PAGE, PAGE))
        except FarcoreError:  # a hole beside what was read
            return
