"""farcore pull: the file is the dump, byte for byte, or there is none; whatever ends a pull, the next goes on from it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from farcore_client.pull.chunks import CHUNK
from tests import elfwriter
from tests.client.conftest import Farcore, Served
from tests.client.test_info import dump_url
from tests.elfwriter import load
from tests.http1 import Connection
from tests.live import Live, Serve

SCRIPT = Path(sys.executable).with_name("farcore")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen([SCRIPT, "pull", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture(scope="module")
def real(serve_all_along: Serve, sample: Callable[[str], Path]) -> tuple[Live, Path]:
    """A server of a real dump of a panicked machine: QEMU's, whose pages begin at odd places."""
    path = sample("x86_64-panic.elf")
    return serve_all_along(path), path


@pytest.fixture(scope="module")
def large(serve_all_along: Serve, tmp_path_factory: pytest.TempPathFactory) -> tuple[Live, Path]:
    """A server of 48 MiB of which a third is zeros, a third repeated, and nothing can be compressed."""
    piece = noise(1 << 20)
    content = b"".join(
        noise(1 << 20, number) if number % 3 == 0 else bytes(1 << 20) if number % 3 == 1 else piece for number in range(48)
    )
    path = elfwriter.Dump([load(content, paddr=0x100000, offset=0x1490)]).write(tmp_path_factory.mktemp("large") / "large.elf")
    return serve_all_along(path), path


@pytest.mark.parametrize("compress", ["auto", "none", "1"])
@pytest.mark.parametrize("kind", ["elf", "stored"])
def test_a_real_dump_comes_byte_for_byte_with_holes_for_zeros(
    farcore: Farcore, real: tuple[Live, Path], tmp_path: Path, kind: str, compress: str
) -> None:
    live, path = real
    final = tmp_path / "vmcore"
    done = farcore("pull", dump_url(farcore, live.url, path.name), "-o", final, "--format", kind, "--compress", compress)
    assert (done.status, done.stderr) == (0, "")
    assert done.text.startswith(f"{final}: ")
    assert "over pages" in done.text
    assert "verified: each frame by its checksum" in done.text
    assert digest(final) == digest(path)
    assert sorted(os.listdir(tmp_path)) == ["vmcore"]
    assert final.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("compress", ["none", "1"])
def test_normalised_it_is_the_layout_that_the_server_has_under_that_name(
    farcore: Farcore, real: tuple[Live, Path], tmp_path: Path, compress: str
) -> None:
    live, path = real
    url = dump_url(farcore, live.url, path.name)
    done = farcore("pull", url, "--normalised", "-o", tmp_path / "vmcore", "--compress", compress)
    assert (done.status, done.stderr) == (0, "")
    with Connection(live.url) as server:
        served = server.get(f"{url.removeprefix(live.url)}/vmcore?normalised").body
    assert (tmp_path / "vmcore").read_bytes() == served
    assert struct.unpack_from("<Q", served, 32) == (64,)  # e_phoff
    assert farcore("pull", url, "--normalised", "--format", "stored").status == 2


def test_zeros_are_holes_of_the_file(farcore: Farcore, large: tuple[Live, Path], tmp_path: Path) -> None:
    live, path = large
    assert farcore("pull", dump_url(farcore, live.url, path.name), "-o", tmp_path / "copy").status == 0
    assert digest(tmp_path / "copy") == digest(path)
    assert (tmp_path / "copy").stat().st_blocks * 512 < path.stat().st_size * 0.75


def test_json_says_what_came_and_nothing_else_is_on_stdout(farcore: Farcore, large: tuple[Live, Path], tmp_path: Path) -> None:
    live, path = large
    url = dump_url(farcore, live.url, path.name)
    done = farcore("pull", url, "-o", tmp_path / "copy", "--json", "--compress", "3")
    events = [json.loads(line) for line in done.text.splitlines()]
    assert [event["event"] for event in events if event["event"] != "progress"] == ["start", "done"]
    size = path.stat().st_size
    assert (events[0]["url"], events[0]["path"], events[0]["size"], events[0]["resumed"]) == (url, "pages", size, 0)
    last = events[-1]
    assert last["data"] + last["zero"] + last["repeated"] + last["nothing"] == last["size"] == size
    assert last["zero"] >= 15 << 20
    assert last["repeated"] >= 14 << 20


