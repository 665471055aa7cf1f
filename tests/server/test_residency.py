"""Residency: on memory, on a real disk, on one that the test slows and breaks, and where nobody can say (FUSE).

What is in memory is asked of mincore(2), which tells a file's owner the truth.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import mmap
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from farcore import frames
from farcore.errors import FaultError, SourceChangedError
from farcore_server.cachestat import cached
from farcore_server.mapping import MappedSource
from farcore_server.residency import AHEAD, Residency
from tests import pages_wire
from tests.elfwriter import Dump, load
from tests.http1 import Connection, CutError
from tests.live import Live, Serve
from tests.served import QUICK, listed, until
from tests.storage import Disk, disk, disk_filesystem, drop

NATIVE = ("--host-arch", "x86_64", "--workers", "1")
SIZE = 8 << 20
CONTENT = os.urandom(SIZE)
PAGE = mmap.PAGESIZE
DELAY = 0.5
# Far below the delay, far above what a busy machine needs for what does not wait.
AT_ONCE = 0.2

_LIBC = ctypes.CDLL(None, use_errno=True)


def in_memory(path: Path) -> list[bool]:
    """Of each page of a file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as memory:
        pages = np.frombuffer(memory, np.uint8)
        found = (ctypes.c_ubyte * -(-len(pages) // PAGE))()
        assert _LIBC.mincore(ctypes.c_void_p(pages.ctypes.data), ctypes.c_size_t(len(pages)), found) == 0
        del pages
        return [bool(page & 1) for page in found]


def residency(path: Path) -> Residency:
    fd = os.open(path, os.O_RDONLY)
    return Residency(MappedSource(fd, os.fstat(fd).st_size))


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    """A file of CONTENT, all of it on disk and none of it in memory."""
    path = tmp_path / "vmcore"
    with path.open("wb") as file:
        file.write(CONTENT)
        file.flush()
        os.fsync(file.fileno())
    drop(path)
    if any(in_memory(path)):
        pytest.skip("the temporary folder is in memory: nothing there can be cold")
    return path


def make_cold(path: Path) -> None:
    """None of it is in memory; the kernel keeps for a moment what somebody has just let go of."""
    for _ in range(100):
        drop(path)
        if not any(in_memory(path)):
            return
        time.sleep(0.01)


def timed(call: Callable[[], object]) -> tuple[object, float]:
    begun = time.monotonic()
    return call(), time.monotonic() - begun


@pytest.mark.parametrize("told", [True, False])
def test_cold_bytes_are_not_there_and_hot_ones_are(on_disk: Path, told: bool) -> None:
    for read in (False, True):
        make_cold(on_disk)
        found = residency(on_disk)
        found._counts = told  # False: who neither owns the file nor may write it is not told by cachestat(2)
        there = found.read_now(1 << 20, 4096) if read else found.resident(1 << 20, 4096)
        # To ask without waiting has the kernel begin to read, and a quick disk may have done it by the answer.
        assert not there or in_memory(on_disk)[(1 << 20) // PAGE]
        on_disk.read_bytes()
        assert all(in_memory(on_disk))
        assert found.resident(0, SIZE)
        assert found.read_now((1 << 20) + 5, 70_000) == CONTENT[(1 << 20) + 5 : (1 << 20) + 70_005]


def test_cachestat_tells_whether_all_of_a_range_is_in_memory_where_it_tells_anything(on_disk: Path) -> None:
    with on_disk.open("rb") as file:
        if cached(file.fileno(), 0, SIZE) is None:
            pytest.skip("no cachestat(2) here")
        assert cached(file.fileno(), 0, SIZE) is False
        on_disk.read_bytes()
        for offset, length in ((0, SIZE), (5, 1), (PAGE - 1, 2), (SIZE - 1, 1)):
            assert cached(file.fileno(), offset, length) is True
        os.posix_fadvise(file.fileno(), 1 << 20, PAGE, os.POSIX_FADV_DONTNEED)
        if not in_memory(on_disk)[(1 << 20) // PAGE]:
            assert cached(file.fileno(), (1 << 20) - 1, 2) is False
    assert cached(-1, 0, 1) is None


async def test_what_was_brought_is_there(on_disk: Path) -> None:
    wanted = slice((2 << 20) // PAGE, (3 << 20) // PAGE)
    for _ in range(3):  # a virtual machine's host may take memory back at any moment, page by page
        drop(on_disk)
        found = residency(on_disk)
        await found.bring(2 << 20, 1 << 20)
        if all(in_memory(on_disk)[wanted]):
            break
    assert all(in_memory(on_disk)[wanted])
    assert found.resident(2 << 20, 1 << 20)
    drop(on_disk)
    assert await found.read(5 << 20, 100_000) == CONTENT[5 << 20 : (5 << 20) + 100_000]


async def test_a_sequential_reader_finds_the_next_piece_there_and_others_bring_only_theirs(on_disk: Path) -> None:
    found = residency(on_disk)
    await found.bring(0, 1 << 20)
    drop(on_disk)
    await found.bring(1 << 20, 1 << 20)
    following = slice((2 << 20) // PAGE, ((2 << 20) + AHEAD) // PAGE)
    for _ in range(500):
        if all(in_memory(on_disk)[following]):
            break
        await asyncio.sleep(0.01)
    assert all(in_memory(on_disk)[following])
    drop(on_disk)
    # The kernel's own readahead is a few hundred KiB at most.
    await residency(on_disk).bring(4 << 20, 65536)
    await asyncio.sleep(0.2)
    assert not any(in_memory(on_disk)[(6 << 20) // PAGE :])


def test_memory_is_always_there() -> None:
    with TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "vmcore"
        path.write_bytes(CONTENT)
        found = residency(path)
        assert (found.always, found.sendable) == (True, True)
        assert found.resident(0, SIZE)
        assert found.read_now(5, 100_000) == CONTENT[5:100_005]
        os.truncate(path, 1 << 20)
        assert found.read_now((1 << 20) - 10, 20) is None


def test_of_proc_all_is_there_and_nothing_sent_by_sendfile() -> None:
    path = Path("/proc/self/maps")
    fd = os.open(path, os.O_RDONLY)
    found = Residency(MappedSource(fd, 4096))
    assert (found.always, found.sendable) == (True, False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "below"
    folder.mkdir()
    (folder / "vmcore").write_bytes(CONTENT)
    return folder


@pytest.fixture
def fuse(folder: Path) -> Iterator[Disk]:
    with disk(folder) as shown:
        yield shown


@pytest.fixture
def ext4(folder: Path, tmp_path: Path) -> Iterator[Disk]:
    with disk_filesystem(folder, tmp_path) as shown:
        yield shown


async def longest_turn(task: asyncio.Task[object]) -> float:
    """The longest that anything else had to wait until the task was done, in seconds."""
    longest, last = 0.0, time.monotonic()
    while not task.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    return longest


async def test_a_slow_disk_stalls_no_loop(ext4: Disk) -> None:
    ext4.forget()
    found = residency(ext4.folder / "vmcore")
    ext4.delay = DELAY
    for at, way in ((1 << 20, "read"), (4 << 20, "bring")):
        begun = time.monotonic()
        waiting: asyncio.Task[object] = asyncio.create_task(getattr(found, way)(at, 4096))
        assert await longest_turn(waiting) < AT_ONCE
        assert time.monotonic() - begun > DELAY / 2
        content, seconds = timed(lambda at=at: found.read_now(at, 4096))  # type: ignore[misc]
        assert (content, seconds < AT_ONCE) == (CONTENT[at : at + 4096], True)


async def test_without_rwf_nowait_every_read_is_a_threads(fuse: Disk) -> None:
    path = fuse.folder / "vmcore"
    found = residency(path)
    assert found.read_now(0, 4096) is None
    assert found.blind
    path.read_bytes()
    # In memory by now, but nobody can tell.
    assert (found.read_now(0, 4096), found.resident(0, 4096)) == (None, False)
    drop(path)
    fuse.delay = DELAY
    waiting: asyncio.Task[object] = asyncio.create_task(found.read(1 << 20, 4096))
    assert await longest_turn(waiting) < AT_ONCE
    assert waiting.result() == CONTENT[1 << 20 : (1 << 20) + 4096]


async def test_a_disk_that_fails_is_a_fault_wherever_the_bytes_were_looked_for(ext4: Disk) -> None:
    ext4.forget()
    found = residency(ext4.folder / "vmcore")
    ext4.broken = range(1 << 40)
    with pytest.raises(FaultError) as caught:
        await found.read(1 << 20, 4096)
    assert caught.value.kind == "unreadable"
    ext4.broken = range(0)
    assert await found.read(1 << 20, 4096) == CONTENT[1 << 20 : (1 << 20) + 4096]
    # In memory a moment ago, and now neither there nor on the disk.
    assert found.read_now(1 << 20, 4096) is not None
    ext4.forget()
    ext4.broken = range(1 << 40)
    with pytest.raises(FaultError) as caught:
        await found.read(1 << 20, 4096)
    assert caught.value.kind == "unreadable"


async def test_a_file_that_lost_its_end_is_told(on_disk: Path) -> None:
    found = residency(on_disk)
    assert await found.read((1 << 20) - 10, 20) == CONTENT[(1 << 20) - 10 : (1 << 20) + 10]
    os.truncate(on_disk, 1 << 20)
    with pytest.raises(SourceChangedError):
        await found.read((1 << 20) - 10, 20)


# The same of a server.


class Two:
    """A server of a slow disk, and its dump's link. Its beginning is in memory, what is behind that is not."""

    def __init__(self, shown: Disk, serve: Serve) -> None:
        self.shown = shown
        self.content = (shown.folder / "vmcore").read_bytes()
        self.live: Live = serve(shown.folder, *NATIVE)
        with Connection(self.live.url) as server:
            self.link = listed(server)["vmcore"]["links"]["self"]
            shown.forget()
            server.get(f"{self.link}/vmcore", Range="bytes=0-65535")
            server.get(f"{self.link}/vmcore", Range="bytes=0-65535")

    def ask(self, server: Connection, start: int, length: int) -> None:
        server.ask("GET", f"{self.link}/vmcore", {"Range": f"bytes={start}-{start + length - 1}"})

    def check(self, server: Connection, start: int, length: int) -> None:
        assert server.answer().body == self.content[start : start + length]


@pytest.fixture(params=["fuse", "ext4"])
def two(request: pytest.FixtureRequest, folder: Path, serve: Serve) -> Two:
    Dump([load(CONTENT, paddr=0)]).write(folder / "vmcore")
    return Two(request.getfixturevalue(request.param), serve)


@pytest.mark.parametrize("length", [4096, 65536, 1 << 20])
@pytest.mark.parametrize("warm", [False, True])
def test_hot_ranges_are_answered_while_cold_ones_are_waited_for(two: Two, length: int, warm: bool) -> None:
    colds = [Connection(two.live.url) for _ in range(4)]
    with Connection(two.live.url) as hot:
        if warm:  # so that a lane would answer them
            for server in [*colds, hot] * 3:
                two.ask(server, 0, 4096)
                two.check(server, 0, 4096)
                time.sleep(0.002)
        two.shown.delay = DELAY
        for n, cold in enumerate(colds):
            two.ask(cold, (n + 1) * 1_500_000, length)
        waits = []
        # Where all reads are a thread's, those of the page cache are as well, and go on meanwhile.
        for at in range(0, 40_000, 1000):
            begun = time.monotonic()
            two.ask(hot, at, 1000)
            two.check(hot, at, 1000)
            waits.append(time.monotonic() - begun)
        assert max(waits) < AT_ONCE
        two.shown.delay = 0
        for n, cold in enumerate(colds):
            two.check(cold, (n + 1) * 1_500_000, length)
            cold.close()


@pytest.mark.parametrize("show", ["fuse", "ext4"])
def test_the_first_request_for_a_cold_dump_may_be_for_much_of_it(
    request: pytest.FixtureRequest, folder: Path, serve: Serve, show: str
) -> None:
    Dump([load(CONTENT, paddr=0)]).write(folder / "vmcore")
    content = (folder / "vmcore").read_bytes()
    live = serve(request.getfixturevalue(show).folder, *NATIVE)
    with Connection(live.url) as server:
        link = listed(server)["vmcore"]["links"]["self"]
        assert server.get(f"{link}/vmcore", Range="bytes=1000000-5000000").body == content[1_000_000:5_000_001]
        assert server.get(f"{link}/vmcore").body == content


def ends(server: Connection) -> bool:
    """Whether the next answer is an error, or is cut: its head may be out before the disk is asked."""
    try:
        return server.answer().status == 500
    except CutError:
        return True


def test_a_disk_that_fails_ends_its_answers_and_nothing_else(two: Two) -> None:
    with Connection(two.live.url) as other:
        for start, length in ((4 << 20, 4096), (5 << 20, 200_000), (6 << 20, 2 << 20)):
            with Connection(two.live.url) as server:
                for _ in range(3):
                    two.ask(server, 0, 4096)
                    two.check(server, 0, 4096)
                    time.sleep(0.002)
                two.shown.broken = range(1 << 40)
                two.ask(server, start, length)
                assert ends(server)
                assert other.get("/healthz").status == 200
                two.shown.broken = range(0)
        two.ask(other, 4 << 20, 4096)
        two.check(other, 4 << 20, 4096)
    assert "Traceback" not in two.live.stderr


def test_a_disk_that_fails_where_it_had_been_read_ends_its_answers_and_nothing_else(two: Two) -> None:
    # What was in memory a moment ago is taken to be there still. The kernel keeps what is mapped or just being sent.
    dropped = []
    for warm in (False, True):
        with Connection(two.live.url) as server, Connection(two.live.url) as other:
            for start, length in ((1 << 20, 4096), (2 << 20, 100_000)):
                for _ in range(3 * warm):
                    two.ask(server, 0, 4096)
                    two.check(server, 0, 4096)
                    time.sleep(0.002)
                for _ in range(2):
                    with Connection(two.live.url) as fresh:  # no lane, which would map them
                        two.ask(fresh, start, length)
                        two.check(fresh, start, length)
                two.shown.forget()
                pages = in_memory(two.shown.folder / "vmcore")[start // PAGE : (start + length) // PAGE]
                dropped.append(not any(pages))
                two.shown.broken = range(1 << 40)
                with Connection(two.live.url) as fresh:
                    two.ask(fresh, start, length)
                    if dropped[-1]:
                        assert ends(fresh)
                    elif all(pages):
                        two.check(fresh, start, length)
                two.shown.broken = range(0)
            assert other.get("/healthz").status == 200
    assert any(dropped)
    assert "Traceback" not in two.live.stderr


# A short range is read, a long one is sent by sendfile, a batch reads what it can of the rest.
@pytest.mark.parametrize(("show", "way"), [("fuse", "short"), ("ext4", "long"), ("ext4", "batch")])
def test_a_dump_whose_storage_fails_is_marked_until_it_can_be_read_again(
    request: pytest.FixtureRequest, folder: Path, serve: Serve, way: str, show: str
) -> None:
    for name in ("vmcore", "vmcore-2"):
        Dump([load(CONTENT, paddr=0)]).write(folder / name)
    shown: Disk = request.getfixturevalue(show)
    live = serve(shown.folder, *NATIVE, *QUICK)
    dumps = until(live, lambda found: len(found) == 2 and all(dump["state"] == "ready" for dump in found.values()))
    start, length = 5 << 20, 2 << 20 if way == "long" else 4096
    with Connection(live.url) as server:
        link = dumps["vmcore"]["links"]["self"]
        assert server.get(f"{link}/vmcore", Range="bytes=0-9").status == 206
        shown.forget()
        shown.broken = range(1 << 40)
        if way == "batch":
            body = pages_wire.request([("stored", start, length)])
            answer = server.request("POST", f"{link}/pages", {"Content-Type": frames.MEDIA_TYPE}, body)
            assert set(pages_wire.painted(answer.body)) == {"unreadable"}
        else:
            server.ask("GET", f"{link}/vmcore", {"Range": f"bytes={start}-{start + length - 1}"})
            assert ends(server)
    time.sleep(0.5)  # several searches find it broken still
    with Connection(live.url) as server:
        marked = listed(server)
        *before, warning = marked["vmcore"]["verdict"]["warnings"]
        assert marked["vmcore"]["state"] == "incomplete"
        assert f"its storage fails: byte {start:,} of the file" in warning
        assert json.loads(server.get(link).body)["verdict"]["warnings"] == [*before, warning]
        assert before == dumps["vmcore"]["verdict"]["warnings"]
        assert marked["vmcore-2"] == dumps["vmcore-2"]
    shown.broken = range(0)
    mended = until(live, lambda found: found["vmcore"]["state"] == "ready")
    assert mended == dumps
