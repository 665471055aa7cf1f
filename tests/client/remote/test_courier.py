"""What becomes of reads when the server, the network or the dump gives way: they wait, go on, or say what it was."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farcore.errors import SourceChangedError
from farcore.source import Extent
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl, ServerUrl
from farcore_client.errors import UnreachableError
from farcore_client.remote import RemoteDump, connect, courier
from tests.client.remote.conftest import Connect, dump_url
from tests.elfwriter import Dump, load
from tests.live import Serve, farcored
from tests.relay import Relay, relay

PAGE = 4096
NOISE = os.urandom(2048 * PAGE)
NATIVE = ("--host-arch", "x86_64", "--rescan", "0.2")


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return Dump([load(NOISE, paddr=0)]).write(tmp_path / "vmcore")


@pytest.fixture
def behind(dump: Path, serve: Serve) -> Iterator[Relay]:
    """A relay in front of a server with the dump."""
    with relay(serve(dump, *NATIVE).url) as between:
        yield between


def through(between: Relay) -> RemoteDump:
    url = dump_url(between.to, "vmcore")
    return connect(DumpUrl(ServerUrl.parse(between.url), url.id), Credentials())


def test_a_read_outlives_a_server_that_is_started_again(dump: Path) -> None:
    with relay("http://127.0.0.1:9") as between:
        with farcored(dump, *NATIVE) as live:
            between.to = live.url
            remote = through(between)
            assert remote.physical.pread(0, PAGE) == NOISE[:PAGE]
            between.down()
        with remote, farcored(dump, *NATIVE) as live:
            between.to = live.url
            threading.Timer(0.5, between.open).start()
            assert remote.physical.pread(1 << 22, PAGE) == NOISE[1 << 22 :][:PAGE]
            assert remote.counts.failed >= 1


@pytest.mark.parametrize("most", [20_000, 400_000])
def test_a_batch_that_is_cut_again_and_again_comes_whole_and_no_page_of_it_twice(behind: Relay, most: int) -> None:
    with through(behind) as remote:
        behind.down()
        behind.cut_after = most + 40_000
        behind.open()
        extents = [Extent(page * PAGE, PAGE) for page in range(0, 300, 2)]
        assert remote.stored.preadv(extents) == [(remote.stored.pread(*one)) for one in extents]
        assert remote.counts.failed >= 1
        assert behind.forwarded < len(extents) * PAGE + remote.counts.failed * (300 << 10)


def test_a_server_that_stays_away_is_an_error_that_says_for_how_long(behind: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "PATIENCE", 1.0)
    with through(behind) as remote:
        behind.down()
        began = time.monotonic()
        with pytest.raises(UnreachableError, match=rf"127.0.0.1:{behind.port}[: ].*\(tried for \d+ s\)"):
            remote.physical.pread(1 << 22, 4)
        assert 1 <= time.monotonic() - began < 15
        behind.open()
        assert remote.physical.pread(1 << 22, 4) == NOISE[1 << 22 :][:4]


def test_a_server_that_says_nothing_is_given_up_in_time(behind: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "PATIENCE", 1.0)
    with through(behind) as remote:
        behind.stall()
        with pytest.raises(UnreachableError, match=r"did not answer in time: .* \(tried for \d+ s\)"):
            remote.physical.pread(1 << 22, 4)
        behind.stall(flowing=True)
        assert remote.physical.pread(1 << 22, 4) == NOISE[1 << 22 :][:4]


def until_it_fails(remote: RemoteDump) -> int:
    """How many pages are as they were before one is an error."""
    for page in range(2048):
        try:
            found = remote.physical.pread(page * PAGE, PAGE)
        except SourceChangedError:
            return page
        assert found == NOISE[page * PAGE :][:PAGE]
    return 2048


def test_a_dump_that_was_replaced_is_an_error_for_ever_and_never_mixed(dump: Path, behind: Relay) -> None:
    with through(behind) as remote:
        assert remote.physical.pread(0, 4) == NOISE[:4]
        other = Dump([load(bytes(reversed(NOISE)), paddr=0)]).write(dump.with_name("other"))
        other.replace(dump)
        assert until_it_fails(remote) < 2048
        for _ in range(2):
            with pytest.raises(SourceChangedError):
                remote.physical.pread(1 << 22, 4)


def test_closing_ends_a_read_that_waits(behind: Relay) -> None:
    remote = through(behind)
    said: list[BaseException] = []

    def read() -> None:
        try:
            remote.vmcore.pread(1 << 22, 4)
        except UnreachableError as error:
            said.append(error)

    behind.stall()
    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.2)
    remote.close()
    reader.join(10)
    assert "was closed while this was read" in str(said[0])


def test_readers_of_one_page_ask_for_it_once(opened: Connect, dump: Path, serve: Serve) -> None:
    live = serve(dump, *NATIVE)
    remote = opened(live, "vmcore")
    found: list[memoryview] = []
    readers = [threading.Thread(target=lambda: found.append(remote.stored.pread(5 * PAGE, PAGE))) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert found == [dump.read_bytes()[5 * PAGE : 6 * PAGE]] * 8
    assert (remote.counts.requests, remote.counts.received < 2 * remote._courier.link.block + PAGE) == (1, True)
