"""What files and clients do to a server: it ends the answers that they spoil, keeps nothing, and goes on with the others."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest

from farcore_server.body import COPIED
from tests.elfwriter import Dump, load, note
from tests.http1 import Connection, CutError, Head
from tests.live import Live, Serve
from tests.processes import cpu, descriptors, pids, private, serving, settled, under_way
from tests.served import QUICK, listed, slow, until

NATIVE = ("--host-arch", "x86_64", "--workers", "1")
MEMORY = os.urandom(12 << 20)
BASE = 1 << 20
# Program headers elsewhere than the kernel has them, so that the normalised image is not the file.
SEGMENTS = [note(("CORE", 1, bytes(336))), load(MEMORY[: 6 << 20], paddr=BASE), load(MEMORY[6 << 20 :], paddr=1 << 30)]
DUMP = Dump(SEGMENTS, phoff=192, trailing=b"\1" * 11).tobytes()
END = BASE + (6 << 20) - 1
MOMENT = 0.003
# What a client that reads nothing may cost: uvloop keeps views of what it could not send, asyncio copies of two pieces.
MEMORY_EACH = (64 << 10) + (0 if find_spec("uvloop") else 3 * COPIED)


@dataclass(frozen=True, slots=True)
class Way:
    """A request, and whether its connection repeats it, so that a lane answers."""

    resource: str
    ranges: str | None = None
    lane: bool = False


WAYS = {
    "small": Way("vmcore", "0-9", lane=True),
    "large": Way("vmcore", f"5000000-{5_000_000 + (1 << 20) - 1}", lane=True),
    "whole": Way("vmcore"),
    "stored": Way("stored"),
    "several": Way("vmcore", "0-2999999,4000000-6999999,8000000-11999999"),
    "normalised": Way("vmcore?normalised"),
    "physical": Way("memory/physical", f"{BASE}-{END}"),
    "filled": Way("memory/physical?fill=zero", f"0-{END + (1 << 20)}"),
}


def truncate(path: Path) -> None:
    os.truncate(path, 4 << 20)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def rewrite(path: Path) -> None:
    with path.open("r+b", buffering=0) as file:
        file.write(DUMP[:4096] + bytes(len(DUMP) - 4096))


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES: list[Callable[[Path], None]] = [truncate, empty, rewrite, Path.unlink, become_a_folder, become_a_fifo]


class Place:
    """A server of a folder with one dump that stays as it is; others come and go."""

    def __init__(self, folder: Path, live: Live) -> None:
        self.folder, self.live = folder, live
        self.numbers = count()
        self.pids = pids(live)
        with Connection(live.url) as server:
            self.link = listed(server)["vmcore"]["links"]["self"]

    def victims(self, number: int) -> list[tuple[Path, str]]:
        """Other dumps and their links, as soon as all are served."""
        paths = [self.folder / f"vmcore-{next(self.numbers)}" for _ in range(number)]
        for path in paths:
            path.write_bytes(DUMP)
        found = until(self.live, lambda found: all(path.name in found for path in paths))
        return [(path, found[path.name]["links"]["self"]) for path in paths]

    def demand_alive(self) -> None:
        """The same processes serve what nobody has touched."""
        assert pids(self.live) == self.pids
        with Connection(self.live.url) as server:
            for _ in range(3):
                assert server.get(f"{self.link}/vmcore", Range="bytes=4096-70000").body == DUMP[4096:70001]
        assert "Traceback" not in self.live.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, serve_all_along: Serve) -> Place:
    folder = tmp_path_factory.mktemp("dumps")
    (folder / "vmcore").write_bytes(DUMP)
    return Place(folder, serve_all_along(folder, *NATIVE, *QUICK))


def ask(server: Connection, link: str, way: Way) -> None:
    server.ask("GET", f"{link}/{way.resource}", {"Range": f"bytes={way.ranges}"} if way.ranges else {})


def whole(place: Place, way: Way) -> bytes:
    """The body that the way has for a dump that nobody touches."""
    with Connection(place.live.url) as server:
        ask(server, place.link, way)
        return server.answer().body


def received(server: Connection, head: Head | None = None) -> tuple[int, bytes]:
    """The next answer's status and body, cut or not; (0, b"") if not even its head came. ``head``: if that was read before."""
    try:
        head = head or server.answer_head()
        return head.status, server._body(head)
    except CutError as error:
        return (error.head.status if error.head else 0), error.received


def difference(expected: bytes, body: bytes) -> str:
    """Where they part: bodies are megabytes."""
    at = next((at for at, (one, other) in enumerate(zip(expected, body, strict=False)) if one != other), len(expected))
    return f"{body[at:][:8].hex()} instead of {expected[at:][:8].hex()} at byte {at} of {len(body)}"


@pytest.mark.parametrize("name", WAYS)
def test_a_file_that_changes_under_an_answer_ends_that_answer_at_most(place: Place, name: str) -> None:
    way = WAYS[name]
    # Boundaries differ from answer to answer: of multiparts only the length is known.
    expected = whole(place, way)
    for change, (path, link) in zip(CHANGES, place.victims(len(CHANGES)), strict=True):
        servers = [slow(place.live) for _ in range(3)]
        for server in servers:
            for _ in range(3 * way.lane):
                ask(server, link, way)
                assert server.answer().body == expected
                time.sleep(MOMENT)
            ask(server, link, way)
        # What has not begun would be about the file as it is then.
        heads = [server.answer_head() for server in servers]
        assert {head.status for head in heads} <= {200, 206}
        change(path)
        servers.pop(0).close()
        for server, begun in zip(servers, heads[1:], strict=True):
            for number in range(3 if way.lane else 1):
                status, body = received(server, None if number else begun)
                if status not in (200, 206):
                    break  # asked about after the change
                if name != "several" and change is not rewrite:
                    assert expected.startswith(body), (change, difference(expected, body))
                if not way.lane and change in (truncate, empty, rewrite):
                    assert len(body) < len(expected), change
                if len(body) < len(expected):
                    break
                ask(server, link, way)
            server.close()
        place.demand_alive()
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)


