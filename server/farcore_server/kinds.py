"""How the values of settings are written. Each Kind reads one text, whether a flag, a variable or a file brought it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final, NamedTuple


class Listen(NamedTuple):
    """Where to listen: a name or an address (IPv6 without its brackets), and a port, 0 for one that the kernel picks."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine gets there; a name other than localhost is taken for one that others know."""
        try:
            address = ip_address(self.host)
        except ValueError:
            return self.host == "localhost"
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return (mapped or address).is_loopback


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to write a value: its place in help texts, its types in TOML (``noun`` names them), and the reader of its text.

    ``parse`` raises ValueError with a clause for a person. ``path``: a relative one in a file starts from that file.
    """

    metavar: str
    noun: str
    toml: tuple[type, ...]
    parse: Callable[[str], object]
    path: bool = False


def _listen(text: str) -> Listen:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text, re.ASCII)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8787, [::1]:8787 or 0.0.0.0:8787")
    if match[1]:
        try:
            IPv6Address(match[1])
        except ValueError:
            raise ValueError(f"{match[1]!r} is not an IPv6 address") from None
    return Listen(match[1] or match[2].lower(), int(match[3]))


def choice(*words: str) -> Kind:
    """One of ``words``."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is none of {', '.join(words)}")
        return text

    return Kind("|".join(words), "a string", (str,), parse)


def seconds(least: float, most: float) -> Kind:
    """A time from ``least`` to ``most``, both included."""

    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text, re.ASCII) or not least <= float(text) <= most:
            raise ValueError(f"{text!r} is not a number of seconds from {least:g} to {most:g}")
        return float(text)

    return Kind("SECONDS", "a number", (int, float), parse)


def whole(least: int, most: int) -> Kind:
    """A number from ``least`` to ``most``, both included."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not least <= int(text) <= most:
            raise ValueError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return Kind("N", "a whole number", (int,), parse)


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15})([KMGT]?)", text.upper(), re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a size: write bytes, or a number with K, M, G or T, such as 512M")
    return int(match[1]) << " KMGT".index(match[2] or " ") * 10


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "yes", "on", "1", "false", "no", "off", "0"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() in ("true", "yes", "on", "1")


def _arch(text: str) -> str:
    from farcore.hosts import host  # late: numpy comes with it, and `farcored token` has no need of that

    return host(text).name


def _allowed(text: str) -> str:
    return text if text == "any" else _arch(text)


def _filled(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("an empty path names no file")
    return text


SIZE: Final = Kind("SIZE", "a number or a string", (int, str), _size)
SWITCH: Final = Kind("", "true or false", (bool,), _switch)
LISTEN: Final = Kind("HOST:PORT", "a string", (str,), _listen)
HOST_ARCH: Final = Kind("NAME", "a string", (str,), _arch)
ALLOW_ARCH: Final = Kind("NAME", "a string", (str,), _allowed)
DUMP_PATH: Final = Kind("PATH", "a string", (str,), _filled, path=True)
FILE: Final = Kind("FILE", "a string", (str,), lambda text: Path(_filled(text)), path=True)
