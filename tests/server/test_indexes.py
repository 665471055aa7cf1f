"""Indexes: made once, by a thread where it takes long, and kept over restarts; until one is there its dump is indexing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from farcore.arch import Policy
from farcore.errors import BadDumpError, FaultError
from farcore.flattened import Flattened
from farcore.hosts import host
from farcore.kdump import Kdump
from farcore.parts import Index
from farcore.runs import Runs
from farcore.source import BytesSource
from farcore_server.catalogue import Catalogue
from farcore_server.indexes import Found, Indexes, packed, unpacked
from farcore_server.inspection import Rules
from farcore_server.lookup import lookup
from farcore_server.opened import Opened
from farcore_server.problem import Problem
from farcore_server.state import State
from tests.kdumpwriter import Kdump as File
from tests.kdumpwriter import flattened

SMALL = File(pages={1: b"x" * 4096, 7: b"y" * 4096}, excluded={2, 3})


def frames() -> Index:
    """An index of each kind."""
    return Kdump.open([BytesSource(SMALL.tobytes()[:-100])]).index


def stream() -> Flattened:
    return Flattened.index(BytesSource(flattened([(4096, b"late"), (0, b"early")])[:-10]))


def same(one: Runs, other: Runs) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("start", "stop", "offset", "kind"))


def test_what_is_kept_is_what_was_found() -> None:
    again = unpacked(packed(frames()))
    assert isinstance(again, Index)
    assert same(again.pages.runs, frames().pages.runs)
    assert again.pages.block == frames().pages.block
    assert (again.ranks, again.problems) == (frames().ranks, frames().problems)
    restored = unpacked(packed(stream()))
    assert isinstance(restored, Flattened)
    assert same(restored.runs, stream().runs)
    assert (restored.size, restored.problem) == (stream().size, stream().problem)
    assert unpacked(b"something else") is None


def made(calls: list[str], of: Callable[[], Found] = frames) -> Callable[[], Found]:
    """``of``, which notes that it was called."""

    def make() -> Found:
        calls.append("made")
        return of()

    return make


def test_an_index_is_made_once_and_a_restart_loads_it(tmp_path: Path) -> None:
    calls: list[str] = []
    indexes = Indexes(State(tmp_path))
    assert indexes.get("etag", made(calls), wait=True) is indexes.get("etag", made(calls), wait=True)
    assert Indexes(State(tmp_path)).get("etag", made(calls), wait=True) is not None
    assert calls == ["made"]
    assert Indexes(State(tmp_path)).get("another", made(calls), wait=True) is not None
    assert calls == ["made", "made"]


def test_a_file_that_is_broken_is_not_indexed_again_and_a_disk_that_failed_is() -> None:
    calls: list[str] = []
    indexes = Indexes()

    def broken() -> Found:
        raise BadDumpError("damaged", term="diskdump")

    def failed() -> Found:
        raise FaultError(address=0, length=1, space="stored", kind="unreadable")

    for _ in range(2):
        with pytest.raises(BadDumpError):
            indexes.get("broken", made(calls, broken), wait=True)
    assert calls == ["made"]
    for _ in range(2):
        with pytest.raises(FaultError):
            indexes.get("failed", made(calls, failed), wait=True)
    assert calls == ["made"] * 3


def test_the_indexes_of_all_dumps_that_are_open_have_one_bound() -> None:
    one, another = frames(), frames()
    size = 25 * len(one.pages.runs)
    indexes = Indexes(most=2 * size)
    assert indexes.get("one", lambda: one, wait=True) is one
    assert indexes.get("another", lambda: another, wait=True) is another
    with pytest.raises(BadDumpError, match="serve it from a farcored of its own"):
        indexes.get("too much", frames, wait=True)


async def test_a_large_dump_is_indexing_and_503_until_its_index_is_there(tmp_path: Path) -> None:
    # 2^24 frames are 64 GiB: bitmaps of 2 MiB each, which are not looked at while somebody waits.
    path = tmp_path / "vmcore"
    path.write_bytes(replace(SMALL, max_frame=1 << 24).tobytes())
    indexes = Indexes()
    busy = threading.Event()
    assert indexes.get("another dump", lambda: frames() if busy.wait(30) else stream(), wait=False) is None
    catalogue = Catalogue([str(tmp_path)], Rules(host("x86_64"), Policy(), 0, indexes))
    catalogue.scan()
    (dump,) = catalogue.dumps.values()
    assert (dump.state, dump.reason) == ("indexing", "its index is being made; ask again in a few seconds")
    with pytest.raises(Problem) as caught:
        await lookup(catalogue, dump.id)
    assert (caught.value.status, caught.value.slug, caught.value.headers) == (503, "indexing", {"Retry-After": "2"})
    busy.set()
    give_up = time.monotonic() + 20
    while catalogue.dumps[dump.id].state == "indexing":
        assert time.monotonic() < give_up
        catalogue.scan()
    assert catalogue.dumps[dump.id].state == "ready"
    opened = await lookup(catalogue, dump.id)
    assert isinstance(opened, Opened)
    assert opened.files.space(opened.dump, "physical").pread(4096, 4096) == b"x" * 4096
