"""The hot lane from outside: which requests it answers, that nobody else's permission comes with them, and when they end.

A lane answers where no handler has prepared an answer (tests/warm.py).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import selectors
import signal
import socket
import ssl
import struct
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from farcore_server import tokens
from tests.elfwriter import Dump, load, note
from tests.http1 import Answer, Connection, CutError
from tests.live import Live, Serve
from tests.processes import pids, stopped, under_way
from tests.requires import requires
from tests.served import listed, slow
from tests.storage import disk_filesystem
from tests.warm import Warm, warmed

NATIVE = ("--host-arch", "x86_64", "--workers", "1")
MEMORY = os.urandom(8 << 20)  # more than the kernel takes for who does not read
BASE = 0x100000
# Either side of where a lane changes how it sends: one call, two, and what it leaves to a handler.
LENGTHS = (1, 2, 4095, 4096, 32767, 32768, 32769, 65536, 262_147, (1 << 20) - 1, 1 << 20)
# aiohttp needs as long after an answer until it waits for the next request; what comes sooner goes to it.
MOMENT = 0.003


@dataclass(slots=True)
class Asked:
    """A warm server, one connection to it, and a dump there."""

    warm: Warm
    server: Connection
    link: str
    path: Path
    alice: str
    bob: str

    @property
    def content(self) -> bytes:
        """The dump as it is now."""
        return self.path.read_bytes()

    def chunk(self, first: object, last: object, *fields: str, token: str | None = "", resource: str = "vmcore") -> bytes:
        """A request for a range; alice's unless it has another ``token`` or (None) has none."""
        lines = [f"GET {self.link}/{resource} HTTP/1.1", "Host: localhost"]
        if token is not None:
            lines.append(f"Authorization: Bearer {token or self.alice}")
        return "\r\n".join([*lines, *fields, f"Range: bytes={first}-{last}", "", ""]).encode()

    def ask(self, first: int, last: int, *fields: str, resource: str = "vmcore") -> Answer:
        """Its answer, on the one connection."""
        self.server.send(self.chunk(first, last, *fields, resource=resource))
        return self.server.answer()

    def arm(self, *fields: str, resource: str = "vmcore") -> None:
        """Ask until a lane answers."""
        first = BASE if resource == "memory/physical" else 0
        for _ in range(50):
            before = self.warm.prepared
            assert self.ask(first, first + 9, *fields, resource=resource).status == 206
            if self.warm.prepared == before:
                return
            time.sleep(MOMENT)
        raise AssertionError("the lane is not used")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "dumps"
    folder.mkdir()
    segments = [note(("CORE", 1, bytes(336))), load(MEMORY, paddr=BASE), load(MEMORY[:8192], paddr=1 << 30, memsz=1 << 20)]
    Dump(segments).write(folder / "vmcore")
    Dump([load(MEMORY[::-1], paddr=BASE)]).write(folder / "vmcore-other")
    return folder


@pytest.fixture
def asked(folder: Path, tmp_path: Path) -> Iterator[Asked]:
    path = tmp_path / "tokens"
    alice, bob = (tokens.add(path, name) for name in ("alice", "bob"))
    with warmed(folder, token_file=path) as warm, Connection(warm.url) as server:
        server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Asked(warm, server, links(warm, alice)["vmcore"], folder / "vmcore", alice, bob)


def links(warm: Warm, token: str) -> dict[str, str]:
    with Connection(warm.url) as server:
        found = json.loads(server.get("/v1/dumps", Authorization=f"Bearer {token}").body)["dumps"]
    return {dump["name"]: dump["links"]["self"] for dump in found}


def fields_of(answer: Answer) -> list[tuple[str, str]]:
    """All but Date, which time changes."""
    return [(name, value) for name, value in answer.head.fields if name != "Date"]


