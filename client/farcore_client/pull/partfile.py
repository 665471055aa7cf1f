"""PartFile: FILE.part and FILE.journal beside it, until everything is proved and FILE.part becomes FILE.

Nothing that was there before is ever replaced, and nothing stands under the final name that is not whole. Data is on the
disk before the journal says so, and the journal before the file has its name.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from farcore_client.output import OutputError
from farcore_client.pull.chunks import CHUNK
from farcore_client.pull.journal import Journal, Subject

# Bytes copied, or overwritten, at a time.
_COPY: Final = 1 << 20


class PartFile:
    """Held by one process at a time; ``proved`` are the runs of chunks (first, count) that an earlier pull has left."""

    def __init__(self, final: Path, fd: int, journal: Journal, subject: Subject, proved: list[tuple[int, int]]) -> None:
        self.final, self.subject, self.proved = final, subject, proved
        self._fd, self._journal = fd, journal

    @classmethod
    def open(cls, final: Path, subject: Subject) -> PartFile:
        """The part file of ``subject`` that becomes ``final``, new or taken up; OutputError says what stands in the way."""
        part, journal = _part(final), _journal(final)
        demand_free(final)
        with _sentence(part):
            fd = _locked(part)
            try:
                stat = os.fstat(fd)
                # An empty one is new, whatever a journal of an earlier one says: inodes are used again.
                found = Journal.open(journal, stat.st_ino) if stat.st_size else None
                if found is None:
                    return cls._begin(final, fd, subject)
                taken_up, before, proved = found
                _demand_same(final, before, subject)
                made = cls(final, fd, taken_up, subject, proved)
                made._forget_unproved()
                return made
            except BaseException:
                os.close(fd)
                raise

    @classmethod
    def _begin(cls, final: Path, fd: int, subject: Subject) -> PartFile:
        found = os.fstat(fd)
        if found.st_size:
            raise OutputError(
                f"{_part(final)} is there, and no journal beside it says what it is: remove it, or give another name"
            )
        journal = Journal.create(_journal(final), subject, found.st_ino)
        _sync_folder(final)
        os.ftruncate(fd, subject.size)
        return cls(final, fd, journal, subject, [])

    def _forget_unproved(self) -> None:
        """What was written and not proved may be anything after a power cut; where zeros belong nothing will be written."""
        end = max(((first + count) * CHUNK for first, count in self.proved), default=0)
        os.ftruncate(self._fd, min(end, self.subject.size))
        os.ftruncate(self._fd, self.subject.size)
        at = 0
        for first, count in sorted(self.proved):
            self._punch(at, first * CHUNK)
            at = max(at, (first + count) * CHUNK)

    def _punch(self, start: int, stop: int) -> None:
        while start < stop:
            try:
                start = os.lseek(self._fd, start, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # a hole up to the end of the file
                    return
                raise
            end = min(stop, os.lseek(self._fd, start, os.SEEK_HOLE))
            while start < end:
                start += os.pwrite(self._fd, bytes(min(_COPY, end - start)), start)

    def write(self, content: memoryview, position: int) -> None:
        """All of ``content`` at ``position``."""
        try:
            while content:
                written = os.pwrite(self._fd, content, position)
                content, position = content[written:], position + written
        except OSError as error:
            raise _said(error, _part(self.final)) from error

    def copy(self, source: int, length: int, position: int) -> None:
        """``length`` bytes that have been written at ``source``, once more at ``position``."""
        while length:
            content = os.pread(self._fd, min(length, _COPY), source)
            self.write(memoryview(content), position)
            source, position, length = source + len(content), position + len(content), length - len(content)

    def read(self, position: int, length: int) -> bytes:
        """Up to ``length`` bytes at ``position``."""
        return os.pread(self._fd, length, position)

    def prove(self, runs: Iterable[tuple[int, int]]) -> None:
        """Bring what was written to the disk, then enter these chunks; blocks for as long as the disk takes."""
        with _sentence(_part(self.final)):
            os.fdatasync(self._fd)
            self._journal.append(runs)

    def publish(self) -> None:
        """Give the file its final name, on the disk; every chunk has been proved."""
        part = _part(self.final)
        with _sentence(self.final):
            os.fsync(self._fd)
            _link(part, self.final)
            for path in (part, _journal(self.final)):
                with suppress(FileNotFoundError):
                    os.unlink(path)
            _sync_folder(self.final)

    def close(self) -> None:
        """Let go; what is there stays, to be taken up."""
        self._journal.close()
        os.close(self._fd)


def demand_free(final: Path) -> None:
    """OutputError if something has the final name; a part file that has it as well (a crash at the very end) goes."""
    part = _part(final)
    with suppress(FileNotFoundError):
        if os.path.samefile(part, final):
            os.unlink(part)
            with suppress(FileNotFoundError):
                os.unlink(_journal(final))
    if os.path.lexists(final):
        raise OutputError(f"{final} is there already and is never replaced: remove it, or give another name (-o)")


def _part(final: Path) -> Path:
    return final.with_name(final.name + ".part")


def _journal(final: Path) -> Path:
    return final.with_name(final.name + ".journal")


def _locked(part: Path) -> int:
    """A descriptor of the part file that nobody else holds; OutputError where somebody does."""
    while True:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it until now may have given it its final name meanwhile.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(part)):
                    return fd
        except BlockingIOError:
            os.close(fd)
            raise OutputError(f"another farcore pull is writing {part}: wait for it, or give another name (-o)") from None
        os.close(fd)


def _demand_same(final: Path, before: Subject, now: Subject) -> None:
    if before.resource != now.resource:
        raise OutputError(f"{_part(final)} is the beginning of {before.resource}: remove it, or give another name (-o)")
    if before != now:
        raise OutputError(
            f"the dump was replaced since {_part(final)} was begun, and two versions are never mixed: remove that file to"
            " pull the new one, or give another name (-o)"
        )


def _link(part: Path, final: Path) -> None:
    try:
        os.link(part, final)
    except FileExistsError:
        raise OutputError(
            f"{final} was made by somebody else meanwhile and is not replaced: the dump is whole in {part}"
        ) from None
    except OSError as error:
        # File systems without hard links; what was there a moment ago is still not replaced.
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK) or os.path.lexists(final):
            raise
        os.rename(part, final)


def _sync_folder(final: Path) -> None:
    fd = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS):  # file systems whose directories need none
            raise
    finally:
        os.close(fd)


@contextmanager
def _sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise _said(error, path) from error


def _said(error: OSError, path: Path) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(f"{path} cannot grow ({error.strerror}): make room, then run the same command: it goes on from here")
    return OutputError(f"{path} cannot be written: {error.strerror}")
