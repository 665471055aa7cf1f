from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks import plot
from benchmarks.rounds import Ratio
from benchmarks.table import Table

SVG = "{http://www.w3.org/2000/svg}"


def test_a_dot_stands_at_its_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("some", ("row", "ratio"))
    table.ratios = {"slow": Ratio(0.5, 0.25, 1.0), "even": Ratio(1.0, 1.0, 1.0), "fast": Ratio(2.0, 1.0, 4.0)}
    picture = ElementTree.fromstring(plot.draw([table]))
    slow, even, fast = [float(dot.get("cx", "")) for dot in picture.iter(f"{SVG}circle")][1:]  # the first is the legend's
    assert fast - even == pytest.approx(even - slow, abs=0.2)
    assert slow < even < fast
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert {"slow", "even", "fast", "some", "0.25", "4"} <= set(texts)


def test_cells_are_printed_as_they_come_and_written_as_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("Title", ("row", "figure"))
    table.add("4k-c1", "12 k/s")
    table.note("All quiet.")
    assert capsys.readouterr().out.split() == ["Title", "row", "figure", "4k-c1", "12", "k/s", "All", "quiet."]
    assert table.markdown().splitlines() == [
        "### Title",
        "",
        "| row | figure |",
        "| --- | --: |",
        "| 4k-c1 | 12 k/s |",
        "",
        "All quiet.",
    ]