@pytest.mark.parametrize("resource", ["vmcore", "stored", "memory/physical"])
def test_a_repeated_range_is_answered_by_the_lane_with_a_handlers_words(asked: Asked, resource: str) -> None:
    asked.arm(resource=resource)
    start = BASE if resource == "memory/physical" else 64
    content = MEMORY if resource == "memory/physical" else asked.content[64:]
    prepared = asked.warm.prepared
    warm = []
    for length in LENGTHS:
        for at in (0, 1, 4097, 1_000_001):
            warm.append(asked.ask(start + at, start + at + length - 1, resource=resource))
            assert warm[-1].body == content[at : at + length]
    assert asked.warm.prepared == prepared
    for answer in warm:
        first, last = (answer.get("Content-Range") or "").removeprefix("bytes ").split("/")[0].split("-")
        with Connection(asked.warm.url) as fresh:
            fresh.send(asked.chunk(first, last, resource=resource))
            other = fresh.answer()
        assert (answer.head.version, answer.status, answer.head.reason) == ("HTTP/1.1", 206, "Partial Content")
        assert fields_of(answer) == fields_of(other)
    assert asked.warm.prepared == prepared + len(warm)


def test_many_connections_that_ask_again_at_once_are_answered_by_their_lanes(asked: Asked) -> None:
    chunk, content, rounds, count = asked.chunk(0, 9), asked.content[:10], 30, 64
    before = asked.warm.prepared
    with ExitStack() as stack, selectors.DefaultSelector() as ready:
        for _ in range(count):
            server = stack.enter_context(Connection(asked.warm.url))
            ready.register(server.socket, selectors.EVENT_READ, (server, iter(range(rounds - 1))))
        for key in list(ready.get_map().values()):
            key.data[0].send(chunk)
        answers = 0
        while answers < rounds * count:
            found = ready.select(20)
            assert found, answers
            for key, _ in found:
                server, more = key.data
                assert server.answer().body == content
                answers += 1
                if next(more, None) is not None:
                    server.send(chunk)
    # Handlers have the first of each, and the turns of the loop are long meanwhile: what comes too early waits a moment.
    assert asked.warm.prepared - before == count
    # A turn is counted when all its answers have left.
    give_up = time.monotonic() + 10
    while asked.warm.metrics.requests["vmcore", 206] < rounds * count and time.monotonic() < give_up:
        time.sleep(0.01)
    assert asked.warm.metrics.requests["vmcore", 206] == rounds * count


def test_a_lanes_date_is_now(asked: Asked) -> None:
    asked.arm()
    prepared = asked.warm.prepared
    for _ in range(2):
        before = int(time.time())
        date = parsedate_to_datetime(asked.ask(0, 9).get("Date") or "").timestamp()
        assert before <= date <= time.time()
        time.sleep(1.1)
    assert asked.warm.prepared == prepared


# What stands instead of alice's request for bytes 0-9, and the status that it must have whatever came before.
def missing_token(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, 9, token=None), 401


def wrong_token(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, 9, token=asked.alice[:-1] + "-"), 401


def token_in_lower_case(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, 9, token=asked.alice.lower()), 401


def two_tokens(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, 9, f"Authorization: Bearer {asked.alice}"), 401


def another_token(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, 9, token=asked.bob), 206


def basic(asked: Asked) -> tuple[bytes, int]:
    password = b64encode(f"x:{asked.alice}".encode()).decode()
    return asked.chunk(0, 9, f"Authorization: Basic {password}", token=None), 206


def another_order(asked: Asked) -> tuple[bytes, int]:
    lines = asked.chunk(0, 9).split(b"\r\n")
    return b"\r\n".join([lines[0], *reversed(lines[1:-2]), b"", b""]), 206


def another_field(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, 9, "X: y"), 206


def another_method(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, 9).replace(b"GET", b"PUT", 1), 405


def an_unknown_method(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, 9).replace(b"GET", b"GOT", 1), 400


def another_resource(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, 9, resource="memory/physical"), 404


def another_dump(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, 9).replace(b"/vmcore HTTP", b"x/vmcore HTTP"), 404


