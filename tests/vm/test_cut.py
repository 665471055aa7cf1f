"""The cut of a dump, on real ones: every byte that is left is where it was, and nothing else is left."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.requires import requires
from tests.vm import coreelf
from tests.vm.coreelf import PAGE, Core
from tests.vm.cut import cut, frames
from tests.vm.touched import Read

BOTH_CLASSES_AND_ORDERS = ["i386-panic.elf", "s390x-idle.elf", "aarch64-panic.elf"]
Sample = Callable[[str], Path]


def pages(core: Core) -> dict[int, bytes]:
    """Every page of the old memory, by frame number; a page that is there in part is that short."""
    found: dict[int, bytes] = {}
    for load in core.loads:
        body = core.read(load.offset, load.filesz)
        for at in range(0, load.filesz, PAGE):
            found[(load.paddr + at) // PAGE] = body[at : at + PAGE]
    return found


@pytest.mark.parametrize("name", BOTH_CLASSES_AND_ORDERS)
def test_a_cut_holds_the_kept_pages_and_no_other(sample: Sample, tmp_path: Path, name: str) -> None:
    whole = pages(coreelf.read(sample(name)))
    keep = set(sorted(whole)[::3])
    cut(sample(name), keep, 0, tmp_path / "part")
    assert pages(coreelf.read(tmp_path / "part")) == {frame: whole[frame] for frame in keep}


@pytest.mark.parametrize("name", BOTH_CLASSES_AND_ORDERS)
def test_a_cut_that_keeps_all_is_the_same_file(sample: Sample, tmp_path: Path, name: str) -> None:
    cut(sample(name), set(pages(coreelf.read(sample(name)))), 0, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == sample(name).read_bytes()


def test_a_narrow_hole_is_filled_and_a_wider_one_is_not(sample: Sample, tmp_path: Path) -> None:
    source = sample("s390x-idle.elf")
    first = max(coreelf.read(source).loads, key=lambda load: load.filesz).paddr // PAGE
    narrow = cut(source, {first, first + 3}, 2, tmp_path / "narrow")
    wider = cut(source, {first, first + 4}, 2, tmp_path / "wider")
    assert [load.filesz for load in narrow] == [4 * PAGE]
    assert [load.filesz for load in wider] == [PAGE, PAGE]


def test_reads_name_the_page_frames_they_lie_in(sample: Sample) -> None:
    core = coreelf.read(sample("s390x-idle.elf"))
    load = core.loads[1]
    reads: list[Read] = [(0, 64), (load.offset + PAGE - 1, 2)]
    assert frames(core, reads) == {load.paddr // PAGE, load.paddr // PAGE + 1}


@requires("readelf")
@pytest.mark.parametrize("name", BOTH_CLASSES_AND_ORDERS)
def test_readelf_finds_nothing_odd_in_a_cut(sample: Sample, tmp_path: Path, name: str) -> None:
    cut(sample(name), set(sorted(pages(coreelf.read(sample(name))))[::2]), 0, tmp_path / "part")
    shown = subprocess.run(["readelf", "-hlnW", tmp_path / "part"], capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
