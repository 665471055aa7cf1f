"""Lines for a person: in colour on a terminal, plain text elsewhere; none of them is ever clipped."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from farcore_client.output import say

Row = Sequence[Text]

# Cells. A longer one moves the rest of its own line, and no other line: one odd name is not to spoil a list.
WIDEST: Final = 128


def show(lines: Iterable[Text]) -> None:
    """Print the lines to stdout; a terminal breaks a long one where it likes, so that a URL is copied whole."""
    console = Console(file=sys.stdout, soft_wrap=True)
    with console.capture() as capture:
        for line in lines:
            console.print(line)
    say(capture.get().removesuffix("\n"))


def aligned(rows: Sequence[Row], right: frozenset[int] = frozenset(), gap: str = "  ") -> list[Text]:
    """One line a row, columns in line on any terminal (wide characters count twice); columns in ``right`` end together."""
    widths = [min(WIDEST, max(cell_len(cell.plain) for cell in column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        line = Text()
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - cell_len(cell.plain))
            line.append_text(Text(gap if number else ""))
            line.append_text(Text(space) + cell if number in right else cell + Text(space))
        line.rstrip()
        lines.append(line)
    return lines
