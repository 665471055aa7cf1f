"""What a client shows a server: a token, a certificate. Never an argument, and never a part of a URL."""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from farcore.errors import SettingsError

VARIABLE: Final = "FARCORE_TOKEN"
# RFC 6750, 2.1: what may stand after "Bearer".
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
# farcored's tokens have 51 bytes, and the head of a request in which they stand at most 8 KiB.
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class Credentials:
    """A token (never shown by repr), and PEM files: CAs instead of the system's, a certificate and its key."""

    token: str | None = field(default=None, repr=False)
    cacert: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if self.key and not self.cert:
            raise SettingsError("--key is the key of --cert: give the certificate as well")

    @property
    def tls_only(self) -> bool:
        """Whether there is something here that plain HTTP has no place for."""
        return bool(self.cacert or self.cert)

    def ssl_context(self) -> ssl.SSLContext:
        """A context that verifies the server; SettingsError for a file that cannot be used."""
        for path in (self.cacert, self.cert, self.key):
            _demand_readable(path)
        try:
            context = ssl.create_default_context(cafile=self.cacert)
        except ssl.SSLError as error:
            raise SettingsError(f"{self.cacert}: no certificates of CAs: {_reason(error)}") from error
        if self.cert:
            try:
                context.load_cert_chain(self.cert, self.key)
            except ssl.SSLError as error:
                if self.key is None:
                    raise SettingsError(f"{self.cert} is no certificate with its key: give --key FILE") from error
                raise SettingsError(f"{self.cert} and {self.key} are no certificate and its key: {_reason(error)}") from error
        return context


def token(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """The token in the first line of ``file``, else in FARCORE_TOKEN, else None; SettingsError never repeats what it found.

    A file of one's own that others may read is refused, as ssh refuses such a key.
    """
    if file is not None:
        return _valid(_first_line(file), str(file))
    text = environment.get(VARIABLE, "").strip()
    return _valid(text, VARIABLE) if text else None


def _first_line(path: Path) -> str:
    try:
        with path.open("rb", buffering=0) as opened:
            found = os.fstat(opened.fileno())
            if found.st_uid == os.getuid() and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise SettingsError(f"{path}: other users may read this token: `chmod 600 {path}`, then try again")
            line = b""
            # Piecewise, because it may be a pipe: --token-file <(pass show farcore).
            while b"\n" not in line and len(line) <= _LONGEST and (piece := opened.read(_LONGEST)):
                line += piece
    except OSError as error:
        raise SettingsError(f"{path}: the token file cannot be read: {error.strerror}") from error
    return line.partition(b"\n")[0].decode("latin-1").strip()


def _valid(text: str, where: str) -> str:
    if not text:
        raise SettingsError(f"{where}: the first line is empty; it must be the token that `farcored token add NAME` printed")
    if re.fullmatch(r"\S+\s+\S+\s+[0-9a-f]{64}", text):
        raise SettingsError(f"{where}: this is a server's file of digests; the token is what `farcored token add NAME` printed")
    if len(text) > _LONGEST or not _TOKEN.fullmatch(text):
        raise SettingsError(f"{where}: this is no token; it must be what `farcored token add NAME` printed")
    return text


def _demand_readable(path: Path | None) -> None:
    # ssl's own errors for these do not say which file it was.
    try:
        if path:
            path.open("rb").close()
    except OSError as error:
        raise SettingsError(f"{path}: this file for TLS cannot be read: {error.strerror}") from error


def _reason(error: ssl.SSLError) -> str:
    return error.reason.replace("_", " ").lower() if error.reason else "it is not PEM"
