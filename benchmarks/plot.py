"""Plot: farcore's rate over nginx's, range by range, as an SVG of a few kilobytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, floor, log2
from typing import Final

from benchmarks.rounds import Ratio
from benchmarks.table import Table

_WIDTH: Final = 800
_LEFT: Final = 110  # where the axis begins; names stand before it
_RIGHT: Final = _WIDTH - 20
_STEP: Final = 9  # pixels from one dot to the one below
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by every eye (Okabe, Ito)


def draw(tables: Sequence[Table]) -> str:
    """Each ratio of the tables as a dot at its median on a line from the least to the greatest, on a logarithmic axis."""
    series = [table for table in tables if table.ratios]
    names = list(dict.fromkeys(name for table in series for name in table.ratios))
    row, top = _STEP * (len(series) + 1), 20 + 16 * len(series)
    bottom = top + row * len(names)
    every = [ratio for table in series for ratio in table.ratios.values()]
    axis = _Axis(floor(log2(min(ratio.low for ratio in every))), ceil(log2(max(ratio.high for ratio in every))))
    size = f'width="{_WIDTH}" height="{bottom + 40}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
        f'<rect {size} fill="white"/>',
        *axis.grid(top, bottom),
    ]
    for number, name in enumerate(names):
        y = top + row * (number + 0.6)
        lines.append(f'<text x="{_LEFT - 10}" y="{y:.0f}" text-anchor="end">{name}</text>')
    for number, (table, colour) in enumerate(zip(series, _COLOURS, strict=False)):
        lines.append(f'<circle cx="{_LEFT}" cy="{16 + 16 * number}" r="3.5" fill="{colour}"/>')
        lines.append(f'<text x="{_LEFT + 10}" y="{20 + 16 * number}">{table.title}</text>')
        for name, ratio in table.ratios.items():
            lines += axis.mark(ratio, top + row * names.index(name) + _STEP * (number + 1), colour)
    return "\n".join([*lines, "</svg>\n"])


class _Axis:
    """Ratios from 2^low to 2^high across the picture."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = min(low, -1), max(high, 1)

    def x(self, ratio: float) -> float:
        return _LEFT + (log2(ratio) - self.low) / (self.high - self.low) * (_RIGHT - _LEFT)

    def grid(self, top: float, bottom: float) -> Iterator[str]:
        for power in range(self.low, self.high + 1):
            x, weight = self.x(2**power), 1.5 if power == 0 else 0.3
            yield f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="black" stroke-width="{weight}"/>'
            yield f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{2**power:g}</text>'
        text = "farcore's rate over nginx's: right of 1, farcore is faster"
        yield f'<text x="{(_LEFT + _RIGHT) / 2}" y="{bottom + 31}" text-anchor="middle">{text}</text>'

    def mark(self, ratio: Ratio, y: float, colour: str) -> Iterator[str]:
        ends = f'x1="{self.x(ratio.low):.1f}" x2="{self.x(ratio.high):.1f}"'
        yield f'<line {ends} y1="{y}" y2="{y}" stroke="{colour}"/>'
        yield f'<circle cx="{self.x(ratio.median):.1f}" cy="{y}" r="3.5" fill="{colour}"/>'
