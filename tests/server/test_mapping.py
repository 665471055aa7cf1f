"""MappedSource: the source contract, and its map against the file, /proc/self/maps, and a process that a signal would end."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore.errors import FaultError
from farcore.source import Source
from farcore_server.mapping import MappedSource
from tests.source_contract import CONTENT, SIZE, FileContract

PAGE = 4096
# 41 pages and an odd rest, no two words alike; mapped through windows of 4 pages, of which 4 are kept.
WIDE = b"".join(n.to_bytes(4, "big") for n in range(41 * PAGE // 4)) + b"odd"
WINDOW = 4 * PAGE
LIMIT = 4 * WINDOW


def opened(path: Path, *, limit: int = 0, windowed: bool = False, size: int | None = None) -> MappedSource:
    """The source over ``path``, with the size that the file has now."""
    fd = os.open(path, os.O_RDONLY)
    return MappedSource(fd, os.fstat(fd).st_size if size is None else size, limit=limit, windowed=windowed)


def file(folder: Path, content: bytes = WIDE) -> Path:
    """A file with that content."""
    path = folder / "vmcore"
    path.write_bytes(content)
    return path


def maps(path: Path) -> list[tuple[int, int, str]]:
    """(offset in the file, bytes, protection) of each of this process's maps of it, as /proc/self/maps has them."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(f" {path}"):
            addresses, protection, offset = line.split()[:3]
            start, stop = (int(edge, 16) for edge in addresses.split("-"))
            found.append((int(offset, 16), stop - start, protection))
    return found


def mapped(path: Path) -> int:
    """How many bytes of the file this process has mapped."""
    return sum(length for _, length, _ in maps(path))


