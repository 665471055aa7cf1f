"""Lessons over a live server: sessions on real memory, read through a RemoteDump as a door reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farcore.vmcoreinfo import Vmcoreinfo
from farcore_client import lessons
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl
from farcore_client.remote import RemoteDump, connect
from tests.client.conftest import Farcore
from tests.http1 import Connection
from tests.live import Live, Serve
from tests.samples import unpack
from tests.served import only

BUILD = "3b43fad5034874490492495d552c0af6a5fab235"
TEXT, PHYS_BASE, KERNEL_MAP = 0xFFFFFFFFA9000000, -559939584, 0xFFFFFFFF80000000


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, serve_all_along: Serve) -> Live:
    folder = tmp_path_factory.mktemp("dump")
    return serve_all_along(unpack("x86_64-panic.elf", folder), "--host-arch", "x86_64", "--workers", "1")


@pytest.fixture(scope="module")
def url(live: Live) -> DumpUrl:
    with Connection(live.url) as server:
        return DumpUrl.parse(live.url + only(server)["links"]["self"])


@contextmanager
def session(url: DumpUrl) -> Iterator[RemoteDump]:
    with connect(url, Credentials()) as remote:
        target = remote.target()
        with lessons.learning(remote, target, None):
            yield remote


def read(remote: RemoteDump, pages: list[int]) -> None:
    for page in pages:
        remote.physical.pread(page << 12, 4096)


def pages_of(remote: RemoteDump) -> list[int]:
    """Pages that a session reads: text, memmap, and what has no name; scattered, so that reading ahead helps little."""
    target = remote.target()
    loads = target.elf.loads
    first = [int(paddr) >> 12 for paddr in loads["paddr"][44::9]]
    return [(TEXT - KERNEL_MAP + PHYS_BASE) >> 12, *first]


def test_what_one_session_read_the_next_one_has_before_it_asks(url: DumpUrl, farcore: Farcore) -> None:
    with session(url) as remote:
        pages = pages_of(remote)
        read(remote, pages)
        assert {*pages} <= set(remote.frames().tolist())
    shown = farcore("profile", "show", str(url))
    assert shown.status == 0
    assert f"kernel build {BUILD}, 1 session" in shown.text
    with connect(url, Credentials()) as remote:
        lesson = lessons.Lesson(remote, remote.target(), None)
        lesson.recall()
        before = remote.counts.misses
        read(remote, pages)
        assert remote.counts.misses == before
        # What the lesson itself read is nobody's wish.
        assert set(remote.frames().tolist()) == {*pages}


def test_only_a_session_that_read_something_new_tells_the_server(tmp_path: Path, serve: Serve, farcore: Farcore) -> None:
    live = serve(unpack("x86_64-panic.elf", tmp_path), "--host-arch", "x86_64", "--workers", "1")
    with Connection(live.url) as server:
        url = DumpUrl.parse(live.url + only(server)["links"]["self"])
    with connect(url, Credentials()) as remote:
        pages = pages_of(remote)
    for known, sessions in ((pages[:3], 1), (pages[:3], 1), ([], 1), (pages[1:3], 1), (pages[1:4], 2), (pages[:4], 2)):
        with session(url) as remote:
            read(remote, known)
        said = json.loads(farcore("profile", "export", str(url)).stdout)
        assert said["sessions"] == sessions


def test_a_profile_is_taken_to_another_server_without_the_dumps_own_pages(
    url: DumpUrl, farcore: Farcore, tmp_path: Path, serve: Serve
) -> None:
    with session(url) as remote:
        read(remote, pages_of(remote))
    file = tmp_path / "profile.json"
    assert farcore("profile", "export", str(url), "-o", file).status == 0
    said = json.loads(file.read_bytes())
    assert (said["build_id"], said["dumps"]) == (BUILD, {})
    assert said["kinds"]["image"]
    other = serve(unpack("x86_64-panic.elf", tmp_path), "--host-arch", "x86_64", "--workers", "1")
    with Connection(other.url) as server:
        dump = other.url + only(server)["links"]["self"]
    refused = farcore("profile", "show", dump)
    assert (refused.status, f"no session on kernel build {BUILD}" in refused.stderr) == (1, True)
    assert farcore("profile", "import", other.url, file).status == 0
    assert farcore("profile", "show", dump).status == 0
    for bad in (b"{}", b'{"version": 1, "sessions": 1}', os.urandom(20)):
        file.write_bytes(bad)
        assert farcore("profile", "import", other.url, file).status == 1


def test_a_build_without_an_id_is_known_by_its_release_and_by_where_its_symbols_were_linked() -> None:
    one = {"OSRELEASE": "5.4.0", "KERNELOFFSET": "1000000", "SYMBOL(_stext)": "ffffffff82000000", "CRASHTIME": "7"}
    moved = one | {"KERNELOFFSET": "3000000", "SYMBOL(_stext)": "ffffffff84000000", "CRASHTIME": "8"}
    rebuilt = one | {"SYMBOL(_stext)": "ffffffff82000040"}
    keys = [lessons.build(Vmcoreinfo(values)) for values in (one, moved, rebuilt)]
    assert keys[0] == keys[1] != keys[2]
    assert lessons.build(Vmcoreinfo(one | {"BUILD-ID": "ab" * 20})) == "ab" * 20
    assert all(len(key) == 40 and int(key, 16) for key in keys)
