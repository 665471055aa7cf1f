from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import BenchmarkError
from benchmarks.load import Load, Ranger
from benchmarks.programs import Programs
from benchmarks.servers import Server, responder

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
SIZE = 3 << 20


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs.build(tmp_path_factory.mktemp("programs"))


@contextmanager
def _served(programs: Programs, folder: Path) -> Iterator[tuple[Server, Path]]:
    file = folder / "dumps" / "file"
    file.parent.mkdir()
    file.write_bytes(bytes(range(251)) * (SIZE // 251) + bytes(SIZE % 251))
    with responder(programs.responder, file) as server:
        yield server, file


@pytest.mark.parametrize("block", [4096, 1 << 20])
def test_bytes_of_the_file_are_taken(programs: Programs, tmp_path: Path, block: int) -> None:
    with _served(programs, tmp_path) as (server, file):
        Ranger(programs.ranger, file).verify(server, Load(block, 3))


def test_one_wrong_byte_is_seen(programs: Programs, tmp_path: Path) -> None:
    with _served(programs, tmp_path) as (server, file):
        other = tmp_path / "file"
        content = bytearray(file.read_bytes())
        content[SIZE // 2] ^= 1  # in half of all ranges of 1 MiB
        other.write_bytes(content)
        with pytest.raises(BenchmarkError, match="wrong bytes"):
            Ranger(programs.ranger, other).verify(server, Load(1 << 20, 3))


def test_a_sample_counts_what_came_and_what_it_cost(programs: Programs, tmp_path: Path) -> None:
    with _served(programs, tmp_path) as (server, file):
        sample = Ranger(programs.ranger, file).measure(server, Load(4096, 2), 0.3)
    assert sample.requests > 100
    assert sample.bytes == pytest.approx(4096 * sample.requests, rel=0.05)
    assert 0 < sample.p50 <= sample.p99
    assert sample.cpu_per_gib == pytest.approx(sample.cpu_per_request * (1 << 30) / 4096, rel=0.01)


def test_a_server_that_refuses_is_an_error_and_no_figure(programs: Programs, tmp_path: Path) -> None:
    with _served(programs, tmp_path) as (server, file):
        whole = Load(0, 1)  # the responder has 206 for everything
        with pytest.raises(BenchmarkError, match="unexpected answer"):
            Ranger(programs.ranger, file).measure(server, whole, 0.1)
