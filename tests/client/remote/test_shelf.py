"""Pages on disk: the next session reads them there, of this version of this dump alone, and a bad disk spoils nothing."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farcore.source import Extent
from farcore_client.cachedir import CacheDir
from farcore_client.remote import pagefile
from tests.client.conftest import Farcore
from tests.client.remote.conftest import Connect, dump_url
from tests.elfwriter import Dump, load
from tests.live import Live, Serve
from tests.served import until

PAGE = 4096
SIZE = 3 << 20
EVERY_SEVENTH = [Extent(at, 100) for at in range(0, SIZE - PAGE, 7 * PAGE)]


def written(path: Path) -> bytes:
    """A dump of noise, a hole and zeros; its bytes."""
    noise = os.urandom(SIZE - 8 * PAGE)
    return Dump([load(noise + bytes(8 * PAGE), paddr=0, memsz=SIZE + PAGE)]).write(path).read_bytes()


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dumps") / "vmcore"
    written(path)
    return path


@pytest.fixture(scope="module")
def live(dump: Path, serve_all_along: Serve) -> Live:
    return serve_all_along(dump.parent, "--host-arch", "x86_64", "--rescan", "0.2")


@pytest.fixture
def cache(tmp_path: Path) -> CacheDir:
    return CacheDir(tmp_path / "cache", 64 << 20)


def test_the_next_session_asks_for_nothing_that_an_earlier_one_has_read(
    live: Live, cache: CacheDir, opened: Connect, dump: Path
) -> None:
    whole = dump.read_bytes()
    wanted = [*EVERY_SEVENTH, Extent(len(whole) - 5, 5)]  # the last page is a short one
    expected = [whole[at : at + length] for at, length in wanted]
    with opened(live, "vmcore", cache=cache) as remote:
        assert remote.vmcore.preadv(wanted) == expected
    with opened(live, "vmcore", cache=cache) as remote:
        assert remote.vmcore.preadv(wanted) == expected
        assert remote.counts.requests == 0
        # Read-ahead, prefetches and single reads find what is there as well.
        remote.prefetch("vmcore", wanted).result(10)
        assert remote.vmcore.pread(0, 8) == whole[:8]
        assert remote.counts.requests == 0
        assert remote.vmcore.pread(PAGE, 50_000) == whole[PAGE : PAGE + 50_000]
        assert remote.counts.requests > 0
    # Other resources, and other layouts of this one, have other bytes under the same ETag.
    with opened(live, "vmcore", cache=cache, normalised=True) as remote:
        remote.vmcore.pread(7 * PAGE, 100)
        assert remote.counts.requests == 1


def test_a_dump_that_was_replaced_is_read_anew(live: Live, cache: CacheDir, opened: Connect, dump: Path) -> None:
    with opened(live, "vmcore", cache=cache) as remote:
        remote.vmcore.preadv(EVERY_SEVENTH)
        etag = remote.etag
    whole = written(dump.with_name("new"))
    os.rename(dump.with_name("new"), dump)
    until(live, lambda dumps: dumps["vmcore"]["etag"] != etag)
    with opened(live, "vmcore", cache=cache) as remote:
        assert remote.vmcore.preadv(EVERY_SEVENTH) == [whole[at : at + length] for at, length in EVERY_SEVENTH]
        assert remote.counts.requests > 0


def test_sessions_at_the_same_time_share_it(live: Live, cache: CacheDir, opened: Connect, dump: Path) -> None:
    whole = dump.read_bytes()
    remotes = [opened(live, "vmcore", cache=cache) for _ in range(4)]
    found: list[bool] = []

    def read(number: int) -> None:
        places = range(number * PAGE, SIZE, 3 * PAGE)
        found.extend(remotes[number].vmcore.pread(at, PAGE) == whole[at : at + PAGE] for at in places)

    readers = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(found) > 1000
    assert all(found)


@contextmanager
def tmpfs(path: Path, size: str) -> Iterator[Path]:
    """A disk that is full soon."""
    if os.geteuid():
        pytest.skip("mounting a small tmpfs needs root")
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "farcore-client-test", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_full_disk_is_said_once_and_reads_go_on(
    live: Live, opened: Connect, dump: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = dump.read_bytes()
    with tmpfs(tmp_path / "disk", "1M") as disk:
        for _ in range(2):
            with opened(live, "vmcore", cache=CacheDir(disk, 64 << 20)) as remote:
                for at in range(0, SIZE, 1 << 18):
                    assert remote.vmcore.pread(at, 1 << 18) == whole[at : at + (1 << 18)]
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["farcore"] * 2
    assert "cannot be written (No space left on device): what is read from now on is not kept" in caplog.text


def test_a_file_that_is_damaged_is_read_past(live: Live, cache: CacheDir, opened: Connect, dump: Path) -> None:
    whole = dump.read_bytes()
    expected = [whole[at : at + length] for at, length in EVERY_SEVENTH]
    with opened(live, "vmcore", cache=cache) as remote:
        remote.vmcore.preadv(EVERY_SEVENTH)
    with open(cache.path / pagefile.NAME, "r+b") as file:
        start = PAGE  # behind its head every byte is another
        content = file.read()[start:]
        file.seek(start)
        file.write(bytes(content).translate(bytes((n + 1) % 256 for n in range(256))))
    with opened(live, "vmcore", cache=cache) as remote:
        assert remote.vmcore.preadv(EVERY_SEVENTH) == expected
        assert remote.counts.requests > 0
    with opened(live, "vmcore", cache=cache) as remote:  # and was mended
        assert remote.vmcore.preadv(EVERY_SEVENTH) == expected
        assert remote.counts.requests == 0


def test_farcore_client_open_and_the_commands_take_it_by_the_environment(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, farcore: Farcore
) -> None:
    import farcore_client

    url = str(dump_url(live.url, "vmcore"))
    monkeypatch.setenv("FARCORE_CACHE", f"{tmp_path / 'cache'},8M")
    farcore_client.open(url, cache="").close()
    assert not (tmp_path / "cache").exists()
    with farcore_client.open(url) as file:
        assert file.read(4) == b"\x7fELF"
    assert 0 < (tmp_path / "cache" / pagefile.NAME).stat().st_size <= 8 << 20
    os.chmod(tmp_path / "cache", 0o755)
    done = farcore("door", "gdb", url)
    assert (done.status, "is not yours alone" in done.stderr) == (1, True)
    monkeypatch.setenv("FARCORE_CACHE", "x,1M")
    done = farcore("door", "gdb", url)
    assert (done.status, "1M keeps nothing" in done.stderr) == (2, True)