def windows(path: Path) -> set[int]:
    """The windows among them, by number; the kernel may join two that happen to lie side by side."""
    return {at // WINDOW for offset, length, _ in maps(path) for at in range(offset, offset + length, WINDOW)}


def in_a_process(code: str, *arguments: str | int | Path) -> str:
    """What a process of its own prints; a signal would be its end, and not this one's."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr}"
    return done.stdout.strip()


class TestMappedWhole(FileContract):
    def open(self, path: Path) -> Source:
        return opened(path)


class TestMappedThroughWindows(FileContract):
    def open(self, path: Path) -> Source:
        return opened(path, limit=PAGE)


class TestNotMapped(FileContract):
    def open(self, path: Path) -> Source:
        source = opened(path)
        source.maps = False
        return source


@pytest.mark.parametrize("limit", [0, LIMIT, PAGE])
@pytest.mark.parametrize("window", [WINDOW, PAGE])
def test_a_view_anywhere_and_over_any_window_edge_has_the_files_bytes(tmp_path: Path, limit: int, window: int) -> None:
    source = opened(file(tmp_path), limit=limit)
    for edge in range(window, len(WIDE), window):
        for start, stop in ((edge - 1, edge + 1), (edge - 1, edge), (edge, edge + 1), (edge - 5, edge + window + 5)):
            stop = min(stop, len(WIDE))
            assert source.view(start, stop - start).tobytes() == WIDE[start:stop]
    assert source.view(0, len(WIDE)).tobytes() == WIDE


def test_views_of_any_part_are_that_part(tmp_path: Path) -> None:
    sources = [opened(file(tmp_path), limit=limit) for limit in (0, LIMIT, PAGE)]

    @given(st.integers(0, len(WIDE)), st.integers(0, len(WIDE)))
    def any_part(one: int, other: int) -> None:
        start, stop = sorted((one, other))
        for source in sources:
            view = source.view(start, stop - start)
            assert (view.dtype.str, view.shape, view.flags.writeable) == ("|u1", (stop - start,), False)
            assert view.tobytes() == WIDE[start:stop]

    any_part()


@pytest.mark.parametrize("limit", [0, LIMIT])
@pytest.mark.parametrize("offset", [0, WINDOW - 2, 5 * WINDOW - 2])
def test_a_view_shares_memory_with_the_file(tmp_path: Path, limit: int, offset: int) -> None:
    path = file(tmp_path)
    source = opened(path, limit=limit)
    view = source.view(offset, 4)
    with path.open("r+b") as other:
        os.pwrite(other.fileno(), b"news", offset)
    assert view.tobytes() == b"news"
    copy = bytes(source.pread(offset, 4))
    with path.open("r+b") as other:
        os.pwrite(other.fileno(), b"more", offset)
    assert (view.tobytes(), copy) == (b"more", b"news")


@pytest.mark.parametrize("limit", [0, LIMIT])
def test_nothing_can_be_written_through_a_view(tmp_path: Path, limit: int) -> None:
    path = file(tmp_path)
    source = opened(path, limit=limit)
    view = source.view(0, 16)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True
    lent = source.lend(0, 16)
    with pytest.raises(TypeError, match="read-only"):
        lent[0] = 1
    assert {protection for _, _, protection in maps(path)} == {"r--s"}


@pytest.mark.parametrize(("offset", "length"), [(len(WIDE), 1), (0, len(WIDE) + 1), (-1, 1), (0, -1), (1 << 64, 1)])
@pytest.mark.parametrize("limit", [0, LIMIT])
def test_a_view_outside_the_file_is_a_fault(tmp_path: Path, limit: int, offset: int, length: int) -> None:
    source = opened(file(tmp_path), limit=limit)
    with pytest.raises(FaultError):
        source.view(offset, length)


def test_what_fits_the_limit_is_mapped_whole_and_what_does_not_in_part(tmp_path: Path) -> None:
    path = file(tmp_path, bytes(LIMIT))
    fits = opened(path, limit=LIMIT)
    assert mapped(path) == LIMIT
    del fits
    assert mapped(path) == 0
    exceeds = opened(path, limit=LIMIT - 1)
    for offset in range(0, LIMIT, PAGE):
        exceeds.view(offset, 1)
        assert mapped(path) < LIMIT


def test_no_more_than_the_limit_is_mapped_whatever_is_read_and_the_least_recent_goes_first(tmp_path: Path) -> None:
    path = file(tmp_path)
    source = opened(path, limit=LIMIT)
    assert 0 < mapped(path) <= WINDOW
    for offset in (*range(0, len(WIDE), PAGE), *range(0, len(WIDE), 3 * PAGE)):
        source.view(offset, 1)
        source.lend(offset, 1)
        source.view(max(0, offset - 2), 3)
        assert mapped(path) <= LIMIT
    for window in (4, 5, 6, 7):
        source.view(window * WINDOW, 1)
    assert windows(path) == {4, 5, 6, 7}
    source.view(4 * WINDOW, 1)
    source.view(0, 1)
    assert windows(path) == {4, 6, 7, 0}


def test_a_view_outlives_its_window_and_its_source(tmp_path: Path) -> None:
    path = file(tmp_path)
    source = opened(path, limit=LIMIT)
    view = source.view(10, 100)
    for offset in range(0, len(WIDE), PAGE):
        source.view(offset, 1)
    assert view.tobytes() == WIDE[10:110]
    del source
    assert view.tobytes() == WIDE[10:110]
    assert mapped(path) == WINDOW
    del view
    assert mapped(path) == 0


def test_threads_that_view_at_once_get_their_own_bytes_however_often_windows_change(tmp_path: Path) -> None:
    source = opened(file(tmp_path), limit=LIMIT)
    offsets = [n * 7919 % (len(WIDE) - 64) for n in range(4000)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda offset: source.view(offset, 64).tobytes(), offsets))
    assert found == [WIDE[offset : offset + 64] for offset in offsets]


def test_proc_vmcores_map_is_windowed_on_a_64_bit_host_too(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    with path.open("wb") as sparse:
        sparse.truncate(1 << 30)
    source = opened(path, windowed=True)
    for offset in range(0, 1 << 30, 32 << 20):
        source.view(offset, 1)
        assert mapped(path) <= 256 << 20
    assert mapped(path) > 0
    del source
    whole = opened(path)
    assert mapped(path) == 1 << 30
    assert whole.maps


@pytest.mark.parametrize("limit", [0, LIMIT, PAGE])
def test_what_is_lent_never_crosses_a_window_and_is_never_nothing(tmp_path: Path, limit: int) -> None:
    path = file(tmp_path)
    source = opened(path, limit=limit)
    window = {0: len(WIDE), LIMIT: WINDOW, PAGE: PAGE}[limit]
    for offset in (0, 1, PAGE - 1, PAGE, WINDOW - 1, WINDOW, 3 * WINDOW + 7, len(WIDE) - 1):
        for length in (1, 2, PAGE, WINDOW, len(WIDE)):
            length = min(length, len(WIDE) - offset)
            lent = source.lend(offset, length)
            assert len(lent) == min(length, window - offset % window) >= 1
            assert lent == WIDE[offset : offset + len(lent)]
            assert lent.readonly


@pytest.mark.parametrize(("offset", "length"), [(len(WIDE), 1), (len(WIDE), 0), (0, len(WIDE) + 1), (-1, 1), (1 << 63, 1)])
@pytest.mark.parametrize("limit", [0, LIMIT])
def test_nothing_outside_the_file_is_lent(tmp_path: Path, limit: int, offset: int, length: int) -> None:
    source = opened(file(tmp_path), limit=limit)
    with pytest.raises(FaultError):
        source.lend(offset, length)


def test_where_the_kernel_refuses_a_map_reads_and_views_are_copies() -> None:
    notes = Path("/sys/kernel/notes")  # sysfs: a file of a known size that has no mmap (ENODEV)
    if not notes.exists():
        pytest.skip("there is no /sys/kernel/notes: sysfs is not mounted")
    content = notes.read_bytes()
    source = opened(notes)
    assert (source.maps, source.size) == (False, len(content))
    assert source.pread(0, len(content)) == content
    assert source.view(4, 8).tobytes() == content[4:12]
    assert not source.view(4, 8).flags.writeable
    assert source.lend(4, 8) == content[4:12]


def test_a_proc_file_that_stat_calls_empty_is_read_though_it_cannot_be_mapped() -> None:
    source = opened(Path("/proc/self/status"), size=5)
    assert not source.maps
    assert source.view(0, 5).tobytes() == b"Name:"


def test_an_empty_file_is_not_mapped(tmp_path: Path) -> None:
    source = opened(file(tmp_path, b""))
    assert not source.maps
    assert source.view(0, 0).shape == (0,)


def test_a_window_that_the_file_lost_is_copied_as_far_as_it_is_there_and_else_said_to_be_gone(tmp_path: Path) -> None:
    path = file(tmp_path)
    printed = in_a_process(
        """
        import os, sys
        from farcore.errors import SourceChangedError
        from farcore_server.mapping import MappedSource
        path, limit, left = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        fd = os.open(path, os.O_RDONLY)
        source = MappedSource(fd, os.fstat(fd).st_size, limit=limit)
        os.truncate(path, left)
        for ask in (source.view, source.lend):
            print(bytes(ask(left - 4, 4)).hex())
            try:
                ask(left - 4, 8)
            except SourceChangedError:
                print("gone")
        """,
        path,
        LIMIT,
        5 * WINDOW + 12,
    )
    end = WIDE[5 * WINDOW + 8 : 5 * WINDOW + 12].hex()
    assert printed.split() == [end, "gone", end, "gone"]


def test_a_file_truncated_under_its_map_is_an_error_for_pread_and_the_process_lives(tmp_path: Path) -> None:
    path = file(tmp_path)
    printed = in_a_process(
        """
        import os, sys
        from farcore.errors import SourceChangedError
        from farcore_server.mapping import MappedSource
        path = sys.argv[1]
        fd = os.open(path, os.O_RDONLY)
        source = MappedSource(fd, os.fstat(fd).st_size)
        view = source.view(0, source.size)
        assert source.maps and view[-1] == ord("d")
        os.truncate(path, 4096)
        try:
            source.pread(0, source.size)
        except SourceChangedError as error:
            print(error)
        print(bytes(source.pread(4092, 4)).hex())
        """,
        path,
    )
    assert re.search(r"ends at byte 4,096", printed)
    assert printed.endswith(WIDE[4092:4096].hex())


def test_send_of_a_lent_page_that_the_file_lost_fails_and_the_process_lives(tmp_path: Path) -> None:
    printed = in_a_process(
        """
        import errno, os, socket, sys
        from farcore_server.mapping import MappedSource
        path = sys.argv[1]
        fd = os.open(path, os.O_RDONLY)
        source = MappedSource(fd, os.fstat(fd).st_size)
        lent = source.lend(8192, 4096)
        os.truncate(path, 4096)
        here, there = socket.socketpair()
        try:
            here.send(lent)
        except OSError as error:
            print(errno.errorcode[error.errno])
        """,
        file(tmp_path),
    )
    assert printed == "EFAULT"


def test_what_is_copied_from_proc_vmcore_comes_from_small_windows_of_its_map(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    with path.open("wb") as sparse:
        sparse.truncate(1 << 30)
        os.pwrite(sparse.fileno(), WIDE[:100_000], (600 << 20) - 50_000)
    source = opened(path, windowed=True)
    before = mapped(path)
    assert source.pread((600 << 20) - 50_000, 15_000) == WIDE[:15_000]
    assert mapped(path) == before
    assert source.pread((600 << 20) - 50_000, 100_000) == WIDE[:100_000]
    assert source.pread(600 << 20, 50_000) == WIDE[50_000:100_000]
    assert mapped(path) == before + (4 << 20)


def test_without_address_space_left_views_are_copies(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    with path.open("wb") as sparse:
        os.pwrite(sparse.fileno(), b"here it is", 600 << 20)
    printed = in_a_process(
        """
        import os, resource, sys
        from farcore_server.mapping import MappedSource
        fd = os.open(sys.argv[1], os.O_RDONLY)
        source = MappedSource(fd, os.fstat(fd).st_size, windowed=True)
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (16 << 20),) * 2)
        print(source.maps, bytes(source.view(600 << 20, 10)), bytes(source.lend(600 << 20, 10)))
        """,
        path,
    )
    assert printed == "True b'here it is' b'here it is'"


def test_a_closed_source_gives_no_zeros() -> None:
    # To mmap(2) a descriptor of -1 is memory without a file.
    source = opened(Path(__file__), limit=PAGE)
    assert source.size > 2 * PAGE
    source.close()
    for ask in (source.view, source.lend):
        with pytest.raises(FaultError) as caught:
            ask(PAGE, 16)
        assert caught.value.kind == "unreadable"


@pytest.mark.parametrize("limit", [0, PAGE])
def test_1000_sources_opened_and_dropped_leave_no_descriptor_and_no_map(tmp_path: Path, limit: int) -> None:
    path = file(tmp_path, CONTENT)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(1000):
        source = opened(path, limit=limit)
        source.view(SIZE - 1, 1)
        source.lend(0, 1)
    del source
    assert len(os.listdir("/proc/self/fd")) == before
    assert mapped(path) == 0
