"""farcore pull when things go wrong: cut, stalled, refused for a while, removed, a full disk: the dump, or a sentence."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from farcore_client.pull import beginning as module
from tests.client.conftest import Farcore
from tests.client.hostile import answer, hostile
from tests.client.pull.test_ranges import CONTENT, ranged
from tests.client.test_info import dump_url
from tests.elfwriter import Dump, load
from tests.live import Live, Serve

SCRIPT = Path(sys.executable).with_name("farcore")
# Bytes after which the nth connection ends; None: never.
Ends = Callable[[int], int | None]


@pytest.fixture(scope="module")
def noisy(serve_all_along: Serve, tmp_path_factory: pytest.TempPathFactory) -> tuple[Live, Path]:
    """A server of 6 MiB that nothing can shrink."""
    content = random.Random(5).randbytes(6 << 20)
    path = Dump([load(content, paddr=0, offset=0x1490)]).write(tmp_path_factory.mktemp("noisy") / "noisy.elf")
    return serve_all_along(path), path


@contextmanager
def between(url: str, ends: Ends = lambda number: None, *, stall: bool = False, instead: Sequence[bytes] = ()) -> Iterator[str]:
    """A TCP proxy before ``url`` that ends each connection, or falls silent on it, after so many bytes of answers.

    The first POSTs are answered with ``instead``.
    """
    to = urlsplit(url)
    count, answers = 0, list(instead)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def forward(source: socket.socket, target: socket.socket, left: int | None) -> None:
            with suppress(OSError):
                while piece := source.recv(1 << 14):
                    if piece.startswith(b"POST") and answers:
                        source.sendall(answers.pop(0))
                        break
                    target.sendall(piece if left is None else piece[:left])
                    if left is not None and (left := left - len(piece)) <= 0:
                        break
                if left is not None and left <= 0 and stall:
                    time.sleep(5)
            for each in (source, target):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

        def accept() -> None:
            nonlocal count
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    server = socket.create_connection((to.hostname, to.port))
                    count += 1
                    for arguments in ((client, server, None), (server, client, ends(count))):
                        threading.Thread(target=forward, args=arguments, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{to.path}"


def test_a_pull_that_is_cut_again_and_again_ends_with_the_dump(
    farcore: Farcore, noisy: tuple[Live, Path], tmp_path: Path
) -> None:
    live, path = noisy
    with between(dump_url(farcore, live.url, path.name), lambda number: 700_000) as url:
        done = farcore("pull", url, "-o", tmp_path / "copy", "--json")
    events = [json.loads(line) for line in done.text.splitlines()]
    assert done.status == 0
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    assert sum(event["event"] == "retry" for event in events) >= 6
    # What had come was not asked for again, but for a frame that was cut.
    assert events[-1]["wire"] < path.stat().st_size + 12 * (300 << 10)


def test_a_connection_that_falls_silent_is_given_up_and_another_is_made(
    farcore: Farcore, noisy: tuple[Live, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module.SILENCE <= 30
    monkeypatch.setattr(module, "SILENCE", 0.5)
    live, path = noisy
    ends: Ends = lambda number: 900_000 if number == 1 else None  # noqa: E731
    with between(dump_url(farcore, live.url, path.name), ends, stall=True) as url:
        done = farcore("pull", url, "-o", tmp_path / "copy", "--json")
    assert done.status == 0
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    assert "silent for 0.5 s" in done.text


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "429 Too Many Requests"])
def test_a_server_that_cannot_answer_now_is_asked_again_when_it_says(farcore: Farcore, tmp_path: Path, status: str) -> None:
    asked: list[float] = []

    def busy(head: str) -> bytes:
        asked.append(time.monotonic())
        return answer(b"later", status, Retry_After="1") if len(asked) == 2 else ranged(head)

    with hostile(busy) as server:
        done = farcore("pull", f"{server.url}/a.elf", "-o", tmp_path / "copy", "--jobs", "1", "--json")
    assert done.status == 0
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert asked[2] - asked[1] >= 1
    retry = next(event for event in map(json.loads, done.text.splitlines()) if event["event"] == "retry")
    assert (retry["seconds"], status[:3] in retry["error"]) == (1.0, True)


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "429 Too Many Requests"])
def test_a_batch_that_is_refused_for_now_is_asked_for_again_when_the_server_says(
    farcore: Farcore, noisy: tuple[Live, Path], tmp_path: Path, status: str
) -> None:
    live, path = noisy
    refusals = [answer(b"later", status, Retry_After="1"), answer(b"later", status)]
    with between(dump_url(farcore, live.url, path.name), instead=refusals) as url:
        done = farcore("pull", url, "-o", tmp_path / "copy", "--jobs", "1", "--json")
    assert done.status == 0
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    events = [json.loads(line) for line in done.text.splitlines()]
    retries = [event for event in events if event["event"] == "retry"]
    assert [(each["seconds"] == 1.0, status[:3] in each["error"]) for each in retries] == [(True, True), (False, True)]
    assert events[-1]["path"] == "pages"


def replaced(path: Path) -> None:
    """Another dump has its name."""
    Dump([load(b"another", paddr=0)]).write(path.with_name("new"))
    os.rename(path.with_name("new"), path)


def overwritten(path: Path) -> None:
    """A byte at its end is another."""
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")


HARMS: dict[str, Callable[[Path], object]] = {
    "removed": os.unlink,
    "truncated": lambda path: os.truncate(path, 1 << 20),
    "replaced": replaced,
    "overwritten": overwritten,
}
# Bytes of a dump of which a pull at 8 MiB a second has most before it, whatever waits in sockets.
LARGE = 48 << 20


@pytest.mark.parametrize("harm", HARMS)
def test_a_dump_that_is_harmed_midway_is_a_sentence_or_what_it_was(
    farcore: Farcore, serve: Serve, tmp_path: Path, harm: str
) -> None:
    folder = tmp_path / "dumps"
    folder.mkdir()
    content = random.Random(9).randbytes(LARGE)
    path = Dump([load(content, paddr=0)]).write(folder / "a.elf")
    url = dump_url(farcore, serve(folder, "--rescan", "0.2").url, "a.elf")
    command = [str(SCRIPT), "pull", url, "-o", str(tmp_path / "copy"), "--limit-rate", "8M", "--compress", "none"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as pull:
        until(lambda: (tmp_path / "copy.journal").exists())
        HARMS[harm](path)
        _, said = pull.communicate()
    if pull.returncode == 0:
        # What has no name any more is still read by who has it open.
        assert harm in ("removed", "replaced")
        assert (tmp_path / "copy").read_bytes().endswith(content)
        return
    assert re.search("replaced or removed|no dump with this id|two versions are never mixed", said), said
    assert not (tmp_path / "copy").exists()


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_a_full_disk_is_a_sentence_and_the_pull_goes_on_when_there_is_room(
    farcore: Farcore, noisy: tuple[Live, Path], tmp_path: Path
) -> None:
    if os.geteuid():
        pytest.skip("mounting a small tmpfs needs root")
    live, path = noisy
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "farcore-test", disk], check=True)
    try:
        url = dump_url(farcore, live.url, path.name)
        done = farcore("pull", url, "-o", disk / "copy", "--jobs", "1")
        assert done.status == 1
        assert "cannot grow (No space left on device): make room, then run the same command" in done.stderr
        assert not (disk / "copy").exists()
        subprocess.run(["mount", "-o", "remount,size=16M", disk], check=True)
        done = farcore("pull", url, "-o", disk / "copy", "--json")
        assert done.status == 0
        assert json.loads(done.text.splitlines()[0])["resumed"] >= 1 << 20
        assert (disk / "copy").read_bytes() == path.read_bytes()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_pull_of_64_gib_of_nothing_is_quick_and_costs_little_memory(serve: Serve, farcore: Farcore, tmp_path: Path) -> None:
    size = 64 << 30
    path = Dump([load(b"first", paddr=0, filesz=size)], size=size).write(tmp_path / "sparse.elf")
    url = dump_url(farcore, serve(path).url, "sparse.elf")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    subprocess.run([SCRIPT, "pull", url, "-o", tmp_path / "copy"], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert after == before or after < 256 << 10
    assert (tmp_path / "copy").stat().st_size == size
    assert (tmp_path / "copy").stat().st_blocks * 512 < 1 << 20
