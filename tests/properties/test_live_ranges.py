"""Any Range field, on a live server, over a socket: the answer is a slice of the file, or of memory painted byte by byte."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.elfwriter import Dump as File
from tests.elfwriter import load
from tests.http1 import Answer, Connection
from tests.live import Serve
from tests.multipart import parts_of
from tests.painted import Painted, dumps
from tests.served import only

# Past the sizes at which bodies are copied, sent in pieces and sent in parts.
SIZE = (2 << 20) + 12345
EDGES = (0, 4096, 32 << 10, 64 << 10, 1 << 20, SIZE)
ASKED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Served:
    """A dump at a path, and a connection to the server that has it."""

    path: Path
    server: Connection
    link: str

    def ask(self, resource: str, field: str) -> Answer:
        return self.server.get(f"{self.link}/{resource}", Range=field)


def serving(path: Path, serve: Serve) -> Iterator[Served]:
    live = serve(path, "--allow-arch", "any")
    with Connection(live.url) as server:
        yield Served(path, server, only(server)["links"]["self"])


@pytest.fixture(scope="module")
def content() -> bytes:
    head = File([load(paddr=0, offset=4096, filesz=SIZE - 4096)]).tobytes()
    return head + random.Random(7).randbytes(SIZE - len(head))


@pytest.fixture(scope="module")
def file(content: bytes, tmp_path_factory: pytest.TempPathFactory, serve_all_along: Serve) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("file") / "vmcore"
    path.write_bytes(content)
    yield from serving(path, serve_all_along)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory, serve_all_along: Serve) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("memory") / "vmcore"
    File([load(b"first", paddr=0)]).write(path)
    yield from serving(path, serve_all_along)


Spec = tuple[int | None, int | None]
positions = st.one_of(
    st.integers(0, SIZE + 10),
    st.builds(lambda edge, by: max(0, edge + by), st.sampled_from(EDGES), st.integers(-100, 100)),
    st.just(10**30),
)
lengths = st.one_of(st.integers(1, 300), st.integers(1, 200_000), st.just(SIZE))
between: st.SearchStrategy[Spec] = st.builds(lambda first, length: (first, first + length - 1), positions, lengths)
specs = st.one_of(
    between,
    between,
    st.builds(lambda first: (first, None), positions),
    st.builds(lambda length: (None, length), st.one_of(st.integers(0, 300), positions)),
)


@st.composite
def fields(draw: st.DrawFn, asked: Sequence[Spec]) -> str:
    """A Range field for these specs as RFC 9110 lets one write it: either case, blanks, empty elements, leading zeros."""
    zeros, blank = st.sampled_from(["", "", "0", "000"]), st.sampled_from(["", " ", "\t"])
    texts = []
    for first, last in asked:
        numbers = ["" if each is None else draw(zeros) + str(each) for each in (first, last)]
        texts.append(draw(blank) + "-".join(numbers) + draw(blank))
        if draw(st.booleans()) and draw(st.booleans()):
            texts.append(draw(blank))
    return draw(st.sampled_from(["bytes=", "Bytes="])) + ",".join(texts)


def wanted(asked: Sequence[Spec], size: int) -> list[slice]:
    """The specs that name bytes of ``size``, as slices."""
    found = []
    for first, last in asked:
        if first is None:
            assert last is not None
            part = slice(max(0, size - last), size)
        else:
            part = slice(first, size if last is None else min(last + 1, size))
        if part.start < part.stop:
            found.append(part)
    return found


def sent(answer: Answer, size: int) -> list[tuple[slice, bytes]]:
    """What a 206 says that it has, and has."""
    told = answer.get("Content-Range")
    parts = [(told, answer.body)] if told is not None else parts_of(answer)
    found = []
    for text, body in parts:
        places, _, complete = text.removeprefix("bytes ").partition("/")
        first, last = map(int, places.split("-"))
        assert int(complete) == size
        assert len(body) == last + 1 - first
        found.append((slice(first, last + 1), body))
    return found


def covers(parts: Sequence[slice], one: slice) -> bool:
    return any(part.start <= one.start and one.stop <= part.stop for part in parts)


def demand_slices(file: Served, content: bytes, data: st.DataObject, resource: str) -> None:
    """Any ranges at all of the file, and the answer that RFC 9110 has for them."""
    asked = data.draw(st.lists(specs, min_size=1, max_size=6))
    answer = file.ask(resource, data.draw(fields(asked)))
    parts = wanted(asked, SIZE)
    if not parts:
        assert (answer.status, answer.get("Content-Range")) == (416, f"bytes */{SIZE}")
        return
    assert answer.status == 206
    received = sent(answer, SIZE)
    for place, body in received:
        assert body == content[place]
    places = [place for place, _ in received]
    assert all(covers(places, part) for part in parts)
    ordered = sorted(places, key=lambda place: place.start)
    assert all(one.stop < other.start for one, other in pairwise(ordered))
    # No more than was asked for, but for gaps that are cheaper sent than left out.
    union = sum(place.stop - place.start for place in places)
    assert union <= sum(part.stop - part.start for part in parts) + 80 * len(parts)
    if len(places) == 1:
        assert answer.get("Content-Type") == "application/octet-stream"


@settings(ASKED, max_examples=300)
@given(data=st.data(), resource=st.sampled_from(["vmcore", "stored"]))
def test_any_set_of_ranges_gives_exactly_those_bytes_of_the_file(
    file: Served, content: bytes, data: st.DataObject, resource: str
) -> None:
    demand_slices(file, content, data, resource)


@settings(ASKED, max_examples=60)
@given(field=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_any_text_at_all_in_a_range_field_gives_the_whole_some_of_it_or_416(file: Served, content: bytes, field: str) -> None:
    answer = file.ask("vmcore", "bytes=" + field)
    assert answer.status in (200, 206, 416)
    if answer.status == 200:
        assert answer.body == content
    elif answer.status == 206:
        assert all(body == content[place] for place, body in sent(answer, SIZE))


@settings(ASKED, max_examples=100)
@given(dump=dumps(), data=st.data())
def test_any_range_of_physical_memory_is_what_the_pt_loads_paint_or_404_with_the_first_hole(
    memory: Served, dump: Painted, data: st.DataObject
) -> None:
    assume(dump.span > 0)
    fresh = memory.path.with_name("fresh")
    fresh.write_bytes(dump.content)
    os.rename(fresh, memory.path)
    for _ in range(3):
        start = data.draw(st.integers(max(0, dump.low - 4), dump.high))
        stop = start + data.draw(st.integers(1, 60))
        answer = memory.ask("memory/physical", f"bytes={start}-{stop - 1}")
        filled = memory.ask("memory/physical?fill=zero", f"bytes={start}-{stop - 1}")
        if start >= dump.span:
            assert (answer.status, filled.status) == (416, 416)
            assert answer.get("Content-Range") == f"bytes */{dump.span}"
            continue
        bytes_there = [dump.memory.get(address) for address in range(start, min(stop, dump.span))]
        assert (filled.status, filled.body) == (206, bytes(byte or 0 for byte in bytes_there))
        if None not in bytes_there:
            assert (answer.status, answer.body) == (206, filled.body)
            continue
        hole = start + bytes_there.index(None)
        said = answer.body.decode()
        assert answer.status == 404
        assert f'"address": "{hole:#x}"' in said
        assert f'"kind": "{"excluded" if hole in dump.memory else "absent"}"' in said
