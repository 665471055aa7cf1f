"""Fields: a JSON object of the wire, read without trust."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from farcore_client.printable import printable

_HEX: Final = re.compile(r"0x[0-9a-f]{1,32}")


@dataclass(frozen=True, slots=True)
class Fields:
    """An object's members by path. What is missing, or not of the type asked for, is "" or None; all text is printable."""

    members: Mapping[str, Any]

    def _at(self, path: tuple[str, ...]) -> Any:
        found: Any = self.members
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def text(self, *path: str) -> str:
        """A string."""
        found = self._at(path)
        return printable(found) if isinstance(found, str) else ""

    def number(self, *path: str) -> int | None:
        """A count, or the "0x..." string that an address and a size of 2^53 or more are."""
        found = self._at(path)
        if isinstance(found, str) and _HEX.fullmatch(found):
            return int(found, 16)
        return found if type(found) is int and 0 <= found < 1 << 128 else None

    def truth(self, *path: str) -> bool | None:
        """True, false, or neither."""
        found = self._at(path)
        return found if isinstance(found, bool) else None

    def texts(self, *path: str) -> list[str]:
        """The strings of an array."""
        found = self._at(path)
        return [printable(one) for one in found if isinstance(one, str)] if isinstance(found, list) else []

    def several(self, *path: str) -> list[Fields]:
        """The objects of an array."""
        found = self._at(path)
        return [Fields(one) for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    def pairs(self, *path: str) -> dict[str, str]:
        """The members of an object that are strings."""
        found = self._at(path)
        items = found.items() if isinstance(found, dict) else ()
        return {printable(key): printable(value) for key, value in items if isinstance(value, str)}
