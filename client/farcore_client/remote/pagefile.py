"""PageFile: pages of dumps in one file that outlives a process and is shared by many, without a lock between them.

A head, a table of slots (WAYS to a set), and their pages. A slot says whose page it has, under a checksum over that and the
page's bytes: whatever a kill, a full disk, a power cut or two writers at once leave there is that very page, or nothing.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import xxhash

from farcore_client.cachedir import CacheDir
from farcore_client.output import OutputError
from farcore_client.remote.cache import PAGE

NAME: Final = "pages"
# Slots that a page may be in: with 8 a cache that is nine tenths full has lost hardly any page.
WAYS: Final = 8
_MAGIC: Final = b"farcore pages 1\n"
# Whose page, which of them, when it was put there (ns), and the checksum.
_SLOT: Final = struct.Struct("<16sQQQ")
_MARK: Final = struct.Struct("<16sQ")
_SET: Final = WAYS * _SLOT.size


class PageFile:
    """The file of a directory that is the user's alone; OutputError where it cannot be had. Any thread may use it."""

    def __init__(self, wanted: CacheDir) -> None:
        self.sets = max(1, (wanted.capacity - 2 * PAGE) // (_SET + WAYS * PAGE))
        self.path = wanted.path / NAME
        try:
            folder = _private(wanted.path)
            try:
                self._fd = self._opened(folder)
            finally:
                os.close(folder)
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(f"{wanted.path} cannot have the page cache: {error.strerror}; give another directory") from error
        self._pages = -(-(PAGE + self.sets * _SET) // PAGE) * PAGE

    def close(self) -> None:
        """The descriptor."""
        os.close(self._fd)

    def find(self, who: bytes, key: int) -> bytes | None:
        """The page that was kept for ``who`` (16 bytes) under ``key``; None if it is not there, or not whole."""
        mark = _MARK.pack(who, key)
        number, slots = self._set(mark)
        way = _way(slots, mark)
        if way is None:
            return None
        page = os.pread(self._fd, PAGE, self._place(number, way))
        *_, checksum = _SLOT.unpack_from(slots, way * _SLOT.size)
        return page if len(page) == PAGE and checksum == _checksum(mark, page) else None

    def keep(self, who: bytes, key: int, page: bytes) -> None:
        """Have it, in the place of the one that came longest ago; OSError of a disk that is full."""
        mark = _MARK.pack(who, key)
        number, slots = self._set(mark)
        way = _way(slots, mark)
        if way is None:
            times = [when for _, _, when, _ in _SLOT.iter_unpack(slots.ljust(_SET, b"\0"))]
            way = times.index(min(times))
        slot = _SLOT.pack(who, key, time.time_ns(), _checksum(mark, page))
        # In whichever order the disk has them: until both are there the checksum is wrong.
        _write(self._fd, page, self._place(number, way))
        _write(self._fd, slot, self._row(number) + way * _SLOT.size)

    def _set(self, mark: bytes) -> tuple[int, bytes]:
        number = xxhash.xxh3_64_intdigest(mark) % self.sets
        return number, os.pread(self._fd, _SET, self._row(number))

    def _row(self, number: int) -> int:
        return PAGE + number * _SET

    def _place(self, number: int, way: int) -> int:
        return self._pages + (number * WAYS + way) * PAGE

    def _opened(self, folder: int) -> int:
        """A descriptor of the file; one of another size or version is replaced: who reads it keeps it until they end."""
        fcntl.flock(folder, fcntl.LOCK_EX)
        head = _MAGIC + self.sets.to_bytes(8, "little")
        try:
            fd = os.open(NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except FileNotFoundError:
            pass
        else:
            if os.pread(fd, len(head), 0) == head and os.fstat(fd).st_mode & 0o777 == 0o600:
                return fd
            os.close(fd)
        new = NAME + ".new"
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        try:
            os.fchmod(fd, 0o600)
            _write(fd, head, 0)
            os.rename(new, NAME, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.close(fd)
            raise
        return fd


def _way(slots: bytes, mark: bytes) -> int | None:
    at = slots.find(mark)
    while at >= 0 and at % _SLOT.size:
        at = slots.find(mark, at + 1)
    return at // _SLOT.size if at >= 0 else None


def _checksum(mark: bytes, page: bytes) -> int:
    return xxhash.xxh3_64_intdigest(page, xxhash.xxh3_64_intdigest(mark))


def _write(fd: int, content: bytes, position: int) -> None:
    if os.pwrite(fd, content, position) != len(content):
        raise OSError(28, os.strerror(28))


def _private(path: Path) -> int:
    """A descriptor of the directory, made where it is not there; a dump is a machine's memory, so it is nobody else's."""
    os.makedirs(path.parent, exist_ok=True)
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        os.close(fd)
        raise OutputError(
            f"{path} is not yours alone, and a page cache is a machine's memory: `chmod 700 {path}`, or give another directory"
        )
    return fd