def a_suffix(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk("", 9), 206


def an_open_end(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(len(asked.content) - 10, ""), 206


def several_ranges(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, "9,1000-1009"), 206


def backwards(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(9, 0), 200


def beyond_the_end(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(len(asked.content), len(asked.content)), 416


def over_the_end(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(len(asked.content) - 10, len(asked.content)), 206


def twenty_digits(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, "00000000000000000009"), 206


def five_thousand_digits(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(len(asked.content) - 10, "9" * 5000), 206


def no_digits(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk("", ""), 200


def arabic_digits(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk("٠", "٩"), 200


def underscores(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, "1_0"), 200


def signs(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk("+0", "+9"), 200


def two_dashes(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, "-9"), 200


def blanks(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk("0 ", " 9"), 200


def a_condition(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, 9, "If-None-Match: *"), 304


def bare_line_feeds(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, 9).replace(b"\r\n", b"\n"), 400


def a_field_that_goes_on(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, "9\r\n ,20-29"), 400


def a_field_smuggled_in_by_digits(asked: Asked) -> tuple[bytes, int]:
    return asked.chunk(0, "9\r\nAuthorization: Bearer x\r\nX: 5-9"), 401


ODD = [
    *(missing_token, wrong_token, token_in_lower_case, two_tokens, another_token, basic, another_order, another_field),
    *(another_method, an_unknown_method, another_resource, another_dump, a_suffix, an_open_end, several_ranges, backwards),
    *(beyond_the_end, over_the_end, twenty_digits, five_thousand_digits, no_digits, arabic_digits, underscores, signs),
    *(two_dashes, blanks, a_condition, bare_line_feeds, a_field_that_goes_on, a_field_smuggled_in_by_digits),
]


@pytest.mark.parametrize("odd", ODD)
def test_a_request_that_differs_in_anything_but_digits_is_a_handlers(
    asked: Asked, odd: Callable[[Asked], tuple[bytes, int]]
) -> None:
    asked.arm()
    prepared = asked.warm.prepared
    chunk, status = odd(asked)
    asked.server.send(chunk)
    answer = asked.server.answer()
    with Connection(asked.warm.url) as fresh:
        fresh.send(chunk)
        other = fresh.answer()
    assert (answer.status, other.status) == (status, status)
    if status == 206 and "Content-Range" in dict(answer.head.fields):
        assert (fields_of(answer), answer.body) == (fields_of(other), other.body)
    if status == 400:
        return  # the connection is over, and no handler was asked
    assert asked.warm.prepared == prepared + 2
    # And the connection goes on, with alice's own permission.
    assert asked.ask(5, 14).body == asked.content[5:15]
    asked.arm()


def test_leading_zeros_change_nothing(asked: Asked) -> None:
    asked.arm()
    asked.server.send(asked.chunk("0000", "0000000000000000009"))
    answer = asked.server.answer()
    assert (answer.get("Content-Range"), answer.body) == (f"bytes 0-9/{len(asked.content)}", asked.content[:10])


def test_of_two_requests_in_a_chunk_the_second_has_no_permission_of_the_firsts(asked: Asked) -> None:
    asked.arm()
    for second, status in ((asked.chunk(0, 9, token=None), 401), (asked.chunk(10, 19), 206)):
        asked.server.send(asked.chunk(0, 9) + second)
        assert [asked.server.answer().status for _ in range(2)] == [206, status]
        time.sleep(MOMENT)
        asked.server.send(second)
        assert asked.server.answer().status == status


@dataclass(slots=True)
class Busy:
    """A connection on which a handler sends the whole dump, and cannot end before it is read."""

    asked: Asked
    server: Connection

    def begin(self, *fields: str) -> None:
        """Ask for it, and take no more than the head of its answer."""
        self.server.send(self.asked.chunk(0, len(self.asked.content) - 1, *fields))
        assert self.server.answer_head().status == 206
        assert under_way(self.server.socket) < len(self.asked.content)

    def end(self) -> None:
        """Read it."""
        assert self.server.read(len(self.asked.content)) == self.asked.content


@pytest.fixture
def busy(asked: Asked) -> Iterator[Busy]:
    with Connection(asked.warm.url, timeout=5) as server:
        server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        yield Busy(asked, server)


def test_what_comes_while_another_is_answered_gains_nothing_by_that_ones_permission(busy: Busy, asked: Asked) -> None:
    busy.begin()
    busy.server.send(asked.chunk(0, 9, token=None))
    time.sleep(0.1)
    busy.end()
    assert busy.server.answer().status == 401
    for _ in range(3):
        time.sleep(MOMENT)
        busy.server.send(asked.chunk(5, 14, token=None))
        assert busy.server.answer().status == 401


def test_what_comes_while_a_dump_is_opened_gains_nothing_by_the_firsts_permission(folder: Path, tmp_path: Path) -> None:
    alice = tokens.add(tmp_path / "tokens", "alice")
    with (
        disk_filesystem(folder, tmp_path) as shown,
        warmed(shown.folder, token_file=tmp_path / "tokens") as warm,
        Connection(warm.url) as server,
    ):
        asked = Asked(warm, server, links(warm, alice)["vmcore"], shown.folder / "vmcore", alice, alice)
        shown.forget()
        shown.delay = 0.3
        server.send(asked.chunk(0, 9))
        time.sleep(0.1)
        server.send(asked.chunk(0, 9, token=None))
        shown.delay = 0
        assert [server.answer().status for _ in range(2)] == [206, 401]
        for _ in range(3):
            time.sleep(MOMENT)
            server.send(asked.chunk(5, 14, token=None))
            assert server.answer().status == 401


def test_what_a_lane_could_answer_waits_for_what_was_asked_before(busy: Busy, asked: Asked) -> None:
    asked = dataclasses.replace(asked, server=busy.server)
    asked.arm()
    busy.begin()
    busy.server.send(asked.chunk(5, 14))
    time.sleep(0.1)
    busy.server.send(asked.chunk(25, 34))
    time.sleep(0.1)
    busy.end()
    assert busy.server.answer().body == asked.content[5:15]
    assert busy.server.answer().body == asked.content[25:35]
    assert asked.ask(0, 9).body == asked.content[:10]


def test_a_body_is_not_taken_for_what_a_lane_could_answer(busy: Busy, asked: Asked) -> None:
    asked = dataclasses.replace(asked, server=busy.server)
    asked.arm()
    inner = asked.chunk(0, 9)
    busy.begin(f"Content-Length: {len(inner)}")
    busy.server.send(inner)
    time.sleep(0.1)
    busy.end()
    cpu = time.process_time()
    assert asked.ask(5, 14).body == asked.content[5:15]
    assert time.process_time() - cpu < 1


@pytest.mark.parametrize("pause", [0, MOMENT])
def test_a_request_in_pieces_is_one_request(asked: Asked, pause: float) -> None:
    asked.arm()
    whole = asked.chunk(1000, 1999)
    for cut in range(1, len(whole)):
        asked.server.send(whole[:cut])
        time.sleep(pause * (cut % 7 == 0))
        asked.server.send(whole[cut:])
        assert asked.server.answer().body == asked.content[1000:2000]


def test_a_whole_request_behind_half_of_one_is_not_taken_by_itself(asked: Asked) -> None:
    # Its beginning makes of the armed request a field's value and the rest of a head: one request, without a token.
    asked.arm()
    beginning = f"GET {asked.link}/vmcore HTTP/1.1\r\nHost: localhost\r\nX: ".encode()
    asked.server.send(beginning)
    time.sleep(MOMENT)
    asked.server.send(asked.chunk(0, 9))
    assert asked.server.answer().status == 400  # two of Host


def test_a_body_that_reads_like_a_request_is_a_body(asked: Asked) -> None:
    asked.arm()
    inner = asked.chunk(0, 9)
    for pause in (0, MOMENT):
        asked.server.send(f"POST {asked.link}/vmcore HTTP/1.1\r\nHost: localhost\r\n".encode())
        asked.server.send(f"Authorization: Bearer {asked.alice}\r\nContent-Length: {len(inner)}\r\n\r\n".encode())
        time.sleep(pause)
        asked.server.send(inner)
        asked.server.send(asked.chunk(20, 29))
        assert [asked.server.answer().status for _ in range(2)] == [405, 206]


def test_a_get_with_a_body_is_never_repeated_without_it(asked: Asked) -> None:
    # Whoever answers the head and leaves the body to be read as the next request lets one be smuggled past a proxy.
    inner = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(60):
        with Connection(asked.warm.url) as server:
            server.get("/healthz")
            time.sleep(MOMENT)
            for n, body in enumerate((b"x" * len(inner), inner)):
                server.send(asked.chunk(n, n + 9, f"Content-Length: {len(body)}"))
                first = server.answer()
                # At once: aiohttp has hardly seen its handler end when the body comes.
                server.send(body + asked.chunk(0, n))
                second = server.answer()
                assert (first.status, second.status, second.get("Content-Length")) == (206, 206, str(n + 1))
                time.sleep(MOMENT)


def test_forty_requests_at_once_are_answered_in_order(asked: Asked) -> None:
    asked.arm()
    asked.server.send(b"".join(asked.chunk(n, n + 40_000) for n in range(40)))
    for n in range(40):
        assert asked.server.answer().body == asked.content[n : n + 40_001]


def test_requests_that_do_not_wait_for_answers_are_answered_in_order(asked: Asked) -> None:
    asked.arm()
    for round_ in range(20):
        for n in range(20):
            asked.server.send(asked.chunk(n, n + (5, 50_000, 900_000)[(round_ + n) % 3]))
        for n in range(20):
            assert asked.server.answer().body == asked.content[n : n + 1 + (5, 50_000, 900_000)[(round_ + n) % 3]]


# What ends a grant, and what alice's next request for bytes 220 to 225 must then be told.
Change = Callable[[Asked, Path], tuple[int, bytes | None]]
AFTER = b"after!"


def revoke(asked: Asked, folder: Path) -> tuple[int, bytes | None]:
    tokens.revoke(folder / "tokens", "alice")
    return 401, None


def replace(asked: Asked, folder: Path) -> tuple[int, bytes | None]:
    (folder / "new").write_bytes(asked.content[:220] + AFTER + asked.content[226:])
    (folder / "new").rename(asked.path)
    return 206, AFTER


def rewrite(asked: Asked, folder: Path) -> tuple[int, bytes | None]:
    with asked.path.open("r+b", buffering=0) as file:
        file.seek(220)
        file.write(AFTER)
    return 206, AFTER


def truncate(asked: Asked, folder: Path) -> tuple[int, bytes | None]:
    os.truncate(asked.path, 1 << 20)
    return 206, None


def unlink(asked: Asked, folder: Path) -> tuple[int, bytes | None]:
    asked.path.unlink()
    return 404, None


def make_a_folder(asked: Asked, folder: Path) -> tuple[int, bytes | None]:
    asked.path.unlink()
    asked.path.mkdir()
    return 422, None


def make_foreign(asked: Asked, folder: Path) -> tuple[int, bytes | None]:
    Dump([load(MEMORY, paddr=BASE)], machine=40).write(folder / "foreign")
    (folder / "foreign").rename(asked.path)
    return 422, None


@pytest.mark.parametrize("change", [revoke, replace, rewrite, truncate, unlink, make_a_folder, make_foreign])
def test_a_grant_ends_with_the_first_request_after_a_change(asked: Asked, tmp_path: Path, change: Change) -> None:
    asked.arm()
    tag = asked.ask(220, 225).get("ETag")
    time.sleep(MOMENT)
    status, body = change(asked, tmp_path)
    for _ in range(3):
        answer = asked.ask(220, 225)
        assert (answer.status, answer.get("ETag") == tag) == (status, False)
        assert body is None or answer.body == body


@pytest.mark.parametrize("length", [6, 100_000])
def test_no_request_is_too_soon_after_a_replacement(asked: Asked, tmp_path: Path, length: int) -> None:
    # A client that is told of it (by rename's return, here) may ask within microseconds, and must see what it was told of.
    original, stale = asked.content, 0
    for n in range(100):
        (tmp_path / "new").write_bytes(original[:220] + b"%06d" % n + original[226:])
        asked.arm()
        os.rename(tmp_path / "new", asked.path)
        stale += asked.ask(220, 219 + length).body[:6] != b"%06d" % n
    assert stale == 0


def test_no_request_is_too_soon_after_a_token_was_revoked(asked: Asked, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    with_alice = path.read_bytes()
    statuses = []
    for _ in range(100):
        asked.arm()
        (tmp_path / "without").write_text("")
        os.rename(tmp_path / "without", path)
        statuses.append(asked.ask(0, 9).status)
        (tmp_path / "with").write_bytes(with_alice)
        os.rename(tmp_path / "with", path)
    assert set(statuses) == {401}


def test_another_dumps_change_ends_nothing(asked: Asked) -> None:
    asked.arm()
    prepared = asked.warm.prepared
    asked.path.with_name("vmcore-other").unlink()
    for n in range(20):
        assert asked.ask(n, n + 9).body == asked.content[n : n + 10]
    assert asked.warm.prepared == prepared


def test_a_lanes_answers_are_counted_like_others(asked: Asked) -> None:
    def counted(name: str) -> float:
        text = asked.server.get("/metrics", Authorization=f"Bearer {asked.alice}").body.decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and sample.labels["route"] == "vmcore"
        )

    before = [counted(name) for name in ("farcore_requests_total", "farcore_sent_bytes_total")]
    for length in (10, 50_000):
        for _ in range(10):
            asked.ask(0, length - 1)
            time.sleep(MOMENT)
    prepared = asked.warm.prepared
    time.sleep(MOMENT)
    after = [counted(name) for name in ("farcore_requests_total", "farcore_sent_bytes_total")]
    assert after == [before[0] + 20, before[1] + 500_100]
    assert prepared < 12


def test_an_idle_connection_ends_when_its_time_is_over_whoever_answered_last(folder: Path) -> None:
    with warmed(folder, keepalive=0.5) as warm, Connection(warm.url, timeout=5) as server:
        link = {dump["name"]: dump["links"]["self"] for dump in listed(server).values()}["vmcore"]
        for n in range(10):
            # Over twice the time, but never as long between two requests.
            assert server.get(f"{link}/vmcore", Range=f"bytes={n}-{n}").status == 206
            time.sleep(0.1)
        assert warm.partial < 5
        begun = time.monotonic()
        assert server.hung_up()
        assert 0.2 < time.monotonic() - begun < 5


def test_a_connection_whose_client_was_slow_ends_when_idle_as_well(folder: Path) -> None:
    Dump([load(bytes(1 << 20) * 8, paddr=0)]).write(folder / "vmcore")
    with warmed(folder, keepalive=0.5) as warm, Connection(warm.url, timeout=5) as server:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        link = {dump["name"]: dump["links"]["self"] for dump in listed(server).values()}["vmcore"]
        for _ in range(5):
            assert server.get(f"{link}/vmcore", Range="bytes=0-9").status == 206
            time.sleep(MOMENT)
        prepared = warm.prepared
        for _ in range(8):
            server.ask("GET", f"{link}/vmcore", {"Range": f"bytes=0-{(1 << 20) - 1}"})
        time.sleep(1.2)
        for _ in range(8):
            assert len(server.answer().body) == 1 << 20
        assert warm.prepared < prepared + 8
        assert server.hung_up()


def test_a_client_that_resets_takes_no_neighbours_answer_with_it(folder: Path, serve: Serve) -> None:
    live = serve(folder, *NATIVE)
    with Connection(live.url) as server:
        link = listed(server)["vmcore"]["links"]["self"]
    content = (folder / "vmcore").read_bytes()
    for length in (10, 50_000):
        servers = [Connection(live.url, timeout=5) for _ in range(9)]
        for server in servers:
            for _ in range(4):
                assert server.get(f"{link}/vmcore", Range=f"bytes=0-{length - 1}").body == content[:length]
                time.sleep(MOMENT)
        # All of them are found in one turn of the loop, and three can no longer be answered.
        with stopped(live):
            for server in servers:
                server.ask("GET", f"{link}/vmcore", {"Range": f"bytes=7-{length + 6}"})
            for server in servers[::3]:
                server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                server.close()
        for n, server in enumerate(servers):
            if n % 3:
                assert server.answer().body == content[7 : length + 7]
                server.close()
    assert "Traceback" not in live.stderr


class Crowd:
    """Forty warm connections, all of whose requests for a mebibyte are found in one turn of the loop: ten turns to send."""

    def __init__(self, live: Live, link: str) -> None:
        self.live, self.link = live, link
        # Slow ones: the kernel does not take their mebibyte at once.
        self.servers = [slow(live) for _ in range(40)]
        for server in self.servers:
            server.socket.settimeout(5)
        for server in self.servers * 3:
            assert server.get(f"{link}/vmcore", Range="bytes=0-9").status == 206
        time.sleep(MOMENT)

    def ask(self) -> None:
        with stopped(self.live):
            for n, server in enumerate(self.servers):
                server.ask("GET", f"{self.link}/vmcore", {"Range": f"bytes={n}-{n + (1 << 20) - 1}"})
            time.sleep(0.05)

    def close(self) -> None:
        for server in self.servers:
            server.close()


def test_no_answer_stands_inside_another_when_many_ask_for_more_than_a_turn_sends(folder: Path, serve: Serve) -> None:
    live = serve(folder, *NATIVE)
    content = (folder / "vmcore").read_bytes()
    with Connection(live.url) as server:
        link = listed(server)["vmcore"]["links"]["self"]
    for pause in (0, 0.0003, 0.0006, 0.001, 0.002, 0.003) * 2:
        crowd = Crowd(live, link)
        crowd.ask()
        # While these are being sent, each asks again.
        time.sleep(pause)
        for n, server in enumerate(crowd.servers):
            server.ask("GET", f"{link}/vmcore", {"Range": f"bytes={n + 5}-{n + 14}"})
        for n, server in enumerate(crowd.servers):
            assert server.answer().body == content[n : n + (1 << 20)]
            assert server.answer().body == content[n + 5 : n + 15]
        crowd.close()


def test_clients_that_reset_while_many_wait_stop_nobody(folder: Path, serve: Serve) -> None:
    live = serve(folder, *NATIVE)
    with Connection(live.url) as server:
        link = listed(server)["vmcore"]["links"]["self"]
    for pause in (0, 0.0005, 0.001) * 2:
        crowd = Crowd(live, link)
        crowd.ask()
        time.sleep(pause)
        for server in crowd.servers[1::2]:
            server.ask("GET", f"{link}/vmcore", {"Range": "bytes=0-9"})
            server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            server.close()
        try:
            with Connection(live.url, timeout=5) as server:
                assert server.get("/healthz").status == 200
        except TimeoutError:
            for pid in pids(live)[::-1]:
                os.kill(pid, signal.SIGKILL)  # or the end of the test waits for it
            raise
        crowd.close()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A dump of 8 MiB, more than the kernel takes for a slow reader, and the like of which a lane answers in parts."""
    return Dump([load(os.urandom(8 << 20), paddr=0)]).write(tmp_path / "vmcore")


def leave_under_way(server: Connection, link: str, content: bytes) -> list[tuple[int, int]]:
    """Ask for mebibytes until the kernel takes no more: the ranges asked for, the last of which is not all sent."""
    for _ in range(5):
        assert server.get(f"{link}/vmcore", Range="bytes=0-9").body == content[:10]
        time.sleep(MOMENT)
    asked: list[tuple[int, int]] = []
    while under_way(server.socket) >= len(asked) << 20:
        assert len(asked) < 16, "the kernel takes everything"
        first = len(asked) << 19
        server.ask("GET", f"{link}/vmcore", {"Range": f"bytes={first}-{first + (1 << 20) - 1}"})
        asked.append((first, first + (1 << 20)))
        time.sleep(0.1)
    return asked


def test_at_sigterm_a_large_answer_ends_whole_and_then_the_connection(large: Path, serve: Serve) -> None:
    content = large.read_bytes()
    live = serve(large, *NATIVE)
    with slow(live) as server, Connection(live.url) as idle:
        link = listed(idle)["vmcore"]["links"]["self"]
        asked = leave_under_way(server, link, content)
        live.process.terminate()
        assert idle.hung_up()
        for first, stop in asked:
            assert server.answer().body == content[first:stop]
        assert server.hung_up()
    assert live.process.wait(20) == 0


def overwrite(path: Path) -> None:
    with path.open("r+b", buffering=0) as file:
        file.write(path.read_bytes()[:4096] + bytes((8 << 20) - 4096))


def shorten(path: Path) -> None:
    os.truncate(path, 4096)


@pytest.mark.parametrize("change", [overwrite, shorten])
def test_a_large_answer_is_cut_when_its_file_changes(large: Path, serve: Serve, change: Callable[[Path], None]) -> None:
    content = large.read_bytes()
    live = serve(large, *NATIVE)
    with slow(live) as server, Connection(live.url) as other:
        link = listed(other)["vmcore"]["links"]["self"]
        asked = leave_under_way(server, link, content)
        change(large)
        for first, stop in asked[:-1]:
            assert len(server.answer().body) == stop - first
        with pytest.raises(CutError):
            server.answer()
        assert other.get(f"{link}/vmcore", Range="bytes=0-9").body == content[:10]
    assert "Traceback" not in live.stderr


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.rename(path.with_name("elsewhere"))])
def test_a_large_answer_ends_whole_when_the_path_leads_elsewhere(
    large: Path, serve: Serve, change: Callable[[Path], None]
) -> None:
    content = large.read_bytes()
    live = serve(large.parent, *NATIVE)
    with slow(live) as server, Connection(live.url) as other:
        link = listed(other)["vmcore"]["links"]["self"]
        asked = leave_under_way(server, link, content)
        change(large)
        for first, stop in asked:
            assert server.answer().body == content[first:stop]
        assert server.get(f"{link}/vmcore", Range="bytes=0-9").status == 404


def test_a_client_that_goes_away_is_no_dump_that_changed(asked: Asked) -> None:
    asked.arm()
    for _ in range(20):
        with Connection(asked.warm.url) as server:
            for n in range(3):
                server.send(asked.chunk(n, n + 50_000))
                server.answer()
                time.sleep(MOMENT)
            for n in range(8):
                server.send(asked.chunk(n, n + (1 << 20) - 1))
                time.sleep(0.0005)
    time.sleep(0.1)
    assert asked.warm.metrics.cut == 0


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files: list[str | Path] = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subprocess.run(["openssl", "req", "-x509", *new, *names, *files], check=True, capture_output=True)
    return tmp_path / "cert.pem"


@pytest.mark.parametrize("tls", [False, pytest.param(True, marks=requires("openssl"))])
def test_where_all_must_go_through_the_transport_it_is_the_lane_that_answers(
    folder: Path, request: pytest.FixtureRequest, tls: bool
) -> None:
    context = trusting = None
    if tls:
        certificate: Path = request.getfixturevalue("certificate")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, certificate.with_name("key.pem"))
        trusting = ssl.create_default_context(cafile=str(certificate))
    loop_factory = uvloop.new_event_loop if tls else asyncio.new_event_loop
    with warmed(folder, tls=context, loop_factory=loop_factory) as warm:
        server = Connection(warm.url)
        if trusting is not None:
            server.socket = trusting.wrap_socket(server.socket, server_hostname="127.0.0.1")
        with server:
            link = listed(server)["vmcore"]["links"]["self"]
            content = (folder / "vmcore").read_bytes()
            warm.prepared = 0
            for length in LENGTHS:
                for n in range(4):
                    answer = server.get(f"{link}/vmcore", Range=f"bytes={n}-{n + length - 1}")
                    assert answer.body == content[n : n + length]
                    time.sleep(MOMENT)
            # Ten times before anything is read: the client has its answers in order, however slow it is.
            for n in range(10):
                server.ask("GET", f"{link}/vmcore", {"Range": f"bytes={n}-{n + (1 << 20) - 1}"})
                time.sleep(MOMENT)
            for n in range(10):
                assert server.answer().body == content[n : n + (1 << 20)]
            # The first, which arms, and those that came while others were under way.
            assert 1 <= warm.prepared <= 10
            assert warm.metrics.cut == 0
