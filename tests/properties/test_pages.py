"""Any batch, on a live server, over one connection: each item is a slice of the file, or of memory painted byte by byte."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farcore.batch import Batch, Space
from farcore.frames import Decoder, Found
from tests import pages_wire
from tests.elfwriter import Dump as File
from tests.elfwriter import load
from tests.http1 import Connection
from tests.live import Serve
from tests.pages_wire import MEDIA_TYPE, Item
from tests.painted import EXCLUDED, Painted, dumps
from tests.served import only

PAGE = 4096
# Past the sizes of a frame, of a write and of what is compressed in a thread; pages of zeros, of noise and of text.
SIZE = (1 << 20) + 12345
EDGES = (0, PAGE, 16 << 10, 64 << 10, 256 << 10, 1 << 20, SIZE)
ASKED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
levels = st.none() | st.integers(-5, 9)


@dataclass(frozen=True)
class Served:
    """A dump at a path, and a connection to the server that has it."""

    path: Path
    server: Connection
    link: str

    def ask(self, items: list[Item], level: int | None, *, repeats: bool = False) -> bytes:
        body = pages_wire.request(items, level, repeats=repeats)
        answer = self.server.request("POST", f"{self.link}/pages", {"Content-Type": MEDIA_TYPE}, body)
        assert answer.status == 200
        return answer.body


def serving(path: Path, serve: Serve) -> Iterator[Served]:
    live = serve(path, "--allow-arch", "any")
    with Connection(live.url) as server:
        yield Served(path, server, only(server)["links"]["self"])


@pytest.fixture(scope="module")
def content() -> bytes:
    chance = random.Random(7)
    pages = [chance.choice((bytes(PAGE), b"text" * 1024, chance.randbytes(PAGE))) for _ in range(SIZE // PAGE)]
    head = File([load(paddr=0, offset=PAGE, filesz=SIZE - PAGE)]).tobytes().ljust(PAGE, b"\0")
    return (head + b"".join(pages[1:])).ljust(SIZE, b"\0")


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


positions = st.one_of(
    st.integers(0, SIZE + 10),
    st.builds(lambda page: page * PAGE, st.integers(0, SIZE // PAGE)),
    st.builds(lambda edge, by: max(0, edge + by), st.sampled_from(EDGES), st.integers(-100, 100)),
)
lengths = st.one_of(st.integers(1, 300), st.just(PAGE), st.just(16 * PAGE), st.integers(1, 600_000))
spaces: st.SearchStrategy[Space] = st.sampled_from(("vmcore", "stored"))


@ASKED
@given(items=st.lists(st.tuples(spaces, positions, lengths), max_size=12), level=levels, cuts=st.lists(st.integers(0)))
def test_any_batch_gives_exactly_the_bytes_of_each_item(
    file: Served, content: bytes, items: list[tuple[Space, int, int]], level: int | None, cuts: list[int]
) -> None:
    answer = file.ask([*items], level)
    wanted = [content[start : start + length] for _, start, length in items]
    assert there(answer) == b"".join(wanted)
    # The client's own reader says the same of it, item by item and however it was cut on its way.
    batch = Batch.of(items, level)
    decoder = Decoder(batch.total, zstd=level is not None)
    edges = sorted({0, len(answer), *(cut % (len(answer) + 1) for cut in cuts)})
    found = [bytearray() for _ in items]
    absent = [0] * len(items)
    for low, high in pairwise(edges):
        for part in batch.split(decoder.feed(answer[low:high])):
            assert part.offset == len(found[part.item]) + absent[part.item]
            if part.kind == Found.ABSENT:
                absent[part.item] += part.length
            else:
                found[part.item] += part.content or bytes(part.length)
    decoder.finish()
    assert found == wanted
    assert [len(some) + none for some, none in zip(found, absent, strict=True)] == [length for _, _, length in items]


@ASKED
@given(items=st.lists(st.tuples(spaces, positions, lengths), min_size=1, max_size=12), level=levels)
def test_an_answer_that_names_repeated_pages_is_the_same_string_of_bytes(
    file: Served, content: bytes, items: list[tuple[Space, int, int]], level: int | None
) -> None:
    answer = file.ask([*items], level, repeats=True)
    wanted = b"".join(content[start : start + length].ljust(length, b"?") for _, start, length in items)
    assert [byte if byte != "absent" else ord("?") for byte in pages_wire.painted(answer)] == list(wanted)
    decoder = Decoder(len(wanted), zstd=level is not None, repeats=True)
    found = bytearray()
    for at, length, kind, data, source in decoder.feed(answer):
        assert at == len(found)
        missing = b"?" if kind is Found.ABSENT else b"\0"
        found += data if kind is Found.DATA else found[source : source + length] if kind is Found.SAME else missing * length
    decoder.finish()
    assert found == wanted


def test_a_page_that_comes_again_is_sent_once(file: Served, content: bytes) -> None:
    answer = file.ask([("vmcore", 0, SIZE)], None, repeats=True)
    pages = [content[at : at + PAGE] for at in range(0, SIZE - PAGE + 1, PAGE)]
    sent = sum(len(frame.data) for frame in pages_wire.frames(answer))
    assert sent == len(set(pages) - {bytes(PAGE)}) * PAGE + SIZE % PAGE
    assert sum(run[0] == pages_wire.SAME for frame in pages_wire.frames(answer) for run in frame.runs) > 10
    assert pages_wire.content(answer) == content


def there(answer: bytes) -> bytes:
    """All bytes that there are."""
    found = bytearray()
    for frame in pages_wire.frames(answer):
        used = 0
        for kind, length, *_ in frame.runs:
            assert kind in (pages_wire.DATA, pages_wire.ZERO, pages_wire.ABSENT)
            if kind == pages_wire.DATA:
                found += frame.data[used : used + length]
                used += length
            elif kind == pages_wire.ZERO:
                found += bytes(length)
    return bytes(found)


@ASKED
@given(dump=dumps(), level=levels, data=st.data())
def test_any_batch_of_physical_memory_is_what_the_pt_loads_paint(
    memory: Served, dump: Painted, level: int | None, data: st.DataObject
) -> None:
    fresh = memory.path.with_name("fresh")
    fresh.write_bytes(dump.content)
    os.rename(fresh, memory.path)
    starts = st.integers(max(0, dump.low - 4), dump.high - 60)
    items = data.draw(st.lists(st.tuples(st.just("physical"), starts, st.integers(1, 60)), max_size=8))
    wanted: list[int | str] = []
    for _, start, length in items:
        for address in range(start, start + length):
            byte = dump.memory.get(address, "absent")
            wanted.append("excluded" if byte is EXCLUDED else byte)
    assert pages_wire.painted(memory.ask(items, level)) == wanted
