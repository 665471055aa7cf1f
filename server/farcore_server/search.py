"""Where dumps may lie: the files below the PATHs that were named. Looks at names and links only, opens nothing."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

# Under such a name a person expects a dump, so one that cannot be served is listed with its reason.
USUAL_NAMES: Final = ("vmcore*", "*.elf", "*.kdump", "*.flat")
# What kdump writes beside a dump: the kernel's log, as text.
_LOGS: Final = "vmcore-dmesg*.txt"

# Raw memory: the file, and the physical address of its first byte.
_ADDRESSED: Final = re.compile(r"(.+)@(0[xX][0-9a-fA-F]{1,16}|[1-9][0-9]{0,18}|0)", re.DOTALL)


class Place(NamedTuple):
    """A file that may be a dump: its absolute path, its name in the catalogue, and the directory it must stay in.

    ``root`` is None for a file that was itself named as a PATH: that one may be a link to anywhere. ``address``: the file is
    raw memory from that physical address on.
    """

    path: str
    name: str
    root: str | None
    address: int | None = None

    @property
    def expected(self) -> bool:
        """Whether it is listed even when it is no dump: it was named as a PATH, or it has a dump's usual name."""
        base = os.path.basename(self.path)
        if self.root is None:
            return True
        return not fnmatch.fnmatchcase(base, _LOGS) and any(fnmatch.fnmatchcase(base, pattern) for pattern in USUAL_NAMES)


def addressed(path: str) -> tuple[str, int | None]:
    """FILE@ADDRESS as its two halves; a path that exists as it is, or has no such end, and None."""
    match = _ADDRESSED.fullmatch(path)
    if match is None or os.path.lexists(path):
        return path, None
    return match[1], int(match[2], 0)


def search(path: str) -> Iterator[Place]:
    """The file ``path`` (FILE@ADDRESS: raw memory), or every file below the directory ``path``, sorted within each directory.

    Linked directories are not entered (they may lead out, or in circles); unreadable ones are passed over, but ``path``
    itself is then a Place of its own, so that somebody says why nothing is there.
    """
    path, address = addressed(os.path.abspath(path))
    if not os.path.isdir(path):
        yield Place(path, os.path.basename(path), None, address)
        return
    root = os.path.realpath(path)
    pending = [path]
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(directory) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            if directory == path:
                yield Place(path, os.path.basename(path), None)
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            elif not (entry.is_symlink() and os.path.isdir(entry.path)):
                yield Place(entry.path, os.path.relpath(entry.path, path), root)
