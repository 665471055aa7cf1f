"""A Dump's names and layouts: ids and etags worked out by hand, layouts against what the test wrote."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from farcore.arch import Policy
from farcore.hosts import host
from farcore_server.dump import Dump, Resource
from farcore_server.inspection import Rules, inspect
from farcore_server.search import Place, search
from tests.elfwriter import Dump as File
from tests.elfwriter import load, note

RULES = Rules(host("x86_64"), Policy())
FILE = File([note(("CORE", 1, bytes(336)), ("CORE", 1, bytes(336))), load(b"page", paddr=0x1000, memsz=0x100)], trailing=b"end")


def dump_of(place: Place) -> Dump:
    dump, _ = inspect(place, RULES)
    assert dump is not None
    return dump


def dump_at(path: Path, name: str = "vmcore") -> Dump:
    return dump_of(Place(str(path), name, None))


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("vmcore", "vmcore"),
        ("127.0.0.1-2026-01-31-10:15:00/vmcore", "127-0-0-1-2026-01-31-10-15-00-vmcore"),
        ("VMCore.Old", "vmcore-old"),
        ("-/-", "dump"),
        ("ядро", "dump"),
        ("x" * 200, "x" * 80),
        ("a\x1b[31m\nb", "a-31m-b"),
    ],
)
def test_an_id_is_a_slug_of_the_name_and_a_digest_of_the_path(tmp_path: Path, name: str, slug: str) -> None:
    path = FILE.write(tmp_path / "vmcore")
    assert dump_at(path, name).id == f"{slug}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def test_an_id_depends_neither_on_what_else_is_served_nor_on_the_contents(tmp_path: Path) -> None:
    path = FILE.write(tmp_path / "vmcore")
    before = dump_at(path)
    path.write_bytes(b"something else")
    after = dump_at(path)
    assert (before.id, before.etag == after.etag) == (after.id, False)


def test_a_name_has_nothing_that_steers_a_terminal_and_is_utf_8(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/vmcore\xff\x1b[31m\n\xe2\x80\xaeokay \xc3\xa9"
    os.close(os.open(raw, os.O_CREAT))
    (place,) = search(str(tmp_path))
    dump = dump_of(place)
    assert dump.name == "vmcore\ufffd\ufffd[31m\ufffd\ufffdokay é"
    assert re.fullmatch(r"[a-z0-9-]+", dump.id)


def test_an_etag_is_quoted_and_changes_with_inode_size_and_time_alone(tmp_path: Path) -> None:
    path = FILE.write(tmp_path / "vmcore")
    os.utime(path, ns=(5, 7))
    first = dump_at(path).etag
    assert re.fullmatch(r'"[0-9a-f]{32}"', first)
    path.chmod(0o400)
    (tmp_path / "link").hardlink_to(path)
    assert dump_at(tmp_path / "link").etag == first
    os.utime(path, ns=(5, 8))
    second = dump_at(path).etag
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(5, 8))
    assert len({first, second, dump_at(copy).etag}) == 3


def test_cpus_are_the_registers_that_were_left(tmp_path: Path) -> None:
    assert dump_at(FILE.write(tmp_path / "vmcore")).cpus == 2


def test_the_layouts_of_a_dump_have_the_sizes_of_the_file_of_memory_and_of_the_kernels_own_image(tmp_path: Path) -> None:
    path = FILE.write(tmp_path / "vmcore")
    dump, size = dump_at(path), path.stat().st_size
    # header and notes: a page each; the page at 0x1000 that holds 4 bytes
    sizes: dict[Resource, int] = {"stored": size, "vmcore": size, "physical": 0x1100, "normalised": 3 * 4096}
    assert {name: dump.layout(name).size for name in sizes} == sizes
