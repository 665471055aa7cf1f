"""Serves dumps over HTTP: mapping, catalogue, access, range streaming. In Python: ``open_dump(path).physical[a:b]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from farcore_server.memory import Memory, OpenDump, open_dump

__all__ = ["Memory", "OpenDump", "open_dump"]


def __getattr__(name: str) -> object:
    # Late: the command line imports this package and needs none of it.
    if name in __all__:
        from farcore_server import memory

        return getattr(memory, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
