"""CacheDir: where pages that were read are kept for the next session, and how many bytes of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple, Self

from farcore.errors import SettingsError

VARIABLE: Final = "FARCORE_CACHE"
# What sessions on some ten dumps read: one of crash reads 8 to 60 MB.
CAPACITY: Final = 1 << 30
# A set of slots has 32 KiB, and a cache of a few sets keeps nothing.
LEAST: Final = 4 << 20
_UNITS: Final = {"M": 20, "G": 30, "T": 40}
_SIZED: Final = re.compile(r"(?P<path>.+),(?P<count>[0-9]{1,6})(?P<unit>[MGT])", re.DOTALL | re.ASCII)


class CacheDir(NamedTuple):
    """A directory, and the bytes that its file has at most."""

    path: Path
    capacity: int = CAPACITY

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Of DIR or DIR,SIZE (4M at the least); None for nothing at all."""
        if not text:
            return None
        sized = _SIZED.fullmatch(text)
        path = Path(sized["path"] if sized else text).expanduser()
        capacity = int(sized["count"]) << _UNITS[sized["unit"]] if sized else CAPACITY
        if capacity < LEAST:
            raise SettingsError(f"a page cache of {text.rpartition(',')[2]} keeps nothing: give it {LEAST >> 20}M or more")
        return cls(path, capacity)
