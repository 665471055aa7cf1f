from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from benchmarks import dump
from farcore.elf import Elf
from farcore.file import FileSource


def test_the_dump_is_sound_and_no_two_of_its_filled_pages_are_alike(tmp_path: Path) -> None:
    path = dump.write(tmp_path / "hot.elf", 48 << 20)
    with path.open("rb") as file:
        elf = Elf.open(FileSource(os.dup(file.fileno()), path.stat().st_size))
    assert len(elf.loads) == 4
    assert int((elf.loads["offset"] + elf.loads["filesz"]).max()) == path.stat().st_size
    pages = np.fromfile(path, "u1").reshape(-1, dump.PAGE)
    filled = [index * dump.PAGE for index, page in enumerate(pages) if index and page.any()]
    assert dump.filled(path).tolist() == filled
    assert len(np.unique(pages[[at // dump.PAGE for at in filled]], axis=0)) == len(filled)
    assert 0.3 < 1 - len(filled) / len(pages) < 0.4
