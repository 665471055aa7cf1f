"""Text for people: what a server or a dump says is data, and no terminal is to obey it."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def printable(text: str) -> str:
    r"""``text`` with control and format characters (\x1b, bidirectional ones too), surrogates and line ends escaped."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def readable(size: int) -> str:
    """A size in bytes for people: 96.3 MiB."""
    amount, unit = float(size), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount /= 1024
        unit += 1
    return f"{amount:,.1f} {_UNITS[unit]}" if unit else f"{size} bytes"
