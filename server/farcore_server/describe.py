"""Describe: a Dump as the JSON of the wire (docs/protocol.md). Sizes are numbers, every address is a "0x..." string."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from farcore.elf import SEGMENT, Ehdr, Elf, Segments
from farcore.hosts import machine_name
from farcore.notes import Note, type_name
from farcore.xen import Xen
from farcore_server.dump import Dump, printed

Json = dict[str, Any]

# JSON's numbers are exact up to here (RFC 8259, 6); a larger size is written as an address is.
_EXACT: Final = 1 << 53
# Rows said at once: a millisecond's worth of PT_LOADs, so that a description of 70,000 of them leaves the others their turns.
_ROWS: Final = 500
_TYPES: Final = {0: "ET_NONE", 1: "ET_REL", 2: "ET_EXEC", 3: "ET_DYN", 4: "ET_CORE"}


def brief(dump: Dump) -> Json:
    """The Dump as a list has it: without segments, notes, vmcoreinfo and the verdict's terms."""
    verdict = dump.verdict
    base = f"/v1/dumps/{dump.id}"
    links = {"self": base}
    if dump.elf is not None:
        links |= {"vmcore": f"{base}/vmcore", "stored": f"{base}/stored", "physical": f"{base}/memory/physical"}
        links |= {"map": f"{base}/map", "dmesg": f"{base}/dmesg"}
    known = dump.vmcoreinfo
    return {
        "id": dump.id,
        "name": dump.name,
        "size": number(dump.size),
        "stored_size": number(dump.identity.size),
        "stored_format": dump.stored_format,
        "etag": dump.etag,
        "modified": timestamp(dump.identity.modified if dump.identity.inode else None),
        "state": dump.state,
        "elf": None if dump.header is None else header(dump.header, dump.elf),
        "verdict": {
            "host_arch": verdict.host_arch,
            "kernel": {"accepted": verdict.kernel.accepted, "by": verdict.kernel.by},
            "policy": asdict(verdict.policy),
            "warnings": list(dump.warnings),
        },
        "cpus": dump.cpus,
        "kernel_release": known and known.kernel_release,
        "build_id": known and known.build_id,
        "crash_time": timestamp(known.crash_time if known else None),
        "panic": dump.panic,
        "links": links,
    }


def full(dump: Dump, rows: int | None = None) -> Json:
    """The whole Dump, or with the first ``rows`` of its segments and notes."""
    said = _without_rows(dump)
    said["segments"] = segments(loads(dump)[:rows])
    said["notes"] = notes(dump.notes[:rows])
    return said


def listing(dumps: Sequence[Dump]) -> Iterator[str]:
    """All dumps in brief, as JSON text in pieces."""
    yield '{"dumps": ['
    for at in range(0, len(dumps), _ROWS // 10):
        yield _inner([brief(dump) for dump in dumps[at : at + _ROWS // 10]], first=at == 0)
    yield "]}"


def text(dump: Dump) -> Iterator[str]:
    """full() as JSON text in pieces."""
    yield json.dumps(_without_rows(dump))[:-1] + ', "segments": ['
    described = loads(dump)
    for at in range(0, len(described), _ROWS):
        yield _inner(segments(described[at : at + _ROWS]), first=at == 0)
    yield '], "notes": ['
    for at in range(0, len(dump.notes), _ROWS):
        yield _inner(notes(dump.notes[at : at + _ROWS]), first=at == 0)
    yield "]}"


def _inner(rows: list[Json], *, first: bool) -> str:
    return ("" if first else ", ") + json.dumps(rows)[1:-1]


def _without_rows(dump: Dump) -> Json:
    said = brief(dump)
    said["verdict"]["kernel"]["terms"] = [asdict(term) for term in dump.verdict.kernel.terms]
    said["parts"] = [
        {"name": printed(place.name), "size": number(identity.size)}
        for place, identity in (dump.files if dump.stored.in_parts else ())
    ]
    said["vmcoreinfo"] = dict(dump.vmcoreinfo.values) if dump.vmcoreinfo else {}
    said["segments_left_out"] = 0 if dump.elf is None else dump.elf.unlisted
    said["xen"] = None if dump.xen is None else hypervisor(dump.xen)
    return said


def header(ehdr: Ehdr, elf: Elf | None) -> Json:
    """The ELF header; ``phnum`` is the real count where it could be read."""
    return {
        "class": ehdr.bits,
        "data": ehdr.data,
        "machine": machine_name(ehdr.machine),
        "type": _TYPES.get(ehdr.type, f"{ehdr.type:#x}"),
        "phnum": ehdr.phnum if elf is None else elf.count,
    }


def hypervisor(xen: Xen) -> Json:
    """What is known of a hypervisor; every member but ``vmcoreinfo`` may be null."""
    return {
        "bits": xen.bits,
        "version": xen.version,
        "physical_start": None if xen.phys_start is None else f"{xen.phys_start:#x}",
        "p2m": None if xen.p2m is None else f"{xen.p2m:#x}",
        "vmcoreinfo": dict(xen.vmcoreinfo.values) if xen.vmcoreinfo else {},
    }


def loads(dump: Dump) -> Segments:
    """The PT_LOADs, in file order; none of a dump that is refused."""
    return np.empty(0, SEGMENT) if dump.elf is None else dump.elf.loads


def segments(loads: Segments) -> list[Json]:
    """One object a PT_LOAD."""
    columns = ("paddr", "vaddr", "offset", "filesz", "memsz", "flags")
    return [
        {
            "physical_address": f"{paddr:#x}",
            "virtual_address": f"{vaddr:#x}",
            "offset": number(offset),
            "file_size": number(filesz),
            "memory_size": number(memsz),
            "flags": flags,
        }
        for paddr, vaddr, offset, filesz, memsz, flags in zip(*(loads[name].tolist() for name in columns), strict=True)
    ]


def notes(found: Iterable[Note]) -> list[Json]:
    """One object a note, without its desc."""
    return [{"name": note.name, "type": type_name(note), "size": note.size} for note in found]


def number(size: int) -> int | str:
    """A size as a JSON number, or as a "0x..." string from 2^53 on."""
    return size if size < _EXACT else f"{size:#x}"


def timestamp(seconds: int | None) -> str | None:
    """Unix seconds as RFC 3339 in UTC; None also for a time that no calendar has."""
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return None