def test_the_name_is_the_id_unless_another_is_given(
    farcore: Farcore, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = dump_url(farcore, served.url, "small.elf")
    assert (farcore("pull", url).status, farcore("pull", url, "--format", "stored").status) == (0, 0)
    name = url.rpartition("/")[2]
    assert sorted(os.listdir(tmp_path)) == [f"{name}.stored", f"{name}.vmcore"]


def test_a_file_that_is_there_is_never_replaced(farcore: Farcore, served: Served, tmp_path: Path) -> None:
    url = dump_url(farcore, served.url, "small.elf")
    (tmp_path / "there").write_bytes(b"mine")
    (tmp_path / "other.part").write_bytes(b"mine too")
    done = farcore("pull", url, "-o", tmp_path / "there")
    assert (done.status, "is there already and is never replaced" in done.stderr) == (1, True)
    done = farcore("pull", url, "-o", tmp_path / "other")
    assert (done.status, "no journal beside it says what it is" in done.stderr) == (1, True)
    assert ((tmp_path / "there").read_bytes(), (tmp_path / "other.part").read_bytes()) == (b"mine", b"mine too")
    assert sorted(os.listdir(tmp_path)) == ["other.part", "there"]


def test_a_pull_that_is_killed_again_and_again_ends_with_the_dump_and_never_starts_over(
    farcore: Farcore, large: tuple[Live, Path], tmp_path: Path
) -> None:
    live, path = large
    url = dump_url(farcore, live.url, path.name)
    final = tmp_path / "copy"
    chance = random.Random(7)
    for _ in range(4):
        entered = entries(final)
        pull = started(url, "-o", final, "--limit-rate", "4M", "--compress", "none")
        until_entered(final, entered)
        time.sleep(0.3 * chance.random())
        pull.kill()
        pull.communicate()
        assert not final.exists()
    done = farcore("pull", url, "-o", final, "--json")
    events = [json.loads(line) for line in done.text.splitlines()]
    proved = events[0]["resumed"]
    assert 0 < proved < path.stat().st_size
    last = events[-1]
    assert last["data"] + last["zero"] + last["repeated"] == path.stat().st_size - proved
    assert digest(final) == digest(path)
    assert os.listdir(tmp_path) == ["copy"]


def test_two_pulls_of_one_file_do_not_mix(farcore: Farcore, large: tuple[Live, Path], tmp_path: Path) -> None:
    live, path = large
    url = dump_url(farcore, live.url, path.name)
    first = started(url, "-o", tmp_path / "copy", "--limit-rate", "4M")
    until_entered(tmp_path / "copy")
    second = farcore("pull", url, "-o", tmp_path / "copy")
    assert (second.status, "another farcore pull is writing" in second.stderr) == (1, True)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate()
    assert (first.returncode, said.strip()) == (130, "farcore: interrupted")
    assert farcore("pull", url, "-o", tmp_path / "copy").status == 0
    assert digest(tmp_path / "copy") == digest(path)


def test_a_dump_that_is_replaced_between_two_pulls_is_not_spliced(farcore: Farcore, serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    folder.mkdir()
    path = elfwriter.Dump([load(noise(12 * CHUNK), paddr=0)]).write(folder / "a.elf")
    live = serve(folder, "--rescan", "0.2")
    url = dump_url(farcore, live.url, "a.elf")
    pull = started(url, "-o", tmp_path / "copy", "--limit-rate", "2M")
    until_entered(tmp_path / "copy")
    pull.kill()
    pull.communicate()
    elfwriter.Dump([load(noise(12 * CHUNK, 2), paddr=0)]).write(folder / "b.elf")
    os.rename(folder / "b.elf", path)
    done = farcore("pull", url, "-o", tmp_path / "copy")
    assert (done.status, "two versions are never mixed: remove that file" in done.stderr) == (1, True)
    (tmp_path / "copy.part").unlink()
    assert farcore("pull", url, "-o", tmp_path / "copy").status == 0
    assert digest(tmp_path / "copy") == digest(path)


def until_entered(final: Path, more_than: int = 0) -> None:
    give_up = time.monotonic() + 30
    while entries(final) <= more_than:
        assert time.monotonic() < give_up
        time.sleep(0.02)


def entries(final: Path) -> int:
    """Bytes of the journal of what becomes ``final``, 0 without one."""
    journal = final.with_name(final.name + ".journal")
    return journal.stat().st_size if journal.exists() else 0
