"""PageCache: decompressed pages, so many bytes of them, least recently used ones first to go. Any number of threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock

from farcore.codecs import Page


class PageCache:
    """At most ``limit`` bytes of pages, by whatever key."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._pages: OrderedDict[Hashable, Page] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> Page | None:
        """The page, now the most recently used one; None where it is not held."""
        with self._lock:
            page = self._pages.get(key)
            if page is not None:
                self._pages.move_to_end(key)
            return page

    def put(self, key: Hashable, page: Page) -> None:
        """Hold it, and let others go."""
        with self._lock:
            if key in self._pages or len(page) > self.limit:
                return
            self._pages[key] = page
            self.held += len(page)
            while self.held > self.limit:
                self.held -= len(self._pages.popitem(last=False)[1])
