"""The real dumps of tests/data, by name."""

from __future__ import annotations

import shutil
from pathlib import Path

from backports import zstd

PACKED = Path(__file__).parent / "data"
SAMPLES = sorted(path.name.removesuffix(".zst") for path in PACKED.glob("*.elf.zst"))


def unpack(name: str, folder: Path) -> Path:
    """The dump ``name`` (``x.elf``) in ``folder``."""
    path = folder / name
    if not path.exists():
        with zstd.open(PACKED / f"{name}.zst") as packed, path.open("wb") as file:
            shutil.copyfileobj(packed, file)
    return path
