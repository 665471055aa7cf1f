"""The page file: a page that is found is the page that was kept, whatever has happened to the file meanwhile."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore.errors import SettingsError
from farcore_client.cachedir import CAPACITY, LEAST, CacheDir
from farcore_client.output import OutputError
from farcore_client.remote.pagefile import NAME, PageFile

PAGE = 4096
WHO = tuple(bytes([n]) * 16 for n in (1, 2))


def page(who: bytes, key: int) -> bytes:
    """What is kept under it in these tests."""
    return (who + key.to_bytes(16, "little")) * (PAGE // 32)


@contextmanager
def opened(path: Path, capacity: int = LEAST) -> Iterator[PageFile]:
    """The file, for the time of the body."""
    file = PageFile(CacheDir(path, capacity))
    try:
        yield file
    finally:
        file.close()


def test_what_was_kept_is_found_by_the_next_process_and_for_nobody_else(tmp_path: Path) -> None:
    with opened(tmp_path / "cache") as file:
        for key in range(100):
            file.keep(WHO[0], key, page(WHO[0], key))
    with opened(tmp_path / "cache") as file:
        assert all(file.find(WHO[0], key) == page(WHO[0], key) for key in range(100))
        assert not any(file.find(WHO[1], key) for key in range(100))
        assert file.find(WHO[0], 100) is None


def test_the_limit_is_kept_and_what_came_last_is_there(tmp_path: Path) -> None:
    with opened(tmp_path / "cache") as file:
        for key in range(3 * LEAST // PAGE):
            file.keep(WHO[0], key, page(WHO[0], key))
        found = os.stat(tmp_path / "cache" / NAME)
        assert LEAST * 0.9 < found.st_blocks * 512 <= LEAST
        assert found.st_size <= LEAST
        last = range(3 * LEAST // PAGE - 200, 3 * LEAST // PAGE)
        assert sum(file.find(WHO[0], key) == page(WHO[0], key) for key in last) >= 190
    # Another limit is another file, in the place of the first.
    with opened(tmp_path / "cache", 2 * LEAST) as file:
        assert file.find(WHO[0], last[-1]) is None
    assert os.listdir(tmp_path / "cache") == [NAME]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageFile]:
    """A file of 64 pages, all in two sets of slots, so that any damage hits something."""
    with opened(tmp_path_factory.mktemp("damaged") / "cache", 4 * PAGE + 64 * (PAGE + 40)) as file:
        yield file


@given(st.lists(st.tuples(st.integers(0, 1 << 19), st.binary(min_size=1, max_size=300)), max_size=20), st.integers(0, 1 << 20))
def test_damage_is_noticed_and_nothing_wrong_is_served(damaged: PageFile, harms: list[tuple[int, bytes]], end: int) -> None:
    keys = range(16)
    for key in keys:
        damaged.keep(WHO[0], key, page(WHO[0], key))
    with open(damaged.path, "r+b") as file:
        for position, harm in harms:
            os.pwrite(file.fileno(), harm, position)
        if end < os.fstat(file.fileno()).st_size:
            os.truncate(file.fileno(), end)
    for key in keys:
        assert damaged.find(WHO[0], key) in (None, page(WHO[0], key))
        # What was noticed is mended.
        damaged.keep(WHO[0], key, page(WHO[0], key))
        assert damaged.find(WHO[0], key) == page(WHO[0], key)


WRITER = """
import sys
from pathlib import Path
from farcore_client.cachedir import CacheDir
from farcore_client.remote.pagefile import PageFile
file, who = PageFile(CacheDir(Path(sys.argv[1]), 4 << 20)), bytes.fromhex(sys.argv[2])
print("ready", flush=True)
while True:
    for key in range(1500):  # more than there is room for: they take each other's places
        page = (who + key.to_bytes(16, "little")) * 128
        assert file.find(who, key) in (None, page), key
        file.keep(who, key, page)
"""


def test_processes_that_write_at_once_and_are_killed_leave_nothing_wrong(tmp_path: Path) -> None:
    chance = random.Random(3)
    command = [sys.executable, "-c", WRITER, str(tmp_path / "cache")]
    writers = [subprocess.Popen([*command, who.hex()], stdout=subprocess.PIPE) for who in WHO * 2]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        time.sleep(chance.random() / 3)
        assert writer.poll() is None
        writer.kill()
        writer.communicate()
        with opened(tmp_path / "cache") as file:
            found = [file.find(who, key) in (None, page(who, key)) for who in WHO for key in range(1500)]
        assert all(found)


def test_the_directory_and_the_file_are_nobody_elses(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(tmp_path / "new" / "cache"):
            pass
    finally:
        os.umask(before)
    assert os.stat(tmp_path / "new" / "cache").st_mode & 0o7777 == 0o700
    assert os.stat(tmp_path / "new" / "cache" / NAME).st_mode & 0o7777 == 0o600
    os.chmod(tmp_path / "new" / "cache", 0o750)
    with pytest.raises(OutputError, match=r"is not yours alone.*chmod 700"), opened(tmp_path / "new" / "cache"):
        pass


def test_what_is_no_directory_or_leads_away_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot have the page cache: Not a directory"), opened(tmp_path / "file"):
        pass
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache" / NAME).symlink_to(tmp_path / "file")
    with pytest.raises(OutputError, match="Too many levels of symbolic links"), opened(tmp_path / "cache"):
        pass
    assert (tmp_path / "file").stat().st_size == 0


def test_a_directory_may_have_a_size_behind_it() -> None:
    assert CacheDir.parse("") is None
    assert CacheDir.parse("/a,b") == (Path("/a,b"), CAPACITY)
    assert CacheDir.parse("/a,b,20G") == (Path("/a,b"), 20 << 30)
    assert CacheDir.parse("~/x,4M") == (Path.home() / "x", LEAST)
    with pytest.raises(SettingsError, match="3M keeps nothing"):
        CacheDir.parse("/a,3M")
