"""What is opened and what is not: real files of every kind, and what the interpreter says it asked the kernel for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from farcore.errors import BadDumpError
from farcore_server.opening import open_place
from farcore_server.search import Place
from tests.unprivileged import as_nobody, public_folder


def place(path: Path, root: Path | None = None) -> Place:
    return Place(str(path), path.name, None if root is None else os.path.realpath(root))


def reason(found: Place) -> str:
    with pytest.raises(BadDumpError) as caught:
        open_place(found)
    assert caught.value.term == "file"
    return caught.value.detail


def content(found: Place) -> bytes:
    fd, status = open_place(found)
    try:
        assert status == os.fstat(fd)
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


def test_a_regular_file_is_opened_for_reading_alone(tmp_path: Path) -> None:
    (tmp_path / "vmcore").write_bytes(b"dump")
    assert content(place(tmp_path / "vmcore", tmp_path)) == b"dump"
    fd, _ = open_place(place(tmp_path / "vmcore"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(fd, b"x")
    os.close(fd)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


KINDS: dict[str, Callable[[Path], object]] = {
    "a directory": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a socket": make_socket,
    "a character device": lambda path: path.symlink_to("/dev/null"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(5)
def test_what_is_no_regular_file_is_refused_by_what_it_is(tmp_path: Path, kind: str) -> None:
    KINDS[kind](tmp_path / "vmcore")
    assert reason(place(tmp_path / "vmcore")) == f"{kind}, not a regular file; a dump is served from a file"


@pytest.mark.parametrize(
    ("make", "detail"),
    [
        (Path.touch, "the file is empty: the dump was never written, or its disk was full"),
        (lambda path: path.symlink_to("nothing"), "a link to nothing"),
        (lambda path: path.symlink_to(path.name), "it cannot be opened: Too many levels of symbolic links"),
        (lambda path: None, "no such file"),
        (lambda path: path.symlink_to("x" * 300), "it cannot be opened: File name too long"),
    ],
)
def test_what_cannot_be_a_dump_is_refused_in_a_sentence(tmp_path: Path, make: Callable[[Path], object], detail: str) -> None:
    make(tmp_path / "vmcore")
    assert reason(place(tmp_path / "vmcore", tmp_path)) == detail


def test_a_link_may_lead_anywhere_below_the_root_and_nowhere_else(tmp_path: Path) -> None:
    served, beside = tmp_path / "served", tmp_path / "served-too"
    for folder in (served / "deep", beside):
        folder.mkdir(parents=True)
        (folder / "dump").write_bytes(folder.name.encode())
    (served / "in").symlink_to("deep/../deep/dump")
    (served / "absolute").symlink_to(served / "deep" / "dump")
    (served / "out").symlink_to("../served-too/dump")
    (served / "chain").symlink_to("out")
    for name in ("in", "absolute"):
        assert content(place(served / name, served)) == b"deep"
    for name in ("out", "chain"):
        assert "leads out of the served directory" in reason(place(served / name, served))
        assert content(place(served / name)) == b"served-too"


def test_a_root_of_slash_has_everything_below_it(tmp_path: Path) -> None:
    (tmp_path / "vmcore").write_bytes(b"dump")
    assert content(place(tmp_path / "vmcore", Path("/"))) == b"dump"


def test_a_path_that_is_swapped_for_a_device_while_it_is_looked_at_never_opens_the_device(tmp_path: Path) -> None:
    # The audit hook runs right before each open(2): the swap comes at the worst moment, every time.
    program = """
import os, sys
from farcore.errors import BadDumpError
from farcore_server.opening import open_place
from farcore_server.search import Place
path, armed, plain = sys.argv[1], True, []
def swap(event, arguments):
    global armed
    if event != "open" or not armed:
        return
    armed = False
    os.unlink(path)
    os.symlink("/dev/full", path)
    plain.append(not arguments[2] & os.O_PATH)
sys.addaudithook(swap)
try:
    open_place(Place(path, "vmcore", None))
except BadDumpError as error:
    print(plain, error.detail)
"""
    (tmp_path / "vmcore").write_bytes(b"dump")
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "vmcore"], capture_output=True, text=True, check=True)
    assert done.stdout == "[False] a character device, not a regular file; a dump is served from a file\n"


def test_no_descriptor_is_left_open_by_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "out").symlink_to("/etc/passwd")
    before = os.listdir("/proc/self/fd")
    for name in ("empty", "out", "gone"):
        reason(place(tmp_path / name, tmp_path))
    assert os.listdir("/proc/self/fd") == before


def test_an_unreadable_file_and_directory_are_refused_with_what_to_do() -> None:
    imports = """
from farcore.errors import BadDumpError
from farcore_server.opening import open_place
from farcore_server.search import search
"""
    program = """
for path in sys.argv[1:]:
    for place in search(path):
        try:
            open_place(place)
        except BadDumpError as error:
            print(error.detail)
"""
    with public_folder() as folder:
        (folder / "vmcore").write_bytes(b"dump")
        (folder / "vmcore").chmod(0)
        (folder / "private").mkdir(mode=0)
        done = as_nobody(imports, program, folder / "vmcore", folder / "private")
        (folder / "private").chmod(0o700)
    assert done.stdout.splitlines() == [
        "no permission to read it; run farcored as a user who may, or give it CAP_DAC_READ_SEARCH",
        "no permission to search this directory; run farcored as a user who may",
    ], done.stderr
