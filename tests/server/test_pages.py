"""POST /pages on a live server: what it answers, read by tests.pages_wire, against what the test wrote into the dump."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from farcore.batch import MAX_BODY, MAX_ITEMS, MAX_TOTAL
from tests import pages_wire
from tests.elfwriter import Dump as File
from tests.elfwriter import load, note
from tests.http1 import Answer, Connection, Head
from tests.live import Live, Serve
from tests.pages_wire import ABSENT, DATA, EXCLUDED, MEDIA_TYPE, ZERO, Item
from tests.served import QUICK, listed, memory, only, slow
from tests.storage import disk, disk_filesystem

PAGE = 4096
NATIVE = ("--host-arch", "x86_64")
TYPED = {"Content-Type": MEDIA_TYPE}

# Physical memory: noise, a page of zeros, words that compress; then a part that was left out, and a hole before the rest.
NOISE, WORDS, REST = os.urandom(64 * PAGE), b"struct page " * (32 * PAGE // 12 + 1), os.urandom(3 * PAGE)
LOW = NOISE + bytes(PAGE) + WORDS[: 32 * PAGE]
SEGMENTS = [
    note(("CORE", 1, bytes(336))),
    load(LOW, paddr=0x100000, memsz=len(LOW) + 2 * PAGE),
    load(REST, paddr=0x200000),
]
EXCLUDED_AT = 0x100000 + len(LOW)
ABSENT_AT = EXCLUDED_AT + 2 * PAGE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dumps")
    File(SEGMENTS, phoff=192, trailing=b"\1" * 11).write(folder / "vmcore")
    File(SEGMENTS, machine=40).write(folder / "foreign")
    return folder


@pytest.fixture(scope="module")
def live(folder: Path, serve_all_along: Serve) -> Live:
    return serve_all_along(folder, *NATIVE, "--rescan", "3600", "--workers", "1")


@pytest.fixture
def server(live: Live) -> Iterator[Connection]:
    with Connection(live.url) as connection:
        yield connection


@pytest.fixture(scope="module")
def link(live: Live) -> str:
    with Connection(live.url) as server:
        return str(listed(server)["vmcore"]["links"]["self"])


@pytest.fixture(scope="module")
def content(folder: Path) -> bytes:
    return (folder / "vmcore").read_bytes()


def post(server: Connection, link: str, items: Sequence[Item], level: int | None = None, **fields: str) -> Answer:
    """The answer to a batch."""
    return server.request("POST", f"{link}/pages", {**TYPED, **fields}, pages_wire.request(items, level))


def problem(answer: Answer, status: int) -> dict[str, object]:
    """The members of the problem that was answered."""
    assert (answer.status, answer.get("Content-Type")) == (status, "application/problem+json")
    said: dict[str, object] = json.loads(answer.body)
    return said


def test_items_of_every_space_are_answered_in_the_order_asked(server: Connection, link: str, content: bytes) -> None:
    items = [("stored", 5, 100), ("physical", 0x100000 + 7, 9000), ("vmcore", 5, 100), ("physical", 0x200000, len(REST))]
    answer = post(server, link, items)
    assert (answer.status, answer.get("Content-Type")) == (200, MEDIA_TYPE)
    assert pages_wire.content(answer.body) == content[5:105] + LOW[7:9007] + content[5:105] + REST


def test_an_answer_has_the_dumps_etag_and_is_not_stored(server: Connection, link: str) -> None:
    answer = post(server, link, [("stored", 0, 1)])
    assert answer.get("ETag") == json.loads(server.get(link).body)["etag"]
    assert answer.get("Cache-Control") == "no-store"


def test_what_is_not_there_is_named_by_its_kind(server: Connection, link: str, content: bytes) -> None:
    items = [("physical", EXCLUDED_AT - 2, 2 * PAGE + 7), ("stored", len(content) - 1, 10), ("physical", (1 << 64) - 9, 8)]
    (frame,) = pages_wire.frames(post(server, link, items).body)
    data = LOW[-2:] + content[-1:]
    assert frame.runs == [(DATA, 2), (EXCLUDED, 2 * PAGE), (ABSENT, 5), (DATA, 1), (ABSENT, 17)]
    assert frame.data == data


def test_pages_of_zeros_are_not_sent(server: Connection, link: str) -> None:
    items = [("physical", 0x100000 + 62 * PAGE, 4 * PAGE)]
    (frame,) = pages_wire.frames(post(server, link, items).body)
    assert frame.runs == [(DATA, 2 * PAGE), (ZERO, PAGE), (DATA, PAGE)]
    assert frame.data == LOW[62 * PAGE : 64 * PAGE] + LOW[65 * PAGE : 66 * PAGE]


@pytest.mark.parametrize("level", [-5, 1, 9])
def test_zstd_is_used_when_asked_for_and_where_it_pays(server: Connection, link: str, level: int) -> None:
    items = [("physical", 0x100000, len(LOW))] * 3
    frames = pages_wire.frames(post(server, link, items, level).body)
    assert {frame.codec for frame in frames} == {0, 1}
    answer = post(server, link, items, level).body
    assert pages_wire.content(answer) == LOW * 3
    assert len(answer) < 3 * (len(NOISE) + 32 * PAGE // 8)
    assert {frame.codec for frame in pages_wire.frames(post(server, link, items).body)} == {0}


def test_normalised_asks_for_the_vmcore_in_the_kernels_own_layout(server: Connection, link: str, content: bytes) -> None:
    image = server.get(f"{link}/vmcore?normalised").body
    items = [("vmcore", 0, len(image)), ("stored", 0, 64), ("vmcore", 40, 9)]
    body = pages_wire.request(items, 1)
    answer = server.request("POST", f"{link}/pages?normalised", TYPED, body)
    assert pages_wire.content(answer.body) == image + content[:64] + image[40:49]
    assert image[:64] != content[:64]


def test_a_batch_of_nothing_is_answered_with_nothing(server: Connection, link: str) -> None:
    assert pages_wire.frames(post(server, link, []).body) == []


def test_as_many_items_as_a_batch_may_have_are_answered(server: Connection, link: str, content: bytes) -> None:
    starts = [17 * n % (len(content) - 3) for n in range(MAX_ITEMS)]
    answer = post(server, link, [("stored", start, 3) for start in starts])
    assert pages_wire.content(answer.body) == b"".join(content[start : start + 3] for start in starts)


def test_one_connection_answers_batches_and_ranges_in_turn(server: Connection, link: str, content: bytes) -> None:
    for start in range(0, 40_000, 4000):
        assert server.get(f"{link}/vmcore", Range=f"bytes={start}-{start + 9}").body == content[start : start + 10]
        assert pages_wire.content(post(server, link, [("stored", start, 10)], 1).body) == content[start : start + 10]


def test_batches_that_were_sent_ahead_are_answered_in_order(server: Connection, link: str, content: bytes) -> None:
    for start in (3, 2, 1):
        server.ask("POST", f"{link}/pages", TYPED, pages_wire.request([("stored", start, 1)]))
    assert [pages_wire.content(server.answer().body) for _ in range(3)] == [content[n : n + 1] for n in (3, 2, 1)]


def test_if_match_holds_or_is_answered_412_with_the_etag_there_is(server: Connection, link: str) -> None:
    etag = str(json.loads(server.get(link).body)["etag"])
    assert post(server, link, [("stored", 0, 1)], If_Match=etag).status == 200
    answer = post(server, link, [("stored", 0, 1)], If_Match='"stale"')
    assert etag in str(problem(answer, 412)["detail"])
    assert answer.get("ETag") == etag


def test_a_dump_that_is_refused_or_unknown_gives_no_pages(server: Connection) -> None:
    foreign = listed(server)["foreign"]["links"]["self"]
    assert problem(post(server, foreign, [("stored", 0, 1)]), 422)["type"] == "/problems/refused"
    assert problem(post(server, "/v1/dumps/none-00000000", [("stored", 0, 1)]), 404)["type"] == "/problems/no-such-dump"


def test_a_get_is_told_that_only_post_is_possible(server: Connection, link: str) -> None:
    answer = server.get(f"{link}/pages")
    assert problem(answer, 405)
    assert answer.get("Allow") == "POST"


@pytest.mark.parametrize("fields", [{}, {"Content-Type": "application/json"}, {**TYPED, "Content-Encoding": "gzip"}])
def test_a_body_of_another_type_is_not_a_batch(server: Connection, link: str, fields: dict[str, str]) -> None:
    answer = server.request("POST", f"{link}/pages", fields, pages_wire.request([("stored", 0, 1)]))
    said = problem(answer, 415)
    assert (said["type"], answer.get("Accept-Post")) == ("/problems/not-a-batch", MEDIA_TYPE)


def test_a_malformed_batch_is_answered_400_with_what_is_wrong(server: Connection, link: str) -> None:
    sound = pages_wire.request([("stored", 0, 1), ("stored", 5, 1)])
    for body, says in (
        (sound[:-1], "48 bytes; there are 47"),
        (sound[:4] + b"\2" + sound[5:], "version 2"),
        (sound[:-4] + b"\7" + sound[-3:], "item 1 is of a space"),
        (b"", "starts with FCPQ"),
    ):
        said = problem(server.request("POST", f"{link}/pages", TYPED, body), 400)
        assert (said["type"], said["versions"]) == ("/problems/bad-batch", [1])
        assert says in str(said["detail"])


def test_more_bytes_than_an_answer_has_are_refused_and_so_many_are_not(server: Connection, link: str) -> None:
    hole = (1 << 31) - 1
    assert len(pages_wire.frames(post(server, link, [("physical", 1 << 40, MAX_TOTAL)]).body)) == 1
    said = problem(post(server, link, [("physical", 1 << 40, MAX_TOTAL - 1), ("physical", 1 << 40, 2)]), 413)
    assert (said["type"], "several batches" in str(said["detail"])) == ("/problems/batch-too-large", True)
    assert problem(post(server, link, [("physical", 1 << 40, hole)] * MAX_ITEMS), 413)


def test_a_body_longer_than_a_batch_may_be_is_refused_before_it_has_all_come(live: Live, link: str) -> None:
    with Connection(live.url) as server:
        fields = {**TYPED, "Content-Length": str(1 << 40)}
        server.ask("POST", f"{link}/pages", fields)
        server.send(bytes(MAX_BODY + 1))
        assert problem(server.answer("POST"), 413)["type"] == "/problems/batch-too-large"


def test_a_batch_that_comes_in_chunks_is_a_batch(server: Connection, link: str, content: bytes) -> None:
    body = pages_wire.request([("stored", 0, 9)])
    server.ask("POST", f"{link}/pages", {**TYPED, "Transfer-Encoding": "chunked"})
    for byte in body:
        server.send(b"1\r\n%c\r\n" % byte)
    server.send(b"0\r\n\r\n")
    assert pages_wire.content(server.answer().body) == content[:9]


def test_a_client_that_leaves_within_its_batch_or_its_answer_leaves_no_trace(live: Live, link: str, content: bytes) -> None:
    said = live.stderr
    for size in (0, 20, 32):
        with Connection(live.url) as server:
            body = pages_wire.request([("physical", 0x100000, len(LOW))] * 400, 1)
            server.ask("POST", f"{link}/pages", {**TYPED, "Content-Length": str(len(body))})
            server.send(body[:size] if size < 32 else body)
    with Connection(live.url) as server:
        assert pages_wire.content(post(server, link, [("stored", 0, 9)]).body) == content[:9]
    assert "Traceback" not in live.stderr.removeprefix(said)


def test_batches_and_their_bytes_are_counted(live: Live, link: str) -> None:
    def counted(server: Connection) -> tuple[float, float]:
        text = server.get("/metrics").body.decode()
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        answers = float(values.get('farcore_requests_total{route="pages",status="200"}', 0))
        return answers, float(values.get('farcore_sent_bytes_total{route="pages"}', 0))

    with Connection(live.url) as server:
        answers, sent = counted(server)
        body = post(server, link, [("physical", 0x100000, len(NOISE))]).body
        more, bytes_more = counted(server)
        # The chunks that the body came in are counted as sent.
        assert more == answers + 1
        assert len(body) <= bytes_more - sent < len(body) + 200


def test_a_batch_needs_a_token_where_one_is_asked_for(folder: Path, tmp_path: Path, serve: Serve) -> None:
    (tmp_path / "tokens").write_text("")
    live = serve(folder, *NATIVE, "--token-file", tmp_path / "tokens")
    with Connection(live.url) as server:
        assert problem(post(server, "/v1/dumps/any", [("stored", 0, 1)]), 401)["type"] == "/problems/unauthorized"


def test_a_dump_of_many_loads_in_thousands_of_pieces_is_answered(tmp_path: Path, serve: Serve) -> None:
    """Bytes that alternate with holes, by layouts and plans that threads make."""
    count = 3000
    path = File([load(bytes([n % 255 + 1]), paddr=2 * n) for n in range(count)]).write(tmp_path / "vmcore")
    with Connection(serve(path, *NATIVE).url) as server:
        items = [("physical", 0, 2 * count - 1)] * 4 + [("physical", 2 * (n % count), 1) for n in range(9000)]
        found = pages_wire.painted(post(server, only(server)["links"]["self"], items, 1).body)
    row: list[int | str] = [n // 2 % 255 + 1 if n % 2 == 0 else "absent" for n in range(2 * count - 1)]
    assert found == row * 4 + [n % count % 255 + 1 for n in range(9000)]


def test_an_answer_of_too_many_pieces_is_refused_before_it_is_begun(tmp_path: Path, serve: Serve) -> None:
    count = 3000
    path = File([load(b"x", paddr=2 * n) for n in range(count)]).write(tmp_path / "vmcore")
    with Connection(serve(path, *NATIVE).url) as server:
        items = [("physical", 0, 2 * count)] * 200
        assert "pieces" in str(problem(post(server, only(server)["links"]["self"], items), 413)["detail"])


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="no tmpfs to write to")
def test_a_dump_in_memory_that_has_no_nowait_reads_is_answered(folder: Path, content: bytes, serve: Serve) -> None:
    with TemporaryDirectory(dir="/dev/shm") as shm:
        shutil.copy(folder / "vmcore", shm)
        with Connection(serve(Path(shm, "vmcore"), *NATIVE).url) as server:
            answer = post(server, only(server)["links"]["self"], [("stored", 0, len(content))], 1)
    assert pages_wire.content(answer.body) == content


def test_pages_that_are_not_in_memory_are_brought_in(tmp_path: Path, serve: Serve) -> None:
    size = 8 << 20
    path = tmp_path / "vmcore"
    text = os.urandom(size)
    File([load(text, paddr=0, offset=PAGE)]).write(path)
    whole = path.read_bytes()
    with Connection(serve(path, *NATIVE).url) as server, path.open("rb") as file:
        link = only(server)["links"]["self"]
        os.fsync(file.fileno())
        for level in (None, 1):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            starts = [37 * PAGE * n % size for n in range(500)]
            answer = post(server, link, [("stored", start, PAGE) for start in starts], level)
            assert pages_wire.content(answer.body) == b"".join(whole[start : start + PAGE] for start in starts)


@pytest.mark.parametrize("level", [None, 1])
@pytest.mark.parametrize("show", ["fuse", "ext4"])
def test_what_the_storage_fails_on_is_unreadable_and_the_rest_of_the_answer_is_there(
    tmp_path: Path, serve: Serve, level: int | None, show: str
) -> None:
    """On FUSE, which cannot say what is in memory, and on ext4, which can: a page is broken."""
    (tmp_path / "below").mkdir()
    (tmp_path / "room").mkdir()
    text = os.urandom(20 * PAGE)
    path = File([load(text, paddr=0, offset=PAGE)]).write(tmp_path / "below" / "vmcore")
    with ExitStack() as stack:
        if show == "fuse":
            shown = stack.enter_context(disk(tmp_path / "below"))
            begin = PAGE
        else:
            shown = stack.enter_context(disk_filesystem(tmp_path / "below", tmp_path / "room"))
            begin = (tmp_path / "room" / "disk" / "image").read_bytes().index(text)
        live = serve(shown.folder / path.name, *NATIVE)
        stack.callback(live.process.wait)
        stack.callback(live.process.terminate)
        shown.broken = range(begin + 7 * PAGE, begin + 8 * PAGE)
        with Connection(live.url) as server:
            items = [("physical", 7 * PAGE + 5, 10), ("physical", 0, len(text)), ("physical", 19 * PAGE, PAGE)]
            found = pages_wire.painted(post(server, only(server)["links"]["self"], items, level).body)
    wanted = text[7 * PAGE + 5 :][:10] + text + text[19 * PAGE :]
    lost = [i for i, cell in enumerate(found) if cell == "unreadable"]
    assert {*range(10), *range(10 + 7 * PAGE, 10 + 8 * PAGE)} <= {*lost}
    # Below ext4, whose blocks are smaller than a page here, a page of the disk has bytes of two of the file's.
    assert len(lost) <= 10 + {"fuse": 1, "ext4": 3}[show] * PAGE
    assert all(cell == byte or cell == "unreadable" for cell, byte in zip(found, wanted, strict=True))


def test_pages_that_a_slow_disk_must_bring_keep_nobody_waiting(tmp_path: Path, serve: Serve) -> None:
    (tmp_path / "below").mkdir()
    File([load(os.urandom(64 * PAGE), paddr=0, offset=PAGE)]).write(tmp_path / "below" / "vmcore")
    with disk(tmp_path / "below") as shown:
        live = serve(shown.folder / "vmcore", *NATIVE, "--workers", "1", "--rescan", "3600")
        with Connection(live.url) as cold, Connection(live.url) as other:
            link = str(only(cold)["links"]["self"])
            assert post(cold, link, [("stored", 0, PAGE)]).status == 200
            shown.delay = 2.0
            started = time.monotonic()
            cold.ask("POST", f"{link}/pages", TYPED, pages_wire.request([("stored", 30 * PAGE, PAGE)]))
            time.sleep(0.2)
            assert other.get("/healthz").status == 200
            assert time.monotonic() - started < 1.5
            assert cold.answer().status == 200
            assert time.monotonic() - started > 1.5
        live.process.terminate()
        live.process.wait(40)


def test_without_zstd_the_server_answers_plain(folder: Path, content: bytes, tmp_path: Path, serve: Serve) -> None:
    (tmp_path / "backports").mkdir()
    (tmp_path / "backports" / "__init__.py").write_text("")
    live = serve(folder / "vmcore", *NATIVE, environment={"PYTHONPATH": str(tmp_path)})
    with Connection(live.url) as server:
        answer = post(server, only(server)["links"]["self"], [("stored", 0, len(content))], 3)
    assert {frame.codec for frame in pages_wire.frames(answer.body)} == {0}
    assert pages_wire.content(answer.body) == content


SIZE = 16 << 20
OLD, NEW = (File([load(paddr=0, offset=PAGE, filesz=SIZE - PAGE)]).tobytes().ljust(SIZE, letter) for letter in (b"A", b"B"))


def rewrite(path: Path) -> None:
    with path.open("r+b", buffering=0) as file:
        file.write(NEW)


def truncate(path: Path) -> None:
    os.truncate(path, 2 << 20)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replace(path: Path) -> None:
    path.with_name("new").write_bytes(NEW)
    path.with_name("new").rename(path)


def begin(live: Live, level: int | None) -> tuple[Connection, Head]:
    """A batch of all that the dump has, four times over, and the head of its answer; no byte of its body has been read."""
    server = slow(live)
    items = [("stored", 0, SIZE)] * 4
    server.ask("POST", f"{only(server)['links']['self']}/pages", TYPED, pages_wire.request(items, level))
    head = server.answer_head()
    assert head.status == 200
    return server, head


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("change", [rewrite, truncate, append])
def test_an_answer_is_cut_when_its_dump_changes_and_has_no_byte_of_the_new_one(
    tmp_path: Path, serve: Serve, loop: str, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(OLD)
    if loop == "asyncio":
        (tmp_path / "uvloop.py").write_text("raise ImportError('as on a machine without it')\n")
    live = serve(path, *NATIVE, *QUICK, environment={"PYTHONPATH": str(tmp_path)})
    server, _ = begin(live, None)
    with server:
        received = bytearray(server.read(100_000))
        change(path)
        with contextlib.suppress(ConnectionError):
            while piece := server.socket.recv(1 << 20):
                received += piece
    assert not received.endswith(b"\r\n0\r\n\r\n")
    assert (b"A" * 64 in received, b"B" * 64 in received) == (True, False)
    with Connection(live.url) as server:
        assert server.get("/healthz").status == 200


@pytest.mark.parametrize("change", [replace, Path.unlink])
@pytest.mark.parametrize("level", [None, 1])
def test_an_answer_goes_on_to_its_end_when_its_dump_is_replaced_or_unlinked(
    tmp_path: Path, serve: Serve, change: Callable[[Path], None], level: int | None
) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(OLD)
    server, head = begin(serve(path, *NATIVE, "--rescan", "3600"), level)
    with server:
        change(path)
        assert pages_wire.content(server._body(head)) == OLD * 4


@pytest.mark.parametrize(("level", "most"), [(None, 512 << 10), (1, 1 << 20)])
def test_clients_that_read_nothing_cost_little_each(tmp_path: Path, serve: Serve, level: int | None, most: int) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(half_random())
    live = serve(path, *NATIVE, "--workers", "1")
    clients = [begin(live, level)[0]]
    before = memory(live, "RssAnon")
    clients += [begin(live, level)[0] for _ in range(30)]
    time.sleep(1)
    grown = memory(live, "RssAnon") - before
    for client in clients:
        client.close()
    assert grown < 30 * most


def half_random() -> bytes:
    """A dump of SIZE bytes that zstd halves."""
    return OLD[:PAGE] + b"".join(os.urandom(PAGE // 2) + b"A" * (PAGE // 2) for _ in range(SIZE // PAGE - 1))


def test_others_are_answered_while_a_large_batch_is(tmp_path: Path, serve: Serve) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(half_random())
    live = serve(path, *NATIVE, "--workers", "1")
    done = threading.Event()

    def ask_for_much(link: str) -> None:
        with Connection(live.url) as server:
            post(server, link, [("stored", 0, SIZE)] * 16, 9)
        done.set()

    with Connection(live.url) as server:
        link = str(only(server)["links"]["self"])
        much = threading.Thread(target=ask_for_much, args=(link,))
        much.start()
        for _ in range(20):
            assert server.get(f"{link}/vmcore", Range="bytes=0-9").status == 206
            assert pages_wire.content(post(server, link, [("stored", 0, 9)], 1).body) == OLD[:9]
        assert not done.is_set()
        much.join()
