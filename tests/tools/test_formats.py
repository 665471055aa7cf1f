"""What makedumpfile makes of real dumps, through a live server: its pages, and its ELF as real tools read it.

Compared with what the same tools say of the stored files, and with the ELF that those were made from.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from farcore.elf import Elf
from farcore.errors import FaultError
from farcore.file import FileSource
from farcore.flattened import Flattened
from farcore.kdump import Kdump
from farcore.runs import Kind
from farcore.space import PhysicalSpace
from tests.http1 import Connection
from tests.live import Live, Serve
from tests.requires import requires
from tests.served import Said, listed

PAGE = 4096
# What makedumpfile is told; FILE stands for where it writes.
MADE = {
    "zlib-d31": ["-c", "-d", "31", "FILE"],
    "zlib-d1": ["-c", "-d", "1", "FILE"],
    "lzo-d31": ["-l", "-d", "31", "FILE"],
    "lzo-d0": ["-l", "-d", "0", "FILE"],
    "raw-d31": ["-d", "31", "FILE"],
    "flat": ["-F", "-l", "-d", "31"],
    "flat-elf": ["-F", "-E", "-d", "31"],
    "set": ["--split", "-c", "-d", "0", "FILE", "FILE2", "FILE3"],
}
FORMS = [name for name in MADE if name != "flat-elf"]

pytestmark = requires("makedumpfile")


class Stored(NamedTuple):
    """A live server over the folder, the ELF that all in it was made from, and where each file lies."""

    live: Live
    folder: Path
    elf: Path

    def path(self, name: str) -> Path:
        """The file, of a set its first part."""
        return self.folder / f"{name}.kdump"

    def dump(self, name: str) -> Said:
        """The Dump."""
        with Connection(self.live.url) as server:
            return listed(server)[f"{name}.kdump"]


def make(elf: Path, path: Path, arguments: list[str]) -> None:
    """Run makedumpfile; flattened, it writes to stdout."""
    names = {"FILE": str(path), "FILE2": str(path.with_suffix(".2")), "FILE3": str(path.with_suffix(".3"))}
    told = [names.get(word, word) for word in arguments]
    at = next((i for i, word in enumerate(told) if word.startswith("/")), len(told))
    command = ["makedumpfile", *told[:at], str(elf), *told[at:]]
    if "-F" in arguments:
        with path.open("wb") as file:
            subprocess.run(command, stdout=file, stderr=subprocess.DEVNULL, check=True)
    else:
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


@pytest.fixture(scope="module")
def stored(sample: Callable[[str], Path], serve_all_along: Serve, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    folder = tmp_path_factory.mktemp("made")
    elf = sample("x86_64-panic.elf")
    for name, arguments in MADE.items():
        make(elf, folder / f"{name}.kdump", arguments)
    return Stored(serve_all_along(folder, "--host-arch", "x86_64", "--rescan", "3600"), folder, elf)


@pytest.fixture(scope="module")
def vmcores(stored: Stored, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """The streamed /vmcore of each, as a file."""
    folder = tmp_path_factory.mktemp("streamed")

    def fetch(name: str) -> Path:
        path = folder / f"{name}.elf"
        if not path.exists():
            with Connection(stored.live.url, timeout=60) as server:
                path.write_bytes(server.get(stored.dump(name)["links"]["vmcore"]).body)
        return path

    yield fetch
    for path in folder.iterdir():
        path.unlink()


def opened(path: Path) -> FileSource:
    """The file."""
    return FileSource(os.open(path, os.O_RDONLY), path.stat().st_size)


def memory(path: Path) -> PhysicalSpace:
    """Physical memory of an ELF core."""
    source = opened(path)
    return PhysicalSpace(source, Elf.open(source))


@pytest.mark.parametrize("name", FORMS)
def test_the_streamed_vmcore_has_the_pages_of_the_elf_that_it_was_made_from(
    stored: Stored, vmcores: Callable[[str], Path], name: str
) -> None:
    original, streamed = memory(stored.elf), memory(vmcores(name))
    pages = lost = 0  # of whole pages: makedumpfile leaves out others
    for run in original.layout.runs.walk(0, original.size):
        for start in range(run.start & -PAGE, run.stop, PAGE) if run.kind is Kind.DATA else ():
            page = bytes(original.pread(start, min(PAGE, run.stop - start))) if start >= run.start else None
            try:
                found = streamed.pread(start, PAGE)
            except FaultError:
                lost += page is not None and len(page) == PAGE
                continue
            pages += 1
            assert page is None or found[: len(page)] == page
    assert pages > 5000
    assert (lost > 0) == ("d31" in name or name == "flat")


DRGN = """
import json, sys
from drgn import FaultError, Program
program = Program()
program.set_core_dump(sys.argv[1])
found = {}
for address in json.load(sys.stdin):
    try:
        found[address] = hash(bytes(program.read(address, 4096, True)))
    except FaultError:
        found[address] = None