def test_files_that_never_stop_changing_are_survived(place: Place) -> None:
    ((path, link),) = place.victims(1)
    give_up = time.monotonic() + 2
    ways = [WAYS[name] for name in ("small", "large", "physical", "several")]
    answers = 0
    for n in count():
        if time.monotonic() > give_up:
            break
        (rewrite, truncate, empty)[n % 3](path)
        if n % 2:
            path.write_bytes(DUMP)
        with Connection(place.live.url) as server:
            for way in ways:
                ask(server, link, way)
                status, _ = received(server)
                if status == 0:
                    break
                assert status in (200, 206, 404, 416, 422, 503)
                answers += 1
    assert answers > 20
    place.demand_alive()
    path.unlink()


def read_nothing(place: Place, way: Way, number: int) -> list[Connection]:
    """Clients that have asked for a lot, have an answer's head in their kernel, and do not read."""
    servers = [slow(place.live) for _ in range(number)]
    for server in servers:
        for _ in range(3 * way.lane):
            ask(server, place.link, WAYS["small"])
            server.answer()
        ask(server, place.link, way)
    for server in servers:
        while not under_way(server.socket):
            time.sleep(0.01)
    time.sleep(0.1)
    return servers


@pytest.mark.parametrize("name", ["whole", "several", "large"])
def test_fifty_clients_that_read_nothing_cost_little_and_hold_up_nobody(place: Place, name: str) -> None:
    for server in read_nothing(place, WAYS[name], 5):
        server.close()  # what the first ones cost, allocators and codes, stays
    settled(place.live, 0, within=0.5)
    before = private(place.live)
    servers = read_nothing(place, WAYS[name], 50)
    held = private(place.live) - before
    waits = []
    with Connection(place.live.url) as other:
        for n in range(50):
            begun = time.monotonic()
            assert other.get(f"{place.link}/vmcore", Range=f"bytes={n}-{n + 4095}").body == DUMP[n : n + 4096]
            waits.append(time.monotonic() - begun)
    used = cpu(place.live)
    time.sleep(0.5)
    used = cpu(place.live) - used
    for server in servers:
        server.close()
    assert held <= 50 * MEMORY_EACH
    assert sorted(waits)[-3] < 0.1
    assert used < 0.25
    place.demand_alive()


@pytest.mark.parametrize("name", ["large", "whole"])
def test_clients_that_ask_for_ever_and_read_nothing_are_not_listened_to(place: Place, name: str) -> None:
    requests = f"GET {place.link}/vmcore HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-9\r\n\r\n".encode() * 1000
    before = private(place.live)
    servers = read_nothing(place, WAYS[name], 4)
    for server in servers:
        server.socket.settimeout(0.3)
        with suppress(TimeoutError):
            for _ in range(400):
                server.send(requests)
        server.close()
        # Of 40 MB; what has come is parsed in pieces of 256 KiB, and then nothing more is read.
        assert private(place.live) - before < 4 << 20
    place.demand_alive()


def reset(server: Connection) -> None:
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()


def half_close(server: Connection) -> None:
    """Says that no more requests come, as `nc -N` does, and goes away later."""
    server.socket.shutdown(socket.SHUT_WR)


def read_some_and_close(server: Connection) -> None:
    server.read(100_000)
    server.close()


def shut_both(server: Connection) -> None:
    server.socket.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("name", ["whole", "normalised", "physical", "large"])
def test_clients_that_go_away_leave_no_descriptor_and_no_work(place: Place, name: str) -> None:
    settled(place.live, 0, within=0.3)
    before = descriptors(place.live)
    for end in (reset, Connection.close, half_close, read_some_and_close, shut_both):
        servers = read_nothing(place, WAYS[name], 10)
        assert descriptors(place.live) >= before + 10
        for server in servers:
            end(server)
        time.sleep(0.05)
        for server in servers:
            server.close()
        assert settled(place.live, before) <= before, end
    used = cpu(place.live)
    time.sleep(0.5)
    assert cpu(place.live) - used < 0.25
    place.demand_alive()


def test_a_client_that_has_said_all_still_gets_its_small_answer(place: Place) -> None:
    with Connection(place.live.url) as server:
        server.ask("GET", f"{place.link}/vmcore", {"Range": "bytes=0-9"})
        assert server.answer().body == DUMP[:10]
        server.socket.shutdown(socket.SHUT_WR)
        assert server.hung_up()


@pytest.fixture
def quiet(place: Place) -> Iterator[Place]:
    before = descriptors(place.live)
    yield place
    assert settled(place.live, before) <= before


def test_connections_that_never_ask_and_requests_that_never_end_cost_a_descriptor_each(quiet: Place) -> None:
    before = private(quiet.live)
    silent = [Connection(quiet.live.url) for _ in range(50)]
    for n, server in enumerate(silent):
        server.send((b"", b"G", b"GET / HTTP/1.1\r\nHost: local", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 90)[n % 4])
    time.sleep(0.2)
    assert private(quiet.live) - before <= 50 * MEMORY_EACH
    quiet.demand_alive()
    for server in silent:
        server.close()


def test_every_worker_is_the_one_that_was_started(place: Place) -> None:
    # The last of this file: whatever the others have done, nothing had to be replaced.
    assert pids(place.live) == place.pids
    assert len(serving(place.live)) == 1
