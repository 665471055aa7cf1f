"""What tests/data/README.md says of the dumps beside it is true."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.samples import PACKED, SAMPLES
from tests.vm import coreelf

ROW = re.compile(r"^\| ([\w-]+\.elf) \| ([\d,]+) \| (\d+) \| ([0-9a-f]{64}) \|$", re.MULTILINE)
ROWS = ROW.findall((PACKED / "README.md").read_text())
LIMIT = 4 << 20  # everybody clones it


def test_every_dump_has_a_row() -> None:
    assert sorted(name for name, *_ in ROWS) == SAMPLES


def test_all_dumps_together_are_small() -> None:
    assert sum(path.stat().st_size for path in PACKED.iterdir()) <= LIMIT


@pytest.mark.parametrize(("name", "size", "loads", "digest"), ROWS)
def test_the_row_is_true(sample: Callable[[str], Path], name: str, size: str, loads: str, digest: str) -> None:
    path = sample(name)
    assert path.stat().st_size == int(size.replace(",", ""))
    assert len(coreelf.read(path).loads) == int(loads)
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest


@pytest.mark.parametrize("name", [name for name, *_ in ROWS if not name.startswith("bare-")])
def test_a_cut_has_the_layout_of_proc_vmcore(sample: Callable[[str], Path], name: str) -> None:
    core = coreelf.read(sample(name))
    head = core.read(0, core.layout.ehsize)
    _, _, _, _, phoff, _, _, ehsize, phentsize, *_ = core.layout.header().unpack(head[16:])
    assert (phoff, ehsize, phentsize) == (core.layout.ehsize, core.layout.ehsize, core.layout.phentsize)
    assert [s.kind for s in core.segments] == [coreelf.PT_NOTE] + [coreelf.PT_LOAD] * len(core.loads)
    assert all(s.offset % coreelf.PAGE == 0 for s in core.segments)