print(json.dumps(found))
"""


def drgn_pages(path: Path, addresses: list[int]) -> dict[str, int | None]:
    """A digest of each page as drgn reads it."""
    done = subprocess.run(
        [sys.executable, "-c", DRGN, path],
        input=json.dumps(addresses),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},
    )
    found: dict[str, int | None] = json.loads(done.stdout)
    return found


@requires("drgn")
@pytest.mark.parametrize("name", ["zlib-d31", "lzo-d31", "raw-d31"])
def test_drgn_reads_the_stored_file_and_the_streamed_vmcore_alike_faults_included(
    stored: Stored, vmcores: Callable[[str], Path], name: str
) -> None:
    size = Kdump.open([opened(stored.path(name))]).pages.size
    addresses = list(range(0, size + 4 * PAGE, 3 * PAGE))
    before, after = drgn_pages(stored.path(name), addresses), drgn_pages(vmcores(name), addresses)
    assert before == after
    assert len(set(before.values())) > 1000


@requires("readelf")
@pytest.mark.parametrize("name", [*FORMS, "flat-elf"])
def test_readelf_has_no_complaint_about_a_streamed_vmcore(vmcores: Callable[[str], Path], name: str) -> None:
    for option in ("-h", "-l", "-n"):
        done = subprocess.run(["readelf", "-W", option, vmcores(name)], capture_output=True, text=True, check=True)
        assert done.stderr == ""
    assert "VMCOREINFO" in done.stdout


def test_a_flattened_elf_is_what_makedumpfile_restores(stored: Stored, vmcores: Callable[[str], Path], tmp_path: Path) -> None:
    restored = tmp_path / "vmcore"
    with stored.path("flat-elf").open("rb") as stream:
        subprocess.run(
            ["makedumpfile", "-R", restored], stdin=stream, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
        )
    assert vmcores("flat-elf").read_bytes() == restored.read_bytes()
    with stored.path("flat").open("rb") as stream:
        subprocess.run(
            ["makedumpfile", "-R", tmp_path / "kdump"],
            stdin=stream,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
    below = opened(stored.path("flat"))
    inside = Flattened.index(below).over(below)
    assert inside.pread(0, inside.size) == (tmp_path / "kdump").read_bytes()


@pytest.mark.parametrize("name", [*FORMS, "flat-elf"])
def test_makedumpfile_prints_the_same_log_and_filters_a_streamed_vmcore(
    stored: Stored, vmcores: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    def log(path: Path) -> str:
        out = tmp_path / f"{path.name}.log"
        subprocess.run(
            ["makedumpfile", "--dump-dmesg", path, out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
        )
        return out.read_text(errors="replace")

    assert log(vmcores(name)) == log(stored.elf)
    if name == "flat-elf":  # its pages of zeros were left out
        return
    again = tmp_path / "again"
    subprocess.run(
        ["makedumpfile", "-l", "-d", "31", vmcores(name), again],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    first, second = (Kdump.open([opened(path)]).memory() for path in (stored.path("lzo-d31"), again))
    runs = [run for run in first.layout.runs.walk(0, first.size) if run.kind is Kind.DATA]
    assert all(second.pread(run.start, run.stop - run.start) == first.pread(run.start, run.stop - run.start) for run in runs)
