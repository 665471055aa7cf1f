"""Headers: what opening costs by the number of PT_LOADs (benchmarks/opening.py), as a table of this run."""

from __future__ import annotations

from typing import Final

from benchmarks import opening
from benchmarks.lab import Lab
from benchmarks.table import Table

ROWS: Final = ("open",)
_COLUMNS: Final = ("dump", "open ms", "physical ms", "image ms", "JSON ms", "RSS MiB", "peak MiB", "readelf ms")


def measure(lab: Lab) -> Table | None:
    """Milliseconds and memory of a process that opens sparse dumps; readelf -lW prints the same program headers."""
    if not lab.wants("open"):
        return None
    table = Table("Opening, without a network", _COLUMNS)
    small = opening.write(opening.CASES[0], lab.root.parent / "small")
    for case in opening.CASES:
        path = opening.write(case, lab.root.parent / "vmcore")
        *times, rss, peak = opening.measured(path, small)
        peer = opening.readelf(path)
        path.unlink()
        table.add(
            case.name,
            *(f"{seconds * 1e3:.1f}" for seconds in times),
            f"{rss:.1f}",
            f"{peak:.1f}",
            "" if peer is None else f"{peer * 1e3:.1f}",
        )
    return table
