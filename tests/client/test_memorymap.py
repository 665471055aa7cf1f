"""A map as it comes, in any pieces; and what is none."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore_client.errors import ProtocolError
from farcore_client.memorymap import KINDS, MapReader, MapRun, Summary

RUNS = [MapRun(n * 4096, (n + 1) * 4096, KINDS[n % 4]) for n in range(40)]
WHOLE = json.dumps({"runs": [run.json() for run in RUNS]}).encode()


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8), st.sampled_from([b"", b"\n", b" \r\n"]))
def test_a_map_is_the_same_in_whatever_pieces_it_comes(cuts: list[int], breath: bytes) -> None:
    body = WHOLE.replace(b", {", breath + b",\n{") + breath
    edges = [0, *sorted(cuts), len(body)]
    reader = MapReader()
    assert [run for low, high in pairwise(edges) for run in reader.feed(body[low:high])] == RUNS
    assert reader.whole


@pytest.mark.parametrize("indent", [None, 1])
def test_a_map_may_be_written_as_json_may_be(indent: int | None) -> None:
    reader = MapReader()
    assert reader.feed(json.dumps({"runs": [run.json() for run in RUNS]}, indent=indent).encode()) == RUNS


@pytest.mark.parametrize(
    "body",
    [
        b"<html>" * 2000,
        b'{"runs": [{"start": "0x0", "end": "0x0", "kind": "data"}]}',
        b'{"runs": [{"start": "0x1000", "end": "0x2000", "kind": "data"}]}',
        b'{"runs": [{"start": "0x0", "end": "0x1000", "kind": "gone"}]}',
        b'{"runs": [{"start": 0, "end": null, "kind": "data"}]}',
        b'{"runs": [nonsense}]}',
        b'{"runs": [' + b"x" * 5000,
        b'{"runs": [[[[[[[}',
    ],
)
def test_what_is_no_map_is_a_sentence(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="not the map"):
        MapReader().feed(body)


def test_a_cut_map_is_not_whole() -> None:
    reader = MapReader()
    reader.feed(WHOLE[:-2])
    assert not reader.whole


def test_a_summary_keeps_the_first_runs_and_counts_all() -> None:
    summary = Summary(3)
    for run in RUNS:
        summary.add(run)
    assert (summary.first, summary.count, summary.bytes["zero"]) == (RUNS[:3], 40, 10 * 4096)
