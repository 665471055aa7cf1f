"""Bodies under way while their file changes, by every road that bytes take, and what a body costs those beside it."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.elfwriter import Dump as File
from tests.elfwriter import load
from tests.http1 import Connection
from tests.live import Live, Serve
from tests.requires import requires
from tests.served import QUICK, maps, memory, only, slow

SIZE = 16 << 20
NATIVE = ("--host-arch", "x86_64")

# How bytes leave: the flags and the environment that choose it.
PLAIN, FALLBACK, WINDOWS = "uvloop", "asyncio", "windows"
ROADS = (PLAIN, FALLBACK, WINDOWS, "tls", "tls-asyncio")


def version(letter: bytes) -> bytes:
    """A dump of SIZE bytes, each of them after the header this letter."""
    head = File([load(paddr=0, offset=4096, filesz=SIZE - 4096)]).tobytes().ljust(4096, letter)
    return head + letter * (SIZE - 4096)


OLD, NEW = version(b"A"), version(b"B")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(["openssl", "req", "-x509", *new, *names, *files], check=True, capture_output=True)
    return folder


class Road:
    """A server whose bytes take one road, and connections to it that read slowly."""

    def __init__(self, live: Live, folder: Path | None) -> None:
        self.live, self.folder = live, folder

    def connect(self) -> Connection:
        connection = slow(self.live)
        if self.folder is not None:
            context = ssl.create_default_context(cafile=str(self.folder / "cert.pem"))
            connection.socket = context.wrap_socket(connection.socket, server_hostname="127.0.0.1")
        return connection


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dumps")


@pytest.fixture
def path(folder: Path) -> Path:
    """The dump that every server here has, as it is before a test: OLD, in a file of its own."""
    (folder / "fresh").write_bytes(OLD)
    return (folder / "fresh").rename(folder / "vmcore")


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=requires("openssl")) if "tls" in name else name for name in ROADS]
)
def road(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory, serve_all_along: Serve
) -> Road:
    name: str = request.param
    (folder / "vmcore").write_bytes(OLD)
    arguments: list[str | Path] = [folder / "vmcore", *NATIVE, *QUICK]
    environment, certificates = {}, None
    if FALLBACK not in name:
        pytest.importorskip("uvloop")
    else:
        stub = tmp_path_factory.mktemp("stub")
        (stub / "uvloop.py").write_text("raise ImportError('as on a machine without it')\n")
        environment["PYTHONPATH"] = str(stub)
    if name == WINDOWS:
        arguments += ["--map-limit", "1M"]
    if "tls" in name:
        certificates = request.getfixturevalue("certificate")
        arguments += ["--tls-cert", certificates / "cert.pem", "--tls-key", certificates / "key.pem"]
    live = serve_all_along(*arguments, environment=environment)
    assert ("/uvloop/" in maps(live)) == (FALLBACK not in name)
    return Road(live, certificates)


@pytest.fixture(scope="module")
def alone(folder: Path, serve_all_along: Serve) -> Live:
    """A server of one worker."""
    (folder / "vmcore").write_bytes(OLD)
    return serve_all_along(folder / "vmcore", *NATIVE, "--workers", "1")


def begin(server: Connection) -> tuple[str, bytes]:
    """Ask for the whole dump and read its first mebibyte: (the dump's own URL, those bytes)."""
    link = only(server)["links"]["self"]
    server.ask("GET", f"{link}/vmcore")
    assert server.answer_head().get("Content-Length") == str(SIZE)
    return link, server.read(1 << 20)


def rest(server: Connection) -> bytes:
    """What still comes before the end or the cut."""
    received = bytearray()
    try:
        while piece := server.socket.recv(1 << 20):
            received += piece
    except ConnectionError:
        pass
    return bytes(received)


def test_a_whole_body_and_its_parts_are_the_files_bytes(road: Road, path: Path) -> None:
    content = os.urandom(5 << 20)
    path.write_bytes(OLD[:4096] + content + OLD[4096 + len(content) :])
    whole = path.read_bytes()
    with road.connect() as server:
        link = only(server)["links"]["self"]
        assert server.get(f"{link}/vmcore").body == whole
        for start, length in ((0, 1), (4095, 65536), (1 << 20, 65537), ((1 << 20) - 1, (3 << 20) + 2), (SIZE - 70_000, 70_000)):
            for _ in range(2):
                answer = server.get(f"{link}/vmcore", Range=f"bytes={start}-{start + length - 1}")
                assert (answer.status, answer.body == whole[start : start + length]) == (206, True)


def rewrite(path: Path) -> None:
    with path.open("r+b", buffering=0) as file:
        file.write(NEW)


def truncate(path: Path) -> None:
    os.truncate(path, 2 << 20)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


# How a file is changed in place, and what a range of the new version is answered.
CHANGES: dict[str, tuple[Callable[[Path], None], int, bytes]] = {
    "rewrite": (rewrite, 206, b"BBBB"),
    "truncate": (truncate, 206, b"AAAA"),
    "append": (append, 206, b"AAAA"),
    "empty": (empty, 422, b'{"ty'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_body_is_cut_when_its_file_changes_and_the_server_lives(road: Road, path: Path, change: str) -> None:
    make, status, start = CHANGES[change]
    with road.connect() as server, road.connect() as other:
        link, _ = begin(server)
        make(path)
        received = rest(server)
        assert len(received) + (1 << 20) < SIZE
        assert other.get("/healthz").body == b"ok\n"
        answer = other.get(f"{link}/vmcore", Range="bytes=8192-8195")
        assert (answer.status, answer.body[:4]) == (status, start)
    assert road.live.process.poll() is None
    assert "Traceback" not in road.live.stderr


def replace(path: Path) -> None:
    (path.parent / "new").write_bytes(NEW)
    (path.parent / "new").rename(path)


@pytest.mark.parametrize("change", [replace, Path.unlink])
def test_a_body_ends_whole_in_the_version_it_began_in_when_the_path_leads_elsewhere(
    road: Road, path: Path, change: Callable[[Path], None]
) -> None:
    with road.connect() as server, road.connect() as other:
        link, first = begin(server)
        change(path)
        assert first + server.read(SIZE - (1 << 20)) == OLD
        answer = other.get(f"{link}/vmcore")
        assert (answer.status, answer.body == NEW) == ((200, True) if change is replace else (422, False))


def test_if_range_of_the_version_before_gives_the_whole_new_dump(road: Road, path: Path) -> None:
    with road.connect() as server:
        link = only(server)["links"]["self"]
        tag = server.get(f"{link}/vmcore", Range="bytes=0-99").get("ETag") or ""
        assert server.get(f"{link}/vmcore", Range="bytes=100-199", If_Range=tag).status == 206
        replace(path)
        answer = server.get(f"{link}/vmcore", Range="bytes=100-199", If_Range=tag)
        assert (answer.status, answer.body == NEW, answer.get("ETag") == tag) == (200, True, False)
        assert server.get(f"{link}/vmcore", Range="bytes=100-199", If_Match=tag).status == 412


def test_a_request_that_is_repeated_on_a_connection_sees_every_change(road: Road, path: Path) -> None:
    # The same bytes over and over: whoever remembers an answer has to notice that it is none any more.
    with road.connect() as server:
        link = only(server)["links"]["self"]

        def ask(at: int = 9000) -> tuple[int, bytes]:
            # Where the path leads is looked at once a millisecond, and the file once more when an answer is out.
            time.sleep(0.005)
            answer = server.get(f"{link}/vmcore", Range=f"bytes={at}-{at + 3}")
            time.sleep(0.005)
            return answer.status, answer.body[:4]

        assert [ask(at) for at in range(9000, 9010)] == [(206, b"AAAA")] * 10
        rewrite(path)
        assert [ask() for _ in range(5)] == [(206, b"BBBB")] * 5
        (path.parent / "old").write_bytes(OLD)
        (path.parent / "old").rename(path)
        assert [ask() for _ in range(5)] == [(206, b"AAAA")] * 5
        truncate(path)
        assert ask(3 << 20)[0] == 416
        assert [ask() for _ in range(3)] == [(206, b"AAAA")] * 3
        path.unlink()
        assert [ask()[0] for _ in range(3)] == [422] * 3


def test_a_client_that_hangs_up_midway_costs_nobody_anything(road: Road, path: Path) -> None:
    for _ in range(5):
        with road.connect() as server:
            link, _ = begin(server)
    with road.connect() as server:
        assert server.get(f"{link}/vmcore", Range="bytes=5000-5003").body == b"AAAA"
    assert "Traceback" not in road.live.stderr


def test_a_clients_slowness_costs_the_server_little_memory(path: Path, alone: Live) -> None:
    with slow(alone) as server:
        link, _ = begin(server)
        before = memory(alone, "VmRSS")
        idle = [slow(alone) for _ in range(60)]
        for each in idle:
            each.ask("GET", f"{link}/stored?{'x' * 100}")
        for each in idle:
            each.answer_head()
        # The file is in everybody's memory: what counts is anonymous. A mebibyte each would be 60.
        assert memory(alone, "RssAnon") < 120 << 20
        assert memory(alone, "VmRSS") - before < SIZE + (16 << 20)
        for each in idle:
            each.close()


# Reads a whole resource in a process of its own, so that only the server can keep the others waiting.
READER = """
import socket, sys
host, port, target = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with socket.create_connection((host, port)) as server:
    server.sendall(f"GET {target} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n".encode())
    buffer, length = bytearray(1 << 20), 0
    while count := server.recv_into(buffer):
        length += count
print(length)
"""


@pytest.fixture(scope="module")
def shredded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump of 100,000 PT_LOADs of a byte each, no two of which touch."""
    path = tmp_path_factory.mktemp("shredded") / "vmcore"
    return File([load(paddr=2 * n, offset=(8 << 20) + 2 * n, filesz=1) for n in range(100_000)], size=9 << 20).write(path)


@pytest.fixture(scope="module")
def beside(shredded: Path, serve_all_along: Serve) -> Iterator[tuple[Live, str]]:
    live = serve_all_along(shredded, *NATIVE, "--workers", "1")
    with Connection(live.url) as server:
        yield live, only(server)["links"]["self"]


@pytest.mark.parametrize("resource", ["/memory/physical?fill=zero", "/vmcore?normalised"])
def test_a_hundred_thousand_segments_keep_nobody_else_waiting(beside: tuple[Live, str], resource: str) -> None:
    live, link = beside
    where = live.url.removeprefix("http://").split(":")
    reader = subprocess.Popen([sys.executable, "-c", READER, *where, link + resource], stdout=subprocess.PIPE, text=True)
    waits = []
    with Connection(live.url) as server:
        while reader.poll() is None:
            begun = time.monotonic()
            server.get("/healthz")
            waits.append(time.monotonic() - begun)
    said, _ = reader.communicate()
    assert int(said) > 200_000
    # A turn is a millisecond or two. Turns counted in bytes alone lasted for 1 to 3 s.
    assert max(waits) < 0.5, (len(waits), sorted(waits)[-5:])


def test_a_client_of_http_1_0_gets_the_bytes_and_the_end_of_the_connection(path: Path, alone: Live) -> None:
    with Connection(alone.url) as server:
        link = only(server)["links"]["self"]
        server.send(f"GET {link}/vmcore HTTP/1.0\r\nHost: localhost\r\nRange: bytes=4096-4099\r\n\r\n".encode())
        answer = server.answer()
        assert (answer.status, answer.body, server.hung_up()) == (206, b"AAAA", True)


def test_half_a_request_and_a_reset_are_survived(path: Path, alone: Live) -> None:
    # Whether the server learns of a reset by reading or by writing is a matter of microseconds.
    for length in range(0, 1 << 18, 4096):
        with slow(alone) as server:
            link, _ = begin(server)
            server.read(length)
            server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with Connection(alone.url) as server:
        server.send(f"GET {link}/vmcore HTTP/1.1\r\nHost: loc".encode())
    with Connection(alone.url) as server:
        server.send(b"\0\1\2\3 nothing of the kind\r\n\r\n")
        assert (server.answer().status, server.hung_up()) == (400, True)
    with Connection(alone.url) as server:
        assert server.get("/healthz").body == b"ok\n"
    assert "Traceback" not in alone.stderr
