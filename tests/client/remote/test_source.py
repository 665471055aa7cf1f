"""RemoteSource: a dump behind a live server reads as the file itself does, byte for byte and fault for fault."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcore.elf import Elf
from farcore.errors import FaultError
from farcore.slabs import Slabs
from farcore.source import BytesSource, Extent, Source
from farcore.space import PhysicalSpace
from farcore_client.credentials import Credentials
from farcore_client.remote import RemoteDump, RemoteSource, connect
from tests.client.remote.conftest import Connect, dump_url
from tests.elfwriter import Dump, load, note
from tests.live import Live, Serve
from tests.source_contract import CONTENT, SIZE, SourceContract

PAGE = 4096
NOISE = os.urandom(70 * PAGE)
# In the file: headers and notes, noise, zeros, noise, none of it on a page's start; in memory: holes of both kinds.
FILE = Dump(
    [
        note(("CORE", 1, bytes(336))),
        load(NOISE[: 33 * PAGE + 5] + bytes(20 * PAGE), paddr=0x10000, memsz=60 * PAGE),
        load(NOISE[33 * PAGE :], paddr=0x80000),
        load(NOISE[:PAGE], paddr=0x200800, memsz=2 * PAGE + 9),
    ],
    trailing=b"\1" * 11,
)
NATIVE = ("--host-arch", "x86_64", "--rescan", "3600")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dumps")
    FILE.write(folder / "vmcore")
    for length in (0, 1, 4095, 4096, SIZE):
        Dump([load(CONTENT[:length], paddr=0)]).write(folder / f"vmcore-{length}")
    return folder


@pytest.fixture(scope="module")
def live(folder: Path, serve_all_along: Serve) -> Live:
    return serve_all_along(folder, *NATIVE)


def asked(remote: RemoteDump) -> Source:
    """Physical memory as the server says it, holes and all; for an ELF the client knows better."""
    return RemoteSource(remote._pages, "physical")


class TestPhysicalOfAnElf(SourceContract):
    """The contract of a Source, by a client that finds addresses in the program headers."""

    view: ClassVar[Callable[[RemoteDump], Source]] = staticmethod(lambda remote: remote.physical)
    remotes: ClassVar[dict[int, RemoteDump]]
    live: ClassVar[Live]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _remotes(cls, live: Live) -> Iterator[None]:
        cls.remotes, cls.live = {}, live
        yield
        for remote in cls.remotes.values():
            remote.close()

    def make(self, content: bytes) -> Source:
        length = len(content)
        assert content == CONTENT[:length]
        if length not in self.remotes:
            self.remotes[length] = connect(dump_url(self.live.url, f"vmcore-{length}"), Credentials())
        return type(self).view(self.remotes[length])


class TestRemoteSource(TestPhysicalOfAnElf):
    """The contract of a Source, where the server does."""

    view: ClassVar[Callable[[RemoteDump], Source]] = staticmethod(asked)


positions = st.integers(0, 0x203000) | st.sampled_from([0, 0x10000, 0x80000, 0x200000, 0x200800, 0x201800, 0x202809])
extents = st.lists(st.builds(Extent, positions, st.sampled_from([0, 1, 4, 4096, 9000]) | st.integers(0, 300_000)), max_size=4)


def outcome(source: Source, batch: list[Extent]) -> object:
    """What a read gives or says."""
    try:
        return [bytes(each) for each in source.preadv(batch)]
    except FaultError as fault:
        return fault.kind, fault.address, fault.length, fault.space


@pytest.fixture(scope="module")
def remote(live: Live) -> Iterator[RemoteDump]:
    with connect(dump_url(live.url, "vmcore"), Credentials()) as remote:
        yield remote


@pytest.fixture(scope="module")
def local(folder: Path) -> Source:
    content = BytesSource((folder / "vmcore").read_bytes())
    return PhysicalSpace(content, Elf.open(content))


@settings(max_examples=60)
@given(st.lists(extents, min_size=1, max_size=3))
def test_any_batches_read_and_fault_as_the_local_file_does(
    remote: RemoteDump, local: Source, batches: list[list[Extent]]
) -> None:
    for batch in batches:
        expected = outcome(local, batch)
        assert outcome(remote.physical, batch) == expected
        assert outcome(asked(remote), batch) == expected


def test_the_file_itself_is_read_through_a_cache_that_is_smaller(opened: Connect, live: Live, folder: Path) -> None:
    remote = opened(live, "vmcore", cache_bytes=4 << 20)
    whole = (folder / "vmcore").read_bytes()
    assert remote.vmcore.pread(0, remote.vmcore.size) == whole
    assert remote.stored.pread(0, remote.stored.size) == whole


def test_all_misses_of_a_batch_are_one_request(opened: Connect, live: Live) -> None:
    remote = opened(live, "vmcore")
    remote.vmcore.preadv([Extent(page * PAGE + 7, 4) for page in range(5, 80, 3)])
    assert remote.counts.requests == 1
    assert [page for _, page in remote.missed()] == list(range(5, 80, 3))
    remote.vmcore.preadv([Extent(page * PAGE, PAGE) for page in range(5, 80, 3)])
    assert (remote.counts.requests, remote.counts.misses) == (1, 25)


def test_what_is_akin_to_a_page_that_is_missed_comes_with_it(opened: Connect, live: Live) -> None:
    remote = opened(live, "vmcore")
    kin = [0x10 + 9, 0x10 + 17, 0x80 + 3]
    remote.akin(Slabs(np.array(kin, np.uint64), np.full(3, 7, np.uint64)))
    remote.physical.pread(kin[0] * PAGE, 4)
    remote.physical.preadv([Extent(frame * PAGE, PAGE) for frame in kin])
    assert remote.counts.misses == 1
    remote.physical.pread((0x10 + 12) * PAGE, 4)
    assert remote.counts.misses == 2
