"""Holes: whatever a file's blocks are, the layout says the same bytes."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farcore.file import FileSource
from farcore.layout import stored
from farcore.runs import Kind
from farcore.space import Space
from farcore_server import holes

BLOCK = 64 << 10


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.lists(st.booleans(), min_size=1, max_size=20),
    st.integers(0, 20 * BLOCK),
    st.integers(0, 21 * BLOCK),
    st.integers(1, BLOCK),
)
def test_a_sparse_file_is_the_same_bytes_with_its_holes_known(
    tmp_path: Path, blocks: list[bool], low: int, high: int, last: int
) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for number, written in enumerate(blocks):
            if written:
                file.seek(number * BLOCK)
                file.write(b"x" * BLOCK)
        file.truncate((len(blocks) - 1) * BLOCK + last)
    size = path.stat().st_size
    fd = os.open(path, os.O_RDONLY)
    source = FileSource(fd, size)
    layout = holes.shown(stored(size), fd, low, max(low, high))
    assert bytes(Space(source, layout).pread(0, size)) == path.read_bytes()
    zeros = sum(run.stop - run.start for run in layout.runs.walk(0, size) if run.kind is Kind.ZERO)
    assert zeros <= sum(not written for written in blocks) * BLOCK


def test_a_hole_is_no_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.write_bytes(b"start")
    os.truncate(path, 1 << 40)
    with path.open("rb") as file:
        layout = holes.shown(stored(1 << 40), file.fileno(), 0, 1 << 40)
    data = [run for run in layout.runs.walk(0, 1 << 40) if run.kind is Kind.DATA]
    assert sum(run.stop - run.start for run in data) <= 1 << 20


def test_where_nobody_tells_everything_is_data() -> None:
    layout = stored(100)
    reader, writer = os.pipe()
    try:
        assert holes.shown(layout, reader, 0, 100) is layout
    finally:
        os.close(reader)
        os.close(writer)
