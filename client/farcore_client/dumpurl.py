"""The URLs that a client takes, of a server and of a dump on it. It never leaves their host and port."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final, Literal, NamedTuple

from farcore.errors import SettingsError

_DUMPS: Final = "/v1/dumps"
_PORTS: Final = {"http": 80, "https": 443}
# What a resolver takes: labels of 63 bytes, 253 in all.
_HOST: Final = re.compile(r"(?=.{1,254}\Z)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?|\[(?P<v6>[0-9a-f:.]+)\]", re.ASCII)
_AUTHORITY: Final = re.compile(r"(?P<host>[^:\[\]]*|\[[^\]]*\])(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
# An id, and what does not belong behind it.
_DUMP: Final = re.compile(f"{_DUMPS}/([a-z0-9][a-z0-9-]{{0,127}})(/.*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """http(s)://host:port and nothing more; an IPv6 ``host`` has its brackets."""

    scheme: Literal["http", "https"]
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")

    @property
    def place(self) -> str:
        """host:port."""
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> ServerUrl:
        """The server's URL; SettingsError says how it must be written."""
        url = _split(text)
        if url.path in ("", "/"):
            return url.server
        if dump := _DUMP.fullmatch(url.path):
            raise SettingsError(f"{text} is the URL of a dump: `farcore info {url.server}{_DUMPS}/{dump[1]}` describes it")
        raise SettingsError(f"a server's URL has no path: write {url.server}")


@dataclass(frozen=True, slots=True)
class DumpUrl:
    """http(s)://host:port/v1/dumps/{id}; ``id`` is safe as a file name."""

    server: ServerUrl
    id: str

    def __str__(self) -> str:
        return f"{self.server}{self.path}"

    @property
    def path(self) -> str:
        """/v1/dumps/{id}."""
        return f"{_DUMPS}/{self.id}"

    @classmethod
    def parse(cls, text: str) -> DumpUrl:
        """The dump's URL; SettingsError says how it must be written."""
        url = _split(text)
        found = _DUMP.fullmatch(url.path)
        if found is None:
            raise SettingsError(f"{text} is not the URL of a dump: `farcore ls {url.server}` shows those that there are")
        if found[2]:
            raise SettingsError(f"a dump's URL ends with its id: write {url.server}{_DUMPS}/{found[1]}")
        return cls(url.server, found[1])


class _Url(NamedTuple):
    server: ServerUrl
    path: str


def _split(text: str) -> _Url:
    if not re.fullmatch(r"[!-~]+", text):
        raise SettingsError("a URL has neither blanks nor characters outside ASCII: write http://HOST:PORT/v1/dumps/ID")
    head, separator, rest = text.partition("://")
    scheme, rest = (head.lower(), rest) if separator else ("", text)
    rest, *beyond = re.split(r"[?#]", rest, maxsplit=1)
    # Both before anything repeats the URL: what stands there may be a secret.
    if "@" in rest:
        raise SettingsError("a URL must not carry a user or a password: give --token-file FILE, or set FARCORE_TOKEN")
    if beyond:
        raise SettingsError(f"a URL must end before its ? or #: write {scheme or 'http'}://{rest}")
    if not separator:
        raise SettingsError(f"{text} has no scheme: write http://{text}, or https://{text} where the server has TLS")
    if scheme not in ("http", "https"):
        raise SettingsError(f"{scheme}:// is not spoken here: write http://{rest}, or https://{rest}")
    authority = rest.partition("/")[0]
    return _Url(_server("http" if scheme == "http" else "https", authority), rest[len(authority) :])


def _server(scheme: Literal["http", "https"], authority: str) -> ServerUrl:
    parts = _AUTHORITY.fullmatch(authority.lower())
    host = _HOST.fullmatch(parts["host"]) if parts else None
    port = int(parts["port"] or _PORTS[scheme]) if parts else 0
    if host is None or not 1 <= port <= 65535 or not _is_v6(host["v6"]):
        raise SettingsError(f"{authority!r} is not HOST:PORT: write {scheme}://127.0.0.1:8787 or {scheme}://[::1]:8787")
    return ServerUrl(scheme, host[0], port)


def _is_v6(text: str | None) -> bool:
    try:
        IPv6Address(text or "::")
    except ValueError:
        return False
    return True
