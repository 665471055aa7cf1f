"""Table: figures that are printed as they come, and as Markdown in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.load import Sample
from benchmarks.rounds import Ratio, middle


@dataclass(slots=True)
class Table:
    """Columns by name, the first one a row's own name; ``ratios`` has what a plot shows."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ratios: dict[str, Ratio] = field(default_factory=dict)

    def __post_init__(self) -> None:
        print(f"\n{self.title}\n" + self._line(self.columns), flush=True)

    def add(self, *cells: str) -> None:
        """A row, printed at once."""
        self.rows.append(cells)
        print(self._line(cells), flush=True)

    def note(self, text: str) -> None:
        """A sentence below the rows."""
        self.notes.append(text)
        print(text, flush=True)

    def markdown(self) -> str:
        """The table under a heading."""
        lines = [self.columns, ("---", *("--:" for _ in self.columns[1:])), *self.rows]
        text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return "\n\n".join([f"### {self.title}", text, *self.notes])

    def _line(self, cells: Sequence[str]) -> str:
        # The widest figure is a ratio with its range.
        widths = [24, *(max(len(name), 12) for name in self.columns[1:])]
        first, *rest = (f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(cells))
        return "  ".join([first, *rest])


def rate(samples: Sequence[Sample], block: int) -> str:
    """Requests a second for small ranges, bytes a second for large ones; the median."""
    if 0 < block <= 64 << 10:
        return f"{middle(samples, lambda sample: sample.requests) / 1e3:.1f} k/s"
    return f"{middle(samples, lambda sample: sample.bytes) / 1e9:.2f} GB/s"


def latency(samples: Sequence[Sample]) -> str:
    """p50/p99 in µs, the medians; nothing where no answer ended in the time of a sample."""
    if any(not sample.requests for sample in samples):
        return ""
    return f"{middle(samples, lambda sample: sample.p50):.0f}/{middle(samples, lambda sample: sample.p99):.0f}"


def others(samples: Sequence[Sample]) -> str:
    """How quiet the machine was, in a sentence."""
    shares = [sample.others for sample in samples]
    return f"Other processes meanwhile took {median(shares):.0%} of the machine in the median, {max(shares):.0%} at most."
