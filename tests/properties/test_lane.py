"""One connection or many: the same requests have the same answers, each with its own permission.

Every request is also asked on a connection of its own, where no lane can be at work, and judged by what the test itself
knows of it: its token, and a plain slice of what the dump was written from.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farcore_server import tokens
from tests.elfwriter import Dump, load, note
from tests.http1 import Answer, Connection, CutError
from tests.requires import requires
from tests.warm import Warm, warmed

# A sweep: FARCORE_EXAMPLES=3000 pytest tests/properties/test_lane.py
EXAMPLES = int(os.environ.get("FARCORE_EXAMPLES", "100"))
BASE, FAR = 0x100000, 0x40000000
MEMORY = os.urandom(2_600_000)
OTHER = os.urandom(90_000)
# Either side of each length at which the way bytes leave changes.
LENGTHS = (1, 7, 4096, 32768, 32769, 65537, 300_000, 1 << 20, (1 << 20) + 1)
# aiohttp waits for the next request a moment after its answer: only then can a lane be at work.
PAUSES = (0.0, 0.001, 0.003, 0.003)
KINDS = (
    *("no token", "wrong", "bob", "basic", "order", "case", "blank", "twice", "if-none-match", "if-match", "if-range"),
    *("if-range old", "HEAD", "POST", "body", "chunked", "unknown dump", "unknown path", "listing", "health", "absolute"),
    *("expect", "LF", "nonsense", "method", "close", "1.0", "whole", "fill", "X"),
)
BOUNDARY = re.compile(rb"(?<=boundary=)[0-9a-f]{32}|(?<=--)[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Request:
    """Bytes for the wire, and what is known of their answer: its status, and its body unless None."""

    raw: bytes
    status: int
    body: bytes | None = None
    method: str = "GET"
    # aiohttp forgets what stands in a chunk before a malformed request, and takes none of one that goes on after the last.
    alone: bool = False

    def __repr__(self) -> str:
        return f"<{self.status}: {self.raw[:600]!r}>"


@dataclass(frozen=True, slots=True)
class Step:
    """Requests that are sent as one stream, cut at ``cuts`` with a pause at each, and a pause before the next step."""

    requests: Sequence[Request]
    cuts: Sequence[tuple[int, float]]
    pause: float


@dataclass(slots=True)
class World:
    """A server, its dumps as the test wrote them, and two tokens."""

    connect: Callable[[], Connection]
    alice: str
    bob: str
    # By target; and a space's bytes as (start, bytes) with nothing between them.
    links: dict[str, str]
    contents: dict[str, Sequence[tuple[int, bytes]]]
    sizes: dict[str, int]
    etag: str = ""
    # How many 206s came, on connections that were used more than once and on the others.
    partial: int = 0
    alone: int = 0


def headers(world: World, token: str | None, fields: Sequence[str]) -> list[str]:
    who = [] if token is None else [f"Authorization: Bearer {token}"]
    return ["Host: localhost", *who, *fields]


def head(method: str, target: str, lines: Sequence[str]) -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode()


def held(world: World, target: str, start: int, stop: int) -> bytes | None:
    """What lies at [start, stop), if all of it does."""
    for at, content in world.contents[target]:
        if at <= start and stop <= at + len(content):
            return content[start - at : stop - at]
    return None


@st.composite
def spans(draw: st.DrawFn, world: World, target: str) -> tuple[int, int]:
    """[start, stop), most often of bytes that are there."""
    at, content = draw(st.sampled_from(world.contents[target]))
    length = draw(st.sampled_from(LENGTHS) | st.integers(1, 5000))
    start = draw(st.integers(at, at + len(content) - 1) | st.integers(max(0, at - 10), at + len(content) + 10))
    return start, start + length


def plain(world: World, target: str, token: str | None, span: tuple[int, int], fields: Sequence[str] = ()) -> Request:
    """A range as a lane repeats it."""
    start, stop = span
    raw = head("GET", world.links[target], headers(world, token, [*fields, f"Range: bytes={start}-{stop - 1}"]))
    if token not in (world.alice, world.bob):
        return Request(raw, 401)
    return judged(world, target, raw, start, stop)


def judged(world: World, target: str, raw: bytes, start: int, stop: int) -> Request:
    """The request for [start, stop), which may go past the end."""
    if start >= world.sizes[target]:
        return Request(raw, 416)
    body = held(world, target, start, min(stop, world.sizes[target]))
    return Request(raw, 206, body) if body is not None else Request(raw, 404)


def last(request: Request) -> Request:
    """The one after which the connection ends."""
    return replace(request, alone=True)


@st.composite
def digits(draw: st.DrawFn, world: World, target: str) -> Request:
    """The armed request with other digits, or what stands where digits do."""
    size = world.sizes[target]
    start, stop = draw(spans(world, target))
    kind = draw(st.sampled_from(("zeros", "twenty", "reversed", "suffix", "open", "letters", "beyond", "several", "signed")))
    first, last = str(start), str(stop - 1)
    if kind == "zeros":
        value = f"{'0' * draw(st.integers(0, 30))}{first}-{'0' * draw(st.integers(0, 30))}{last}"
    elif kind == "twenty":
        value, stop = f"{first}-{'9' * draw(st.sampled_from((19, 20, 21, 300)))}", 1 << 70
    elif kind == "open":
        value, stop = f"{first}-", size
    elif kind == "beyond":
        value, start = f"{size + start}-{size + stop}", size
    else:
        value = {
            "reversed": f"{int(last) + 1}-{first}",
            "suffix": f"-{draw(st.integers(1, 2 * size))}",
            "letters": draw(st.sampled_from(("a-b", "٠-٩", "0-9x", "0_0-1_0", "-", "0--9", "0-9-", "²-³", "0x0-0x9"))),
            "several": f"{first}-{last},{draw(st.integers(0, size))}-{size}",
            "signed": f"+{first}-+{last}",
        }[kind]
        raw = head("GET", world.links[target], headers(world, world.alice, [f"Range: bytes={value}"]))
        return Request(raw, -1)
    return judged(
        world, target, head("GET", world.links[target], headers(world, world.alice, [f"Range: bytes={value}"])), start, stop
    )


@st.composite
def odd(draw: st.DrawFn, world: World, target: str) -> Request:
    """What only aiohttp may answer."""
    span = draw(spans(world, target))
    field = f"Range: bytes={span[0]}-{span[1] - 1}"
    link, mine = world.links[target], [*headers(world, world.alice, [field])]
    kind = draw(st.sampled_from(KINDS))
    inner = head("GET", "/healthz", ["Host: localhost"])
    match kind:
        case "no token":
            return plain(world, target, None, span)
        case "wrong":
            return plain(
                world, target, draw(st.sampled_from((world.alice[:-1], world.alice + "x", "x", world.alice.upper()))), span
            )
        case "bob":
            return plain(world, target, world.bob, span)
        case "X":
            return plain(
                world, target, world.alice, span, [draw(st.sampled_from(("X: y", "Accept: */*", "x-range: bytes=0-1")))]
            )
        case "basic":
            password = b64encode(f"x:{world.alice}".encode()).decode()
            raw = head("GET", link, ["Host: localhost", f"Authorization: Basic {password}", field])
            return judged(world, target, raw, *span)
        case "order":
            return judged(world, target, head("GET", link, mine[::-1]), *span)
        case "case":
            return judged(world, target, head("GET", link, [line.replace("Range", "rAnGe") for line in mine]), *span)
        case "blank":
            blank = draw(st.sampled_from((" ", "\t", "  \t")))
            return judged(world, target, head("GET", link, [line.replace(": ", f":{blank}") + blank for line in mine]), *span)
        case "twice":
            return Request(head("GET", link, [*mine, "Range: bytes=0-0"]), -1)
        case "if-none-match":
            return Request(head("GET", link, [*mine, "If-None-Match: *"]), 304)
        case "if-match":
            return Request(head("GET", link, [*mine, 'If-Match: "other"']), 412)
        case "if-range":
            # The other dump's tag is another.
            raw = head("GET", link, [*mine, f"If-Range: {world.etag}"])
            return judged(world, target, raw, *span) if target != "other" else Request(raw, 200, world.contents[target][0][1])
        case "if-range old":
            return Request(head("GET", link, [*mine, 'If-Range: "old"']), -1)
        case "HEAD":
            return Request(head("HEAD", link, mine), 200, method="HEAD")
        case "POST":
            return Request(head("POST", link, [*mine, f"Content-Length: {len(inner)}"]) + inner, 405)
        case "body":
            return judged(world, target, head("GET", link, [*mine, f"Content-Length: {len(inner)}"]) + inner, *span)
        case "chunked":
            raw = head("GET", link, [*mine, "Transfer-Encoding: chunked"]) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)
            return judged(world, target, raw, *span)
        case "unknown dump":
            return Request(head("GET", "/v1/dumps/none-00000000/vmcore", mine), 404)
        case "unknown path":
            return Request(head("GET", link + "x", mine), 404)
        case "listing":
            return Request(head("GET", "/v1/dumps", mine), 200)
        case "health":
            return Request(inner, 200, b"ok\n")
        case "absolute":
            return judged(world, target, head("GET", f"http://localhost{link}", mine), *span)
        case "expect":
            return judged(world, target, head("GET", link, [*mine, "Expect: 100-continue"]), *span)
        case "LF":
            return Request(head("GET", link, mine).replace(b"\r\n", b"\n"), 400, alone=True)
        case "nonsense":
            return Request(
                draw(st.sampled_from((b"\0\1\2\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nA B: c\r\n\r\n"))), 400, alone=True
            )
        case "method":
            return Request(head("PROPFIND", link, mine), 405)
        case "close":
            return last(judged(world, target, head("GET", link, [*mine, "Connection: close"]), *span))
        case "1.0":
            return last(judged(world, target, head("GET", link, mine).replace(b"HTTP/1.1", b"HTTP/1.0"), *span))
        case "whole":
            return Request(
                head("GET", world.links["other"], headers(world, world.alice, [])), 200, world.contents["other"][0][1]
            )
        case "fill":
            raw = head("GET", world.links["physical"] + "?fill=zero", headers(world, world.alice, ["Range: bytes=0-9"]))
            return Request(raw, 206, bytes(10))
    raise AssertionError(kind)


@st.composite
def steps(draw: st.DrawFn, world: World) -> list[Step]:
    """Steps around one target, most of them what a lane would repeat."""
    target = draw(st.sampled_from(tuple(world.links)))
    usual = spans(world, target).map(lambda span: plain(world, target, world.alice, span))
    elsewhere = st.sampled_from(tuple(world.links)).flatmap(
        lambda other: spans(world, other).map(lambda span: plain(world, other, world.alice, span))
    )
    request = st.one_of(usual, usual, usual, digits(world, target), odd(world, target), elsewhere)
    # Two to begin with that arm the connection. What does not come whole and alone ends that for good: not too early.
    found = [Step([draw(usual)], [], PAUSES[-1]) for _ in range(2)]
    for _ in range(draw(st.integers(2, 8))):
        row = [draw(request)]
        while not row[-1].alone and len(row) < 4 and draw(st.integers(0, 7)) == 7:
            row.append(draw(request.filter(lambda each: not each.alone)))
        length = sum(len(each.raw) for each in row)
        ends = [len(each.raw) for each in row][:-1]
        places = st.integers(1, length - 1) | (st.sampled_from(ends) if ends else st.nothing())
        # The end of what is malformed would meet a closed connection, and its reset the answer.
        most = draw(st.sampled_from((0, 0, 0, 0, 1, 3))) if row[0].status != 400 else 0
        cuts = draw(st.lists(st.tuples(places, st.sampled_from(PAUSES)), max_size=most))
        found.append(Step(row, sorted(cuts), draw(st.sampled_from(PAUSES))))
    return found


def said(answer: Answer) -> tuple[object, ...]:
    """All of an answer but its Date and its multipart boundary, which no two have in common."""
    if answer.status == 400:
        return (400,)  # aiohttp quotes the piece that it could not read
    fields = [(name, BOUNDARY.sub(b"-", value.encode())) for name, value in answer.head.fields if name != "Date"]
    body = BOUNDARY.sub(b"-", answer.body) if b"boundary" in b"".join(value for _, value in fields) else answer.body
    return answer.head.version, answer.status, answer.head.reason, fields, body


def closes(answer: Answer) -> bool:
    return answer.status == 400 or answer.head.version == "HTTP/1.0" or (answer.get("Connection") or "").lower() == "close"


def alone(world: World, request: Request) -> Answer:
    """Its answer on a connection of its own, which is as it must be."""
    with world.connect() as server:
        server.send(request.raw)
        answer = server.answer(request.method)
    world.alone += answer.status == 206
    assert request.status in (-1, answer.status), request
    assert request.body is None or answer.body == request.body, request
    return answer


def run(world: World, sequence: Sequence[Step]) -> None:
    """Ask it all on one connection, as long as its server keeps one."""
    server = world.connect()
    try:
        for step in sequence:
            expected = [alone(world, request) for request in step.requests]
            send(server, step)
            for request, other in zip(step.requests, expected, strict=True):
                try:
                    answer = server.answer(request.method)
                except (CutError, OSError) as error:
                    raise AssertionError(f"no answer to {request}") from error
                assert said(answer) == said(other), request
                world.partial += answer.status == 206
                if closes(other):
                    server.close()
                    server = world.connect()
                    break
            time.sleep(step.pause)
    finally:
        server.close()


def send(server: Connection, step: Step) -> None:
    stream = b"".join(request.raw for request in step.requests)
    at = 0
    for cut, pause in step.cuts:
        server.send(stream[at:cut])
        time.sleep(pause)
        at = cut
    server.send(stream[at:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lane")
    (folder / "dumps").mkdir()
    segments = [note(("CORE", 1, bytes(336))), load(MEMORY, paddr=BASE), load(OTHER, paddr=FAR, memsz=1 << 20)]
    Dump(segments).write(folder / "dumps" / "vmcore")
    Dump([load(OTHER, paddr=0)]).write(folder / "dumps" / "vmcore-other")
    return folder


def world_of(folder: Path, connect: Callable[[], Connection]) -> World:
    path = folder / "tokens"
    path.unlink(missing_ok=True)
    alice, bob = (tokens.add(path, name) for name in ("alice", "bob"))
    return World(connect, alice, bob, {}, {}, {})


def learn(world: World, folder: Path) -> World:
    """Where its dumps are; what they hold is what was written."""
    with world.connect() as server:
        answer = server.get("/v1/dumps", Authorization=f"Bearer {world.alice}")
        dumps = {dump["name"]: dump for dump in json.loads(answer.body)["dumps"]}
    mine, other = dumps["vmcore"]["links"]["self"], dumps["vmcore-other"]["links"]["self"]
    files = [(folder / "dumps" / name).read_bytes() for name in ("vmcore", "vmcore-other")]
    world.etag = dumps["vmcore"]["etag"]
    world.links |= {"vmcore": f"{mine}/vmcore", "stored": f"{mine}/stored", "physical": f"{mine}/memory/physical"}
    world.links["other"] = f"{other}/vmcore"
    world.contents |= {"vmcore": [(0, files[0])], "stored": [(0, files[0])], "other": [(0, files[1])]}
    world.contents["physical"] = [(BASE, MEMORY), (FAR, OTHER)]
    world.sizes |= {"vmcore": len(files[0]), "stored": len(files[0]), "other": len(files[1]), "physical": FAR + (1 << 20)}
    return world


def connector(url: Callable[[], str], context: ssl.SSLContext | None = None) -> Callable[[], Connection]:
    def connect() -> Connection:
        connection = Connection(url(), timeout=10)
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            connection.socket = context.wrap_socket(connection.socket, server_hostname="127.0.0.1")
        return connection

    return connect


def sweep(world: World, examples: int) -> None:
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def one_or_many(data: st.DataObject) -> None:
        run(world, data.draw(steps(world)))

    one_or_many()


def certified(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's side of TLS and the client's."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files: list[str | Path] = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", "req", "-x509", *new, *files], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context, ssl.create_default_context(cafile=str(certificate))


@pytest.mark.parametrize("road", ["past the transport", "without uvloop", pytest.param("TLS", marks=requires("openssl"))])
def test_one_connection_and_many_give_the_same_answers_and_the_lane_gave_many(folder: Path, tmp_path: Path, road: str) -> None:
    started: list[Warm] = []
    context, trusting = certified(tmp_path) if road == "TLS" else (None, None)
    world = world_of(folder, connector(lambda: started[0].url, trusting))
    loop_factory = asyncio.new_event_loop if road == "without uvloop" else uvloop.new_event_loop
    with warmed(folder / "dumps", token_file=folder / "tokens", tls=context, loop_factory=loop_factory) as warm:
        started.append(warm)
        learn(world, folder)
        sweep(world, EXAMPLES if road == "past the transport" else EXAMPLES // 3)
        # What was answered and no handler has prepared was a lane's.
        lanes = world.partial + world.alone - warm.partial
    assert lanes > world.partial / 10, (lanes, world.partial)
