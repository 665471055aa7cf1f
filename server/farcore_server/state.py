"""State: what a server remembers between runs - profiles, digests, indexes - in a directory that anyone may delete at any time.

One file an entry: a digest of its kind, key and content, then the content. A file appears by rename, so that workers, and
servers, that share the directory see whole ones; what a power cut or a bad disk leaves has another digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pwd
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

LOG: Final = logging.getLogger(__name__)

# Bytes of each kind. A profile is 100 KB a kernel build; the digests of a 1 TiB dump are 8 MiB; an index is 8 bytes a page; a
# packed map has 1 MB at most.
LIMITS: Final[Mapping[str, int]] = {"profiles": 64 << 20, "digests": 256 << 20, "indexes": 1 << 30, "maps": 64 << 20}

_DIGEST: Final = hashlib.sha256
_DIGEST_SIZE: Final = 32
_TEMPORARY: Final = "tmp-"
# Seconds after which a temporary file has nobody who will rename it: its process died.
_STALE: Final = 3600.0


def directory_of(environ: Mapping[str, str]) -> Path:
    """$STATE_DIRECTORY (systemd's), else $XDG_STATE_HOME/farcore, else ~/.local/state/farcore."""
    if given := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(given)
    home = environ.get("XDG_STATE_HOME", "")
    # A relative one is to be ignored, says the XDG Base Directory Specification.
    return (Path(home) if home.startswith("/") else _home(environ) / ".local/state") / "farcore"


def _home(environ: Mapping[str, str]) -> Path:
    if home := environ.get("HOME"):
        return Path(home)
    with contextlib.suppress(KeyError):  # a user whom nobody knows, in a container
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    return Path("/")


class State:
    """Entries by kind (a key of ``limits``, whose value bounds the bytes of all its entries) and key, any text.

    Everything blocks, and nothing raises: where a directory cannot be used, nothing is remembered, and the log says so
    once. ``directory`` None remembers nothing.
    """

    def __init__(self, directory: Path | None, limits: Mapping[str, int] = LIMITS) -> None:
        self.directory, self.limits = directory, limits
        self._complained = False

    def load(self, kind: str, key: str) -> bytes | None:
        """What was last saved; None where there is nothing, or it is not what was saved."""
        if self.directory is None:
            return None
        path = self._path(self.directory, kind, key)
        try:
            with path.open("rb") as file:
                digest, content = file.read(_DIGEST_SIZE), file.read(self.limits[kind])
            with contextlib.suppress(OSError):
                os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._complain(error)
            return None
        return content if digest == _digest(kind, key, content) else None

    def save(self, kind: str, key: str, content: bytes) -> None:
        """Remember ``content`` in the place of what was there; what was least recently used of this kind makes room."""
        size = _DIGEST_SIZE + len(content)
        if self.directory is None or size > self.limits[kind]:
            return
        path = self._path(self.directory, kind, key)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(path, _digest(kind, key, content) + content)
            _trim(path.parent, self.limits[kind])
        except OSError as error:
            self._complain(error)

    def say(self, kind: str, name: str, text: str) -> None:
        """Write ``text`` to the file KIND/NAME of the directory, for other programs to see; ``name`` is safe as one."""
        if self.directory is None:
            return
        try:
            path = self.directory / kind / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(path, text.encode())
        except OSError as error:
            self._complain(error)

    def said(self, kind: str, name: str) -> str | None:
        """What was last said; None where nothing was."""
        try:
            return None if self.directory is None else (self.directory / kind / name).read_text()
        except (OSError, UnicodeDecodeError):
            return None

    def _path(self, directory: Path, kind: str, key: str) -> Path:
        # Not the key itself: it may be a tag with quotes, or longer than a name may be.
        return directory / kind / hashlib.sha256(key.encode()).hexdigest()[:40]

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            LOG.warning("nothing is remembered between runs: %s: %s", error.filename or self.directory, error.strerror)


def _digest(kind: str, key: str, content: bytes) -> bytes:
    digest = _DIGEST(f"{kind}\0{key}\0".encode())
    digest.update(content)
    return digest.digest()


def _write(path: Path, content: bytes) -> None:
    # Not synced: what a power cut leaves is found out by its digest, and was only ever a short cut.
    fd, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
    try:
        with open(fd, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _trim(folder: Path, limit: int) -> None:
    """Remove entries, the least recently used first, until all are ``limit`` bytes at most; and what the dead left over."""
    entries: list[tuple[int, int, str]] = []
    with os.scandir(folder) as found:
        for each in found:
            with contextlib.suppress(FileNotFoundError):  # another worker was quicker
                stat = each.stat(follow_symlinks=False)
                if not each.name.startswith(_TEMPORARY):
                    entries.append((stat.st_mtime_ns, stat.st_size, each.path))
                elif time.time() - stat.st_mtime > _STALE:
                    os.unlink(each.path)
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= limit:
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        total -= size
