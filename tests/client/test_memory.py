"""What a large dump costs the client's memory, sampled from outside while it comes: bounds, whatever the size."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from farcore_client.remote.dump import CACHE_BYTES
from tests.client.conftest import Farcore
from tests.client.test_info import dump_url
from tests.elfwriter import Dump, load
from tests.live import Serve

SCRIPT = Path(sys.executable).with_name("farcore")
SIZE = 400 << 20
# Bytes of noise that the dump repeats: with a level each comes once, without one all of it comes.
PIECE = 16 << 20
PULL_BOUND = 256 << 20
BESIDE_CACHE = 64 << 20


@pytest.fixture(scope="module")
def url(serve_all_along: Serve, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a dump of 400 MiB without a page of zeros."""
    path = Dump([load(b"", paddr=0, filesz=SIZE, offset=0x1000)]).write(tmp_path_factory.mktemp("memory") / "large.elf")
    with open("/dev/urandom", "rb") as source, open(path, "r+b") as file:
        piece = source.read(PIECE)
        for at in range(0, SIZE, PIECE):
            file.seek(0x1000 + at)
            file.write(piece)
    return serve_all_along(path).url


def peak(process: subprocess.Popen[str]) -> int:
    """Until it ends: the most bytes of memory that no file is behind (anonymous and shared) that it was seen to have."""
    most = 0
    while process.poll() is None:
        with suppress(OSError):
            most = max(most, fileless(process.pid))
        time.sleep(0.005)
    assert process.returncode == 0
    return most


def fileless(pid: int) -> int:
    """What it has now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(kib) << 10 for kib in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", status, re.MULTILINE))


@pytest.mark.parametrize("compress", ["none", "1"])
def test_a_pull_stays_below_256_mib(farcore: Farcore, url: str, tmp_path: Path, compress: str) -> None:
    copy = tmp_path / "copy"
    command: list[str | Path] = [SCRIPT, "pull", dump_url(farcore, url, "large.elf"), "-o", copy, "--compress", compress]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True) as pull:
        most = peak(pull)
    assert copy.stat().st_blocks * 512 >= SIZE
    assert 20 << 20 < most < PULL_BOUND


READER = """
import random, sys
from farcore.source import Extent
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl
from farcore_client.remote import connect
url, cache, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
with connect(DumpUrl.parse(url), Credentials(), cache_bytes=cache) as dump:
    chance = random.Random(2)
    for at in range(0, size, 3 << 20):  # all of it through the cache ...
        dump.physical.pread(at, min(3 << 20, size - at))
    for at in range(0, size // 2, 128 << 10):  # ... in sequence, as cp does, ...
        dump.vmcore.pread(at, 128 << 10)
    for _ in range(1000):  # ... and here and there
        dump.physical.pread(chance.randrange(size - 8), 8)
    dump.prefetch("vmcore", [Extent(0, size)]).result(60)
"""


@pytest.mark.parametrize("cache", [16 << 20, CACHE_BYTES])
def test_a_reader_stays_below_its_cache_and_64_mib(farcore: Farcore, url: str, cache: int) -> None:
    command = [sys.executable, "-c", READER, dump_url(farcore, url, "large.elf"), str(cache), str(SIZE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdout.readline()
        before = fileless(reader.pid)  # the interpreter, and what it has imported
        print("go", file=reader.stdin, flush=True)
        most = peak(reader) - before
    assert cache * 0.9 < most < cache + BESIDE_CACHE
