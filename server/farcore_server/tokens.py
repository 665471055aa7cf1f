"""The token file: who may read. One line a token, made by `farcored token`, also writable by hand:

    NAME CREATED SHA256        alice 2026-01-31 5e88...(64 lower-case hex digits)

separated by blanks; CREATED is a date (UTC), SHA256 that of the token's bytes: `printf %s "$TOKEN" | sha256sum`. Empty
lines and lines that start with # are kept. The token itself is nowhere in the file: it has 256 random bits, so a
plain digest cannot be searched for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from farcore.errors import FarcoreError, SettingsError

LOG: Final = logging.getLogger(__name__)

# Lets a person, or a scanner of repositories, see what a stray string is.
PREFIX: Final = "farcore_"
# 10,000 tokens of 100 bytes: every check compares with all of them, and a wrong path (a dump) is not read whole.
MAX_SIZE: Final = 1_000_000

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class TokenError(FarcoreError):
    """The file is sound, but has such a name already, or has it not."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One token: who has it, since when, and the SHA-256 of it (32 bytes)."""

    name: str
    created: date
    digest: bytes


def parse(text: str, path: Path) -> tuple[Entry, ...]:
    """The entries of a token file's text, in its order; SettingsError names the path and the line."""
    entries: list[Entry] = []
    seen: dict[str | bytes, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if (entry := _entry(line, f"{path}: line {number}")) is None:
            continue
        for key, what in ((entry.name, f"the name {entry.name}"), (entry.digest, "this token")):
            if key in seen:
                raise SettingsError(f"{path}: line {number}: {what} is already on line {seen[key]}; remove one of the two")
            seen[key] = number
        entries.append(entry)
    return tuple(entries)


def listed(path: Path) -> tuple[Entry, ...]:
    """The entries of the token file at ``path``; SettingsError where it cannot be read."""
    return parse(_read(path)[0], path)


def add(path: Path, name: str) -> str:
    """Make a token for ``name``, keep its digest (the file is made when missing, mode 0600) and return the token.

    TokenError when the name is taken, SettingsError for a name or a file that cannot be taken.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{name!r} is not a token's name: use 1 to 64 letters, digits and . _ @ -, a letter or digit first")
    token = PREFIX + secrets.token_urlsafe(32)
    with _locked(path, create=True) as (file, text):
        if any(entry.name == name for entry in parse(text, path)):
            raise TokenError(f"{path} already has a token named {name}: revoke it first, or take another name")
        line = f"{name} {datetime.now(UTC).date()} {hashlib.sha256(token.encode()).hexdigest()}\n"
        _replace(file, text + ("\n" if text and not text.endswith("\n") else "") + line)
    return token


def revoke(path: Path, name: str) -> None:
    """Drop the token of ``name``; a server that uses the file refuses it from its next request on. TokenError: no such."""
    with _locked(path, create=False) as (file, text):
        if all(entry.name != name for entry in parse(text, path)):
            raise TokenError(f"{path} has no token named {name}: `farcored token list` shows the names")
        kept = [line for line in text.split("\n") if line.split()[:1] != [name]]
        _replace(file, "\n".join(kept))


class TokenFile:
    """The tokens that count now: follows the file at ``path`` at the price of one stat a look.

    SettingsError when the file cannot be used at first. Later on, a file that cannot be used lets nobody in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version = 0
        self._complaint = ""
        text, self._identity = _read(path)
        self._entries = parse(text, path)

    @property
    def version(self) -> int:
        """Grows when the file has changed: what an older one allowed must be asked for again."""
        self._follow()
        return self._version

    def verify(self, token: str) -> str | None:
        """The name that ``token`` belongs to, as of now; takes equally long whichever entry it is."""
        self._follow()
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        name = None
        for entry in self._entries:
            if hmac.compare_digest(entry.digest, digest):
                name = entry.name
        return name

    def _follow(self) -> None:
        if _identity_of(self.path) == self._identity:
            return
        self._version += 1
        self._entries, self._identity = (), None
        try:
            text, identity = _read(self.path)
            # Kept for a malformed file as well, so that it is parsed once; an unreadable one is tried again every time.
            self._identity = identity
            self._entries = parse(text, self.path)
        except SettingsError as error:
            if str(error) != self._complaint:
                LOG.error("no token is accepted until this is mended: %s", error)
            self._complaint = str(error)
        else:
            self._complaint = ""
            LOG.info("read %s again; tokens in it: %d", self.path, len(self._entries))


# What tells one version of the file from another. The inode is in it because our own writes replace the file.
_Identity = tuple[int, int, int, int]


def _identity_of(file: Path | int) -> _Identity | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _entry(line: str, where: str) -> Entry | None:
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    if len(words) != 3:
        raise SettingsError(f"{where}: expected NAME CREATED SHA256, found {len(words)} words")
    name, created, digest = words
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{where}: {name!r} is not a token's name (1 to 64 letters, digits and . _ @ -)")
    if not _DIGEST.fullmatch(digest):
        raise SettingsError(f"{where}: the third word must be a SHA-256 in 64 lower-case hex digits, not a token")
    try:
        if not _DATE.fullmatch(created):
            raise ValueError
        return Entry(name, date.fromisoformat(created), bytes.fromhex(digest))
    except ValueError:
        raise SettingsError(f"{where}: {created!r} is not a date, YYYY-MM-DD") from None


@contextmanager
def _sentences(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise SettingsError(f"{path}: there is no such token file; `farcored token add NAME` makes one") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: this is not text in UTF-8, so it is no token file") from None
    except OSError as error:
        raise SettingsError(f"{path}: the token file cannot be used: {error.strerror or error}") from error


def _read(path: Path) -> tuple[str, _Identity | None]:
    with _sentences(path):
        # O_NONBLOCK: a FIFO under that name must not hang the server.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            # Before the text: a change while it is read then shows at the next look.
            identity = _identity_of(fd)
            return _text(fd, path), identity
        finally:
            os.close(fd)


def _text(fd: int, path: Path) -> str:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise SettingsError(f"{path}: this is not a plain file, so it is no token file")
    with open(fd, "rb", closefd=False) as file:
        content = file.read(MAX_SIZE + 1)
    if len(content) > MAX_SIZE:
        raise SettingsError(f"{path}: this has more than {MAX_SIZE:,} bytes, so it is no token file")
    return content.decode()


@contextmanager
def _locked(path: Path, *, create: bool) -> Iterator[tuple[Path, str]]:
    # Yields the file that ``path`` stands for (a link stays a link) and its text, for one writer at a time.
    # The lock is on the file itself, which _replace() replaces: who has waited for it looks again at the name.
    with _sentences(path):
        file = path.resolve()
        if not file.parent.is_dir():
            raise SettingsError(f"{path}: the token file's directory does not exist; make it first")
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_CREAT if create else 0)
        while True:
            fd = os.open(file, flags, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if _identity_of(file) == _identity_of(fd):
                    yield file, _text(fd, path)
                    return
            finally:
                os.close(fd)


def _replace(file: Path, text: str) -> None:
    # A reader, and a machine that loses power, has the old file or the new one, whole. Mode and owner stay.
    old = os.stat(file)
    fd, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(fd, "wb") as new:
            made = os.fstat(fd)
            if (made.st_uid, made.st_gid) != (old.st_uid, old.st_gid):
                os.fchown(fd, old.st_uid, old.st_gid)
            os.fchmod(fd, stat.S_IMODE(old.st_mode))
            new.write(text.encode())
            new.flush()
            os.fsync(fd)
        os.rename(temporary, file)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
