"""VMCOREINFO: the KEY=VALUE lines in which a kernel (or a Xen hypervisor) says how its dump is to be read.

kernel/vmcore_info.c writes it (kernel/crash_core.c before 6.9), Documentation/admin-guide/kdump/vmcoreinfo.rst explains the
keys. Linux' and Xen's are two notes and stay two values here: both have a PAGESIZE and symbols of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from farcore.notes import Note, printable

# The kernel gives it one page, at most 64 KiB where dumps are taken; notes.MAX_DESC keeps no more of a desc than this.
MAX_SIZE: Final = 256 << 10

_DECIMAL: Final = re.compile(r"-?[0-9]{1,20}")
_HEX: Final = re.compile(r"-?(?:0[xX])?[0-9a-fA-F]{1,16}")
# It becomes part of a path (/usr/lib/debug): UTS_RELEASE starts with the version and has at most 64 bytes.
_RELEASE: Final = re.compile(r"[0-9][!-.0-~]{0,63}")
# It becomes part of a path and of a URL. GNU build-ids are SHA-1; the kernel keeps at most 20 bytes (BUILD_ID_SIZE_MAX).
_BUILD_ID: Final = re.compile(r"(?:[0-9a-f]{2}){1,20}")
# Stable releases whose BUILD-ID is garbage, [first, end): 905415ff3ffb was backported without d4deb8242341.
_GARBAGE_BUILD_ID: Final = (
    ((5, 15, 168), (5, 16, 0)),
    ((6, 1, 113), (6, 1, 119)),
    ((6, 6, 55), (6, 6, 63)),
    ((6, 10, 14), (6, 11, 0)),
    ((6, 11, 3), (6, 11, 10)),
)


def parse(desc: bytes | memoryview) -> dict[str, str]:
    """The KEY=VALUE lines up to the first NUL, at most MAX_SIZE bytes; both sides ``printable``.

    Of a key that comes twice the first counts, as for crash and for makedumpfile's lookups (drgn takes the last).
    """
    text = bytes(desc[:MAX_SIZE]).split(b"\0", 1)[0]
    values: dict[str, str] = {}
    for line in text.split(b"\n"):
        key, equals, value = line.partition(b"=")
        if key and equals:
            values.setdefault(printable(key), printable(value))
    return values


@dataclass(frozen=True, slots=True)
class Vmcoreinfo:
    """One parsed note. A lookup of what is absent, or is not what its key promises, is None."""

    values: Mapping[str, str]

    @property
    def kernel_release(self) -> str | None:
        """OSRELEASE, `uname -r`; safe as a file name."""
        release = self.values.get("OSRELEASE", "")
        return release if _RELEASE.fullmatch(release) else None

    @property
    def crash_time(self) -> int | None:
        """CRASHTIME in Unix seconds; the kernel appends it on the way into kdump, so QEMU's dumps have none."""
        seconds = _number(self.values.get("CRASHTIME"))
        return seconds if seconds is not None and seconds > 0 else None

    @property
    def build_id(self) -> str | None:
        """The kernel's GNU build-id (5.9 and later) in lower-case hex; None also where the kernel is known to write garbage."""
        build_id = self.values.get("BUILD-ID", "")
        version = re.match(r"(\d{1,5})\.(\d{1,5})(?:\.(\d{1,5}))?", self.values.get("OSRELEASE", ""))
        if version is not None:
            running = tuple(int(part or 0) for part in version.groups())
            if any(first <= running < end for first, end in _GARBAGE_BUILD_ID):
                return None
        return build_id if _BUILD_ID.fullmatch(build_id) else None

    @property
    def page_size(self) -> int | None:
        """PAGESIZE in bytes, a power of two."""
        size = _number(self.values.get("PAGESIZE"))
        return size if size is not None and size > 0 and size & (size - 1) == 0 else None

    @property
    def kernel_offset(self) -> int | None:
        """KERNELOFFSET, how far KASLR moved the kernel's virtual addresses."""
        return _hex(self.values.get("KERNELOFFSET"))

    @property
    def phys_base(self) -> int | None:
        """NUMBER(phys_base) of x86_64: the physical address of the kernel's base mapping; can be negative."""
        return self.number("phys_base")

    def symbol(self, name: str) -> int | None:
        """SYMBOL(name), a virtual address."""
        return _hex(self.values.get(f"SYMBOL({name})"))

    def number(self, name: str) -> int | None:
        """NUMBER(name): decimal where it can be read so, else hexadecimal, as makedumpfile does."""
        return _number(self.values.get(f"NUMBER({name})"))

    def type_size(self, name: str) -> int | None:
        """SIZE(name), bytes of a type."""
        return _number(self.values.get(f"SIZE({name})"))

    def member_offset(self, name: str) -> int | None:
        """OFFSET(name) of "type.member", bytes."""
        return _number(self.values.get(f"OFFSET({name})"))

    def length(self, name: str) -> int | None:
        """LENGTH(name), elements of an array."""
        return _number(self.values.get(f"LENGTH({name})"))


def of_linux(notes: Iterable[Note]) -> Vmcoreinfo | None:
    """The kernel's; of several notes the last, as for crash, drgn and makedumpfile."""
    return _last(notes, "VMCOREINFO")


def of_xen(notes: Iterable[Note]) -> Vmcoreinfo | None:
    """The hypervisor's, from a dump of a whole Xen machine."""
    return _last(notes, "VMCOREINFO_XEN")


def _last(notes: Iterable[Note], name: str) -> Vmcoreinfo | None:
    found = [note for note in notes if note.name == name]
    return Vmcoreinfo(parse(found[-1].desc)) if found else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _DECIMAL.fullmatch(text) else _hex(text)


def _hex(text: str | None) -> int | None:
    return int(text, 16) if text is not None and _HEX.fullmatch(text) else None
