"""Stream: a reader in sequence over a fast link gets plain ranges, and the same bytes, errors and end as any other."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from farcore.errors import SourceChangedError
from farcore_client.remote import RemoteDump, stream
from tests.client.remote.conftest import Connect
from tests.elfwriter import Dump, load
from tests.live import Serve
from tests.relay import relay

STEP = 300_000
NATIVE = ("--host-arch", "x86_64", "--rescan", "0.2")


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return Dump([load(os.urandom(1 << 20) * 40, paddr=0)]).write(tmp_path / "vmcore")


def test_reads_in_sequence_become_ranges_and_bring_every_byte_once(opened: Connect, serve: Serve, dump: Path) -> None:
    remote = opened(serve(dump, *NATIVE), "vmcore")
    size = remote.vmcore.size
    found = b"".join(remote.vmcore.pread(at, min(STEP, size - at)) for at in range(0, size, STEP))
    assert found == dump.read_bytes()
    assert remote._pages._streams, "nothing was streamed"
    assert remote.counts.received < size + (24 << 20)
    assert remote.counts.requests < 30, "a long range is one request"


def test_a_dump_that_is_replaced_under_a_stream_is_an_error_and_never_mixed(opened: Connect, serve: Serve, dump: Path) -> None:
    remote = opened(serve(dump, *NATIVE), "vmcore")
    content, size = dump.read_bytes(), remote.vmcore.size
    before = range(0, 60 * STEP, STEP)
    assert all(remote.vmcore.pread(at, STEP) == content[at : at + STEP] for at in before)
    assert remote._pages._streams, "nothing was streamed"
    Dump([load(bytes(40 << 20), paddr=0)]).write(dump.with_name("other")).replace(dump)
    after = (at % (size - STEP) for at in range(60 * STEP, 20 * size, STEP))
    with pytest.raises(SourceChangedError):
        assert all(remote.vmcore.pread(at, STEP) == content[at : at + STEP] for at in after)


def in_sequence(remote: RemoteDump, stop: int, start: int = 0) -> bytes:
    """Bytes [start, stop), as a reader in sequence asks for them."""
    return b"".join(remote.vmcore.pread(at, min(STEP, stop - at)) for at in range(start, stop, STEP))


def test_a_stream_that_is_cut_again_and_again_brings_the_same_bytes(opened: Connect, serve: Serve, dump: Path) -> None:
    with relay(serve(dump, *NATIVE).url) as between:
        remote = opened(between, "vmcore")
        half = 20 << 20
        found = in_sequence(remote, half)
        assert remote._pages._streams, "nothing was streamed"
        before, between.cut_after = between.connections, 3 << 20
        between.down()
        between.open()
        assert found + in_sequence(remote, remote.vmcore.size, half) == dump.read_bytes()
        assert between.connections > before + 1


def test_readers_of_two_places_at_once_get_every_byte_and_little_besides(opened: Connect, serve: Serve, dump: Path) -> None:
    with relay(serve(dump, *NATIVE).url) as between:
        remote = opened(between, "vmcore")
        size = remote.vmcore.size
        half, found = size // 2, (list[bytes | memoryview](), list[bytes | memoryview]())
        for at in range(0, half, STEP):
            for reader, start in enumerate((0, half)):
                stop = half if reader == 0 else size
                found[reader].append(remote.vmcore.pread(start + at, min(STEP, stop - start - at)))
        assert b"".join([*found[0], *found[1]]) == dump.read_bytes()
        assert remote._pages._streams, "nothing was streamed"
        assert between.forwarded < 2 * size


def test_a_stream_whose_reader_pauses_outlives_a_connection_that_ends_meanwhile(
    opened: Connect, serve: Serve, dump: Path
) -> None:
    with relay(serve(dump, *NATIVE).url) as between:
        remote = opened(between, "vmcore")
        half = 20 << 20
        found = in_sequence(remote, half)
        between.down()
        between.open()
        failed = remote.counts.failed
        assert found + in_sequence(remote, remote.vmcore.size, half) == dump.read_bytes()
        assert remote.counts.failed == failed, "pages were asked for one by one"


def test_a_stream_that_stalls_is_given_up_and_its_readers_get_their_bytes_the_other_way(
    opened: Connect, serve: Serve, dump: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PATIENCE", 0.3)
    with relay(serve(dump, *NATIVE).url) as between:
        remote = opened(between, "vmcore")
        half = 20 << 20
        found = in_sequence(remote, half)
        assert remote._pages._streams, "nothing was streamed"
        between.stall()
        threading.Timer(1, between.stall, kwargs={"flowing": True}).start()
        began = time.monotonic()
        assert found + in_sequence(remote, remote.vmcore.size, half) == dump.read_bytes()
        assert 0.9 < time.monotonic() - began < 15
