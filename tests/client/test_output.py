"""Where bytes go: a new file, whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from farcore.errors import FarcoreError
from farcore_client.output import output


def test_a_new_file_has_all_that_was_written_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new"
    old = os.umask(0)
    try:
        with output(str(path)) as write:
            write(b"one ")
            write(b"")
            write(b"two")
    finally:
        os.umask(old)
    assert path.read_bytes() == b"one two"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("there", ["file", "folder", "link", "dangling"])
def test_what_is_there_is_never_replaced(tmp_path: Path, there: str) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FarcoreError, match="is there already and is never replaced"), output(str(tmp_path / there)):
        pytest.fail("the body ran")
    assert (tmp_path / "file").read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_file_is_removed_when_the_body_fails(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "new"
    with pytest.raises(error), output(str(path)) as write:  # noqa: PT012
        write(b"half")
        assert path.exists()
        raise error
    assert not path.exists()


def test_a_folder_that_is_missing_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "none" / "new"
    with pytest.raises(FarcoreError, match=f"{path} cannot be made: No such file or directory"), output(str(path)):
        pytest.fail("the body ran")


def test_a_device_is_written_to_and_stays() -> None:
    with output(os.devnull) as write:
        write(b"gone")
    assert Path(os.devnull).is_char_device()
    with pytest.raises(FarcoreError, match="No space left on device"), output("/dev/full") as write:
        write(b"x")
    assert Path("/dev/full").is_char_device()


def test_a_fifo_is_written_to_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    read: list[bytes] = []
    thread = threading.Thread(target=lambda: read.append(path.read_bytes()))
    thread.start()
    with output(str(path)) as write:
        write(b"x" * 200_000)
    thread.join(10)
    assert read == [b"x" * 200_000]
    assert path.is_fifo()
