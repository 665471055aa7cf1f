"""State: what is found again, what is not taken for it, and what it may cost."""

from __future__ import annotations

import logging
import os
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from farcore_server.state import LIMITS, State, directory_of

SMALL = {"digests": 1000, "indexes": 1000}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_was_saved_is_found_by_the_next_server_under_its_kind_and_key(tmp_path: Path) -> None:
    before, after = State(tmp_path / "a/b"), State(tmp_path / "a/b")
    for key in ('"tag"', "x" * 10_000, "../../etc/passwd", "ü\n"):
        before.save("digests", key, key.encode() * 3)
        before.save("indexes", key, b"")
        before.save("digests", key, key.encode())
        assert (after.load("digests", key), after.load("indexes", key), after.load("profiles", key)) == (
            key.encode(),
            b"",
            None,
        )
    assert {path.stat().st_mode & 0o777 for path in files(tmp_path)} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_dir()} == {0o700} | {
        (tmp_path / "a").stat().st_mode & 0o777
    }


@pytest.mark.parametrize("at", [0, 31, 32, -1])
def test_an_entry_that_is_damaged_cut_or_anothers_is_none(tmp_path: Path, at: int) -> None:
    state = State(tmp_path)
    state.save("digests", "key", b"content")
    state.save("digests", "other", b"content")
    path, other = sorted(files(tmp_path))
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[at] ^= 1
    for bad in (bytes(flipped), good[:at], b"", good + b"x", other.read_bytes()):
        path.write_bytes(bad)
        assert [state.load("digests", key) for key in ("key", "other")].count(None) == 1
    path.write_bytes(good)
    assert state.load("digests", "key") == state.load("digests", "other") == b"content"


def test_the_least_recently_used_entries_make_room_and_other_kinds_stay(tmp_path: Path) -> None:
    state = State(tmp_path, SMALL)
    state.save("indexes", "other", bytes(900))
    for number in range(3):
        state.save("digests", str(number), bytes(268))
        os.utime(max(files(tmp_path / "digests"), key=lambda path: path.stat().st_mtime_ns), (number, number))
    assert state.load("digests", "0") is not None  # used just now
    state.save("digests", "3", bytes(268))
    assert [key for key in "0123" if state.load("digests", key) is None] == ["1"]
    assert state.load("indexes", "other") == bytes(900)


def test_an_entry_of_exactly_the_limit_is_kept_and_a_larger_one_changes_nothing(tmp_path: Path) -> None:
    state = State(tmp_path, SMALL)
    state.save("digests", "a", bytes(968))
    state.save("digests", "b", bytes(969))
    assert (state.load("digests", "a"), state.load("digests", "b")) == (bytes(968), None)


def test_what_a_process_that_died_left_half_written_is_removed_later(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.save("digests", "a", b"a")
    old, new = tmp_path / "digests/tmp-old", tmp_path / "digests/tmp-new"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    state.save("digests", "b", b"b")
    assert (old.exists(), new.exists()) == (False, True)


def test_a_directory_that_cannot_be_used_is_one_line_in_the_log_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        state = State(tmp_path / "file/state")
        for _ in range(3):
            state.save("digests", "key", b"content")
            assert state.load("digests", "key") is None
    (record,) = caplog.records
    assert record.getMessage().startswith("nothing is remembered between runs: ")
    assert "Not a directory" in record.getMessage()


def test_without_a_directory_nothing_is_remembered() -> None:
    state = State(None)
    state.save("digests", "key", b"content")
    assert state.load("digests", "key") is None


def _busy(folder: Path, number: int) -> bool:
    state = State(folder, {"digests": 40_000})
    for turn in range(200):
        key = str(turn % 20)
        state.save("digests", key, key.encode() * 1000)
        found = state.load("digests", str((turn * 7 + number) % 20))
        if found is not None and len(set(found.decode())) > 2:
            return False
    return True


def test_processes_that_share_a_directory_never_see_half_an_entry_and_keep_to_the_limit(tmp_path: Path) -> None:
    with get_context("fork").Pool(4) as pool:
        assert pool.starmap(_busy, [(tmp_path, number) for number in range(4)]) == [True] * 4
    State(tmp_path, {"digests": 40_000}).save("digests", "last", b"")
    kept = files(tmp_path)
    assert sum(path.stat().st_size for path in kept) <= 40_000
    assert not [path for path in kept if path.name.startswith("tmp-")]


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"STATE_DIRECTORY": "/var/lib/farcore:/b", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/var/lib/farcore"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/farcore"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/farcore"),
        ({"HOME": "/h"}, "/h/.local/state/farcore"),
    ],
)
def test_where_it_lies_is_said_by_the_environment(environ: dict[str, str], path: str) -> None:
    assert directory_of(environ) == Path(path)


def test_every_kind_has_a_limit_that_a_small_machine_can_spare() -> None:
    assert sum(LIMITS.values()) < 2 << 30
