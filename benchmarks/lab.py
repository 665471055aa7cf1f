"""Lab: what every measurement of a run shares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.load import Ranger
from benchmarks.programs import Programs
from benchmarks.servers import Certificate


@dataclass(frozen=True, slots=True)
class Lab:
    """The served directory, the programs, how long and how often; ``network`` is the congestion control in force."""

    root: Path
    programs: Programs
    certificate: Certificate
    rows: tuple[str, ...]
    rounds: int
    seconds: float
    network: str = ""

    @property
    def hot(self) -> Path:
        """The dump that is in memory."""
        return self.root / "hot.elf"

    @property
    def cold(self) -> Path:
        """The dump that is not."""
        return self.root / "cold.elf"

    def ranger(self, file: Path) -> Ranger:
        """The load client over one of them."""
        return Ranger(self.programs.ranger, file)

    def wants(self, row: str) -> bool:
        """Whether this row was asked for."""
        return any(fnmatchcase(row, pattern) for pattern in self.rows)

    def under(self, network: str) -> Lab:
        """The same under another congestion control."""
        return replace(self, network=network)
