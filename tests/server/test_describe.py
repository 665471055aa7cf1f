"""The Dump of the wire, field by field, against what the test wrote into the file."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from farcore.arch import TERMS, Policy
from farcore.hosts import host
from farcore_server import describe
from farcore_server.dump import Dump
from farcore_server.inspection import Rules, inspect
from farcore_server.search import Place
from tests.elfwriter import Dump as File
from tests.elfwriter import load, note

VMCOREINFO = b"OSRELEASE=6.1.0-13-amd64\nBUILD-ID=00112233445566778899aabbccddeeff00112233\nCRASHTIME=1700000000\nA=b=c\n"
HIGH = 0xFFFF888000000000
FILE = File(
    [
        note(("CORE", 1, bytes(336)), ("VMCOREINFO", 0, VMCOREINFO), ("VMCOREINFO_XEN", 0, b"PAGESIZE=4096\n")),
        load(b"page", paddr=0x1000, vaddr=HIGH + 0x1000, memsz=1 << 53, flags=5),
        load(b"more", paddr=0, memsz=(1 << 53) - 1, flags=6),
    ]
)


def dump_of(path: Path, arch: str = "x86_64", name: str = "host/vmcore") -> Dump:
    dump, _ = inspect(Place(str(path), name, None), Rules(host(arch), Policy()))
    assert dump is not None
    return dump


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = FILE.write(tmp_path / "vmcore")
    os.utime(path, (1_600_000_000.5, 1_600_000_000.5))
    return path


def test_a_dump_in_full_is_what_the_protocol_says(path: Path) -> None:
    size = path.stat().st_size
    dump_id = "host-vmcore-" + hashlib.sha256(str(path).encode()).hexdigest()[:8]
    base = f"/v1/dumps/{dump_id}"
    said = describe.full(dump_of(path))
    etag, verdict = said.pop("etag"), said.pop("verdict")
    assert said == {
        "id": dump_id,
        "name": "host/vmcore",
        "size": size,
        "stored_size": size,
        "stored_format": "elf",
        "modified": "2020-09-13T12:26:40Z",
        "state": "ready",
        "elf": {"class": 64, "data": "LE", "machine": "EM_X86_64", "type": "ET_CORE", "phnum": 3},
        "cpus": 1,
        "kernel_release": "6.1.0-13-amd64",
        "build_id": "00112233445566778899aabbccddeeff00112233",
        "crash_time": "2023-11-14T22:13:20Z",
        "panic": None,
        "links": {
            "self": base,
            "vmcore": f"{base}/vmcore",
            "stored": f"{base}/stored",
            "physical": f"{base}/memory/physical",
            "map": f"{base}/map",
            "dmesg": f"{base}/dmesg",
        },
        "segments": [
            {
                "physical_address": "0x1000",
                "virtual_address": "0xffff888000001000",
                "offset": size - 8,
                "file_size": 4,
                "memory_size": "0x20000000000000",
                "flags": 5,
            },
            {
                "physical_address": "0x0",
                "virtual_address": "0x0",
                "offset": size - 4,
                "file_size": 4,
                "memory_size": 9007199254740991,
                "flags": 6,
            },
        ],
        "segments_left_out": 0,
        "notes": [
            {"name": "CORE", "type": "NT_PRSTATUS", "size": 336},
            {"name": "VMCOREINFO", "type": "Linux vmcoreinfo", "size": len(VMCOREINFO)},
            {"name": "VMCOREINFO_XEN", "type": "Xen vmcoreinfo", "size": 14},
        ],
        "parts": [],
        "vmcoreinfo": {
            "OSRELEASE": "6.1.0-13-amd64",
            "BUILD-ID": "00112233445566778899aabbccddeeff00112233",
            "CRASHTIME": "1700000000",
            "A": "b=c",
        },
        "xen": {"bits": None, "version": None, "physical_start": None, "p2m": None, "vmcoreinfo": {"PAGESIZE": "4096"}},
    }
    assert etag.startswith('"')
    assert verdict["host_arch"] == "x86_64"
    assert verdict["policy"] == {"accepted": True, "reason": "EM_X86_64 in ELF64 is native to x86_64"}
    assert [term["name"] for term in verdict["kernel"]["terms"]] == list(TERMS)
    assert {tuple(term) for term in verdict["kernel"]["terms"]} == {("name", "ok", "expected", "found")}
    assert verdict["warnings"][0] == (
        "1 of 2 PT_LOADs describe physical memory again (normal: kernel text is described twice, "
        "and QEMU's paging=true writes a PT_LOAD a mapping)"
    )


def test_a_dump_in_brief_is_the_same_without_what_grows_with_the_dump(path: Path) -> None:
    full, brief = describe.full(dump_of(path)), describe.brief(dump_of(path))
    for key in ("segments", "segments_left_out", "notes", "parts", "vmcoreinfo", "xen"):
        del full[key]
    del full["verdict"]["kernel"]["terms"]
    assert brief == full


def test_a_refused_dump_has_its_reason_and_no_links_to_bytes(tmp_path: Path) -> None:
    dump = dump_of(File(FILE.segments, machine=22, data="BE").write(tmp_path / "vmcore"))
    said = describe.full(dump)
    assert said["links"] == {"self": f"/v1/dumps/{dump.id}"}
    assert (said["state"], said["segments"], said["notes"], said["vmcoreinfo"]) == ("refused", [], [], {})
    assert said["elf"] == {"class": 64, "data": "BE", "machine": "EM_S390", "type": "ET_CORE", "phnum": 3}
    assert "--allow-arch s390x" in said["verdict"]["policy"]["reason"]
    assert said["verdict"]["kernel"] | {"terms": []} == {"accepted": False, "by": None, "terms": []}


def test_what_was_never_there_has_neither_a_time_nor_a_header(tmp_path: Path) -> None:
    said = describe.full(dump_of(tmp_path / "gone"))
    assert (said["modified"], said["size"], said["stored_format"], said["elf"]) == (None, 0, None, None)
    assert said["verdict"]["policy"] == {"accepted": False, "reason": "no such file"}
    assert {term["ok"] for term in said["verdict"]["kernel"]["terms"]} == {None}


def test_the_cross_test_is_named_where_it_decided(path: Path) -> None:
    said = describe.brief(dump_of(path, "i386"))
    assert said["verdict"]["kernel"] == {"accepted": True, "by": "cross"}


def test_under_pn_xnum_the_count_is_the_real_one(tmp_path: Path) -> None:
    file = File([load(paddr=n) for n in range(5)], xnum=True)
    assert describe.brief(dump_of(file.write(tmp_path / "vmcore")))["elf"]["phnum"] == 5


def test_of_a_huge_dump_the_first_rows_can_be_had_alone(tmp_path: Path) -> None:
    file = File([note(*(("CORE", 1, bytes(8)) for _ in range(20))), *(load(paddr=n, memsz=1) for n in range(50))])
    said = describe.full(dump_of(file.write(tmp_path / "vmcore")), 7)
    assert [each["physical_address"] for each in said["segments"]] == [f"{n:#x}" for n in range(7)]
    assert len(said["notes"]) == 7


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1500])
def test_text_in_pieces_is_the_same_json_whatever_the_number_of_rows(tmp_path: Path, count: int) -> None:
    notes = note(*(("CORE", n, b"") for n in range(count)))
    dump = dump_of(File([notes, *(load(paddr=n) for n in range(count))]).write(tmp_path / "vmcore"))
    pieces = list(describe.text(dump))
    assert json.loads("".join(pieces)) == describe.full(dump)
    assert max(map(len, pieces)) < 100_000


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 130])
def test_a_listing_in_pieces_has_every_dump(path: Path, count: int) -> None:
    dumps = [dump_of(path, name=f"vmcore-{n}") for n in range(count)]
    said: dict[str, Any] = json.loads("".join(describe.listing(dumps)))
    assert said == {"dumps": [describe.brief(dump) for dump in dumps]}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (253402300799, "9999-12-31T23:59:59Z"),
        (253402300800, None),
        (1 << 63, None),
        (-1, "1969-12-31T23:59:59Z"),
        (None, None),
    ],
)
def test_a_time_that_no_calendar_has_is_none(seconds: int | None, text: str | None) -> None:
    assert describe.timestamp(seconds) == text
