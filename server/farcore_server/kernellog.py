"""The kernel log of an open dump: its own, or the text that the dump's writer left beside it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from farcore import crashreason, dmesg
from farcore.errors import FarcoreError, NoLogError
from farcore.file import FileSource
from farcore_server.dump import Dump
from farcore_server.files import Files
from farcore_server.inspection import Rules, inspect
from farcore_server.opening import open_place
from farcore_server.search import Place

# Of a text beside a dump so much is read; the kernel's log in it has at most dmesg.MAX_TEXT.
MAX_BESIDE: Final = 2 * dmesg.MAX_TEXT

# kdump-tools names dump and log by the time, dump.202511251105 and dmesg.202511251105; the others have one name.
_STAMPED: Final = re.compile(r"(?:dump|vmcore)\.(\d{8,14})")
_NAMES: Final = ("vmcore-dmesg.txt", "vmcore-dmesg-incomplete.txt", "dmesg.txt")


class Text(NamedTuple):
    """A log, and where it is from: ``ring``, ``records`` or ``text`` (dmesg.Kind), or the file ``name`` beside the dump."""

    content: bytes
    source: str
    name: str | None = None


def read(dump: Dump, files: Files) -> Text:
    """The log of an open dump, or the text beside it; NoLogError where there is neither. Blocks."""
    try:
        log = _own(dump, files)
    except NoLogError as error:
        found = beside(dump.place)
        if found is None:
            raise
        name, content = found
        note = f"# from {name}, which lies beside the dump; the dump's own log could not be read: {error}\n"
        return Text(note.encode() + content, "file", name)
    left_out = f"# {log.left_out:,} older messages were left out\n" if log.left_out else ""
    return Text((left_out + log.text()).encode(), log.kind)


def _own(dump: Dump, files: Files) -> dmesg.Log:
    if dump.elf is None:
        raise NoLogError("the dump is refused")
    return dmesg.of(files.space(dump, "physical"), dump.elf, dump.notes)


def beside(place: Place) -> tuple[str, bytes] | None:
    """Name and content of the log that the dump's writer left in its directory; a regular file there, and no link out of it."""
    folder, own = os.path.split(place.path)
    for name in _names(own):
        with contextlib.suppress(FarcoreError, OSError):
            fd, found = open_place(Place(os.path.join(folder, name), name, os.path.realpath(folder)))
            source = FileSource(fd, min(found.st_size, MAX_BESIDE))
            raw = bytes(source.pread(0, source.size))
            return name, "".join(f"{dmesg.safe(line)}\n" for line in raw.removesuffix(b"\n").split(b"\n")).encode()
    return None


def _names(own: str) -> Iterator[str]:
    if stamped := _STAMPED.match(own):
        yield f"dmesg.{stamped[1]}"
    yield from _NAMES


def panic(dump: Dump, rules: Rules) -> str | None:
    """Why the dump's kernel crashed, in a line; None where no log says it. Blocks."""
    with contextlib.suppress(FarcoreError, OSError):
        current, files = inspect(dump.place, rules)
        if current is not None and files is not None and current.etag == dump.etag:
            return crashreason.reason(read(current, files).content.decode("utf-8", "replace").splitlines())
    return None
