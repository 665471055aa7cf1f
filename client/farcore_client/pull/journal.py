"""Journal: which chunks of a file are there, whole, checked and on the disk; what a pull that was killed goes on from.

A line that says of what, then entries of 24 bytes: first chunk, how many, and a checksum over the line and both. It only grows,
so whatever a crash leaves is a whole journal of an earlier moment, and at most one torn entry, which is dropped.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import xxhash

from farcore_client.pull.chunks import CHUNK

_ENTRY: Final = struct.Struct("<QQQ")
_WORD: Final = "farcore-pull"
_VERSION: Final = 1
# A line has a path of a URL and an ETag: HTTP's head would not be longer.
_MAX_LINE: Final = 32 << 10


@dataclass(frozen=True, slots=True)
class Subject:
    """What is pulled: ``resource`` is the URL's path, ``etag`` the strong ETag (or what else tells versions apart)."""

    resource: str
    etag: str
    size: int


class Journal:
    """Of one file at ``path``, open to be appended to."""

    def __init__(self, path: Path, fd: int, line: bytes) -> None:
        self.path, self._fd, self._seed = path, fd, line

    @classmethod
    def create(cls, path: Path, subject: Subject, part: int) -> Journal:
        """A new one about the file with the inode ``part``, on the disk before anything of that file is."""
        line = _line(subject, part)
        new = path.with_name(path.name + ".new")
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(fd, line)
        os.fsync(fd)
        os.rename(new, path)
        return cls(path, fd, line)

    @classmethod
    def open(cls, path: Path, part: int) -> tuple[Journal, Subject, list[tuple[int, int]]] | None:
        """The journal, its subject and its runs of chunks (first, count); None where it is not about the inode ``part``."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with open(fd, "rb", closefd=False) as file:
            line = file.readline(_MAX_LINE)
            subject = _subject(line, part)
            if subject is None:
                os.close(fd)
                return None
            journal = cls(path, fd, line)
            runs = journal._entries(file.read(), subject)
        # What is torn goes, or the next entry would follow it and never be found.
        os.ftruncate(fd, len(line) + len(runs) * _ENTRY.size)
        os.lseek(fd, 0, os.SEEK_END)
        return journal, subject, runs

    def append(self, runs: Iterable[tuple[int, int]]) -> None:
        """Enter these chunks, whose bytes are on the disk; returns when the entries are as well."""
        entries = b"".join(_ENTRY.pack(first, count, self._checksum(first, count)) for first, count in runs)
        at = os.lseek(self._fd, 0, os.SEEK_CUR)
        try:
            if os.write(self._fd, entries) != len(entries):
                raise OSError(28, os.strerror(28))
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, at)
            os.lseek(self._fd, at, os.SEEK_SET)
            raise

    def close(self) -> None:
        """The descriptor."""
        os.close(self._fd)

    def _entries(self, content: bytes, subject: Subject) -> list[tuple[int, int]]:
        runs: list[tuple[int, int]] = []
        chunks = -(-subject.size // CHUNK)
        for first, count, checksum in _ENTRY.iter_unpack(content[: len(content) // _ENTRY.size * _ENTRY.size]):
            if checksum != self._checksum(first, count) or first + count > chunks:
                break
            runs.append((first, count))
        return runs

    def _checksum(self, first: int, count: int) -> int:
        return xxhash.xxh3_64_intdigest(self._seed + struct.pack("<QQ", first, count))


def _line(subject: Subject, part: int) -> bytes:
    said = json.dumps({_WORD: _VERSION, "chunk": CHUNK, "part": part, **asdict(subject)})
    return f"{said} {xxhash.xxh3_64_hexdigest(said.encode())}\n".encode()


def _subject(line: bytes, part: int) -> Subject | None:
    said, _, checksum = line.decode("ascii", "replace").removesuffix("\n").rpartition(" ")
    if xxhash.xxh3_64_hexdigest(said.encode()) != checksum:
        return None
    found: dict[str, Any] = json.loads(said)
    if (found.pop(_WORD), found.pop("chunk"), found.pop("part")) != (_VERSION, CHUNK, part):
        return None
    return Subject(**found)
