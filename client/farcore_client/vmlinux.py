"""The vmlinux of a dump: found by the kernel's release, else by its build-id, and never another kernel's.

Symbols of another build give a session that looks right and is wrong: each file is first held against VMCOREINFO's BUILD-ID.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

from farcore import notes
from farcore.elf import Elf
from farcore.errors import BadDumpError, FarcoreError, FaultError
from farcore.file import FileSource
from farcore.vmcoreinfo import Vmcoreinfo
from farcore_client.notice import notice
from farcore_client.symbols import Symbols

NT_GNU_BUILD_ID: Final = 3
# Where every distribution's package of debug symbols puts its files.
DEBUG: Final = Path("/usr/lib/debug")
# "Linux version 6.1.0-1-amd64 (...": the release has at most 64 bytes.
_BANNER: Final = 128

Verdict = Literal["same", "another", "unknown"]


class VmlinuxError(FarcoreError, LookupError):
    """No vmlinux, or another kernel's."""


def find(
    known: Vmcoreinfo | None, given: Path | None, *, debug: Path = DEBUG, environment: Mapping[str, str] = os.environ
) -> Path:
    """The vmlinux of the kernel that ``known`` is of: ``given``, else one under ``debug``, else debuginfod's.

    VmlinuxError where there is none, or where ``given`` is another kernel's; its sentence says what to do.
    """
    if given is not None:
        _demand(given, known)
        return given
    if known is None:
        raise VmlinuxError("the dump does not say which kernel it is of (it has no VMCOREINFO): name the vmlinux")
    others: list[Path] = []
    for path in candidates(known, debug):
        if path.is_file():
            if _judged(path, known) != "another":
                return path
            others.append(path)
    servers: list[str] = []
    if environment.get("DEBUGINFOD_URLS"):
        from farcore_client import debuginfod  # late: with aiohttp, which few sessions wait for
        from farcore_client.loop import run

        servers = debuginfod.servers(environment)
        folder = debuginfod.cache(environment)
        if servers and known.build_id:
            fetched = run(debuginfod.fetch(known.build_id, servers, folder, lambda path: _demand(path, known)))
            if fetched is not None:
                return fetched
    raise VmlinuxError(_missing(known, debug, others, servers))


def candidates(known: Vmcoreinfo, debug: Path = DEBUG) -> Iterator[Path]:
    """Where Debian, Fedora, RHEL and SUSE install it, by release and by build-id."""
    if release := known.kernel_release:
        yield debug / "boot" / f"vmlinux-{release}"
        yield debug / "lib" / "modules" / release / "vmlinux"
        yield debug / "usr" / "lib" / "modules" / release / "vmlinux"
        yield debug / "boot" / f"vmlinux-{release}.debug"
    if build_id := known.build_id:
        yield debug / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"


def build_id(path: Path) -> str | None:
    """The GNU build-id of an ELF file in lower-case hex, None where it has none; VmlinuxError where it cannot be read."""
    source = _opened(path)
    try:
        found = notes.read(source, Elf.open(source)).notes
    except (BadDumpError, FaultError) as error:
        raise VmlinuxError(f"{path} is no vmlinux: {error}") from error
    finally:
        source.close()
    ids = [note.desc.hex() for note in found if note.name == "GNU" and note.type == NT_GNU_BUILD_ID]
    return ids[0] if ids else None


def _demand(path: Path, known: Vmcoreinfo | None) -> None:
    verdict = _judged(path, known)
    if verdict == "another" and known is not None:
        raise VmlinuxError(_another(path, known))
    if verdict == "unknown":
        notice(f"nothing in the dump or in {path} says whether they are of one kernel: check what the tool shows")


def _judged(path: Path, known: Vmcoreinfo | None) -> Verdict:
    mine = build_id(path)
    if known is not None and known.build_id and mine:
        return "same" if mine == known.build_id else "another"
    release = known.kernel_release if known is not None else None
    banner = _banner(path)
    if release is None or banner is None:
        return "unknown"
    return "same" if banner.split()[2:3] == [release] else "another"


def _banner(path: Path) -> str | None:
    """The start of linux_banner, None where the file does not have it."""
    source = _opened(path)
    try:
        symbols = Symbols.read(source)
        address = symbols.addresses(["linux_banner"]).get("linux_banner")
        found = symbols.content(address, _BANNER) if address is not None else None
    except (BadDumpError, FaultError):
        return None
    finally:
        source.close()
    return found.decode("latin-1") if found and found.startswith(b"Linux version ") else None


def _opened(path: Path) -> FileSource:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise VmlinuxError(f"{path} cannot be read: {error.strerror}") from error
    return FileSource(fd, os.fstat(fd).st_size)


def _another(path: Path, known: Vmcoreinfo) -> str:
    mine = build_id(path)
    wanted = f"{known.build_id or 'none known'} ({known.kernel_release or 'its release is not known'})"
    if mine and known.build_id:
        return f"{path} is another kernel's: its build-id is {mine}, the dump's {wanted}; give that kernel's own vmlinux"
    banner = (_banner(path) or "").split(" (")[0]
    return (
        f"{path} is another kernel's: it says {banner!r}, the dump is of {known.kernel_release}; give that kernel's own vmlinux"
    )


def _missing(known: Vmcoreinfo, debug: Path, others: Iterable[Path], servers: Iterable[str]) -> str:
    release = known.kernel_release or "of an unknown release"
    identity = f" (build-id {known.build_id})" if known.build_id else ""
    places = [f"not in {debug}", *(f"{path} is of another build" for path in others), *(f"not at {one}" for one in servers)]
    advice = f"Debian: linux-image-{known.kernel_release or 'RELEASE'}-dbg; Fedora, RHEL: kernel-debuginfo"
    then = "name the file" if servers else "set DEBUGINFOD_URLS, or name the file"
    return f"no vmlinux of kernel {release}{identity}: {', '.join(places)}; install its symbols ({advice}), {then}"
