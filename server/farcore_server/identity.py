"""Identity: which version of a file this is, and the ETag that says so."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from farcore import image
from farcore.formats import StoredFormat

BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Identity(NamedTuple):
    """What tells two versions of a file apart. /proc/vmcore has no stable mtime; there the boot is its version."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    boot_id: str | None = None

    @classmethod
    def of(cls, stat: os.stat_result, *, in_proc: bool = False) -> Identity:
        """The identity that stat(2) shows; ``in_proc`` for a file of procfs."""
        if in_proc:
            return cls(stat.st_dev, stat.st_ino, stat.st_size, 0, Path(BOOT_ID).read_text().strip())
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)

    def holds(self, stat: os.stat_result) -> bool:
        """Whether stat(2) still shows this version."""
        return (
            stat.st_size == self.size
            and stat.st_ino == self.inode
            and (stat.st_mtime_ns == self.mtime_ns or self.boot_id is not None)
            and stat.st_dev == self.device
        )

    def etag(self, stored_format: StoredFormat | None, *others: object) -> str:
        """The strong ETag, with its quotes. The device is left out: replicas and remounts keep their tags.

        ``others`` is what else makes this version: the identities of the other parts of a set, the address of raw memory.
        """
        version = (self.boot_id, self.size) if self.boot_id else (self.inode, self.size, self.mtime_ns)
        said = repr((version, stored_format, image.VERSION, *others)).encode()
        return f'"{hashlib.sha256(said).hexdigest()[:32]}"'

    @property
    def modified(self) -> int | None:
        """Last-Modified in whole seconds; None where the file has no such time."""
        return None if self.boot_id else self.mtime_ns // 1_000_000_000
