"""The byte resources of a live server: every answer is a slice of what the test wrote, or one documented error."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.elfwriter import Dump as File
from tests.elfwriter import load, note
from tests.http1 import Answer, Connection
from tests.live import Live, Serve
from tests.multipart import parts_of
from tests.samples import SAMPLES
from tests.served import Said, listed, maps

WRITTEN = 1_600_000_000
LAST_MODIFIED = "Sun, 13 Sep 2020 12:26:40 GMT"
LOW, HIGH, TAIL = os.urandom(3 << 20), os.urandom(0x5000), os.urandom(0x800)
SEGMENTS = [
    note(("CORE", 1, bytes(336)), ("VMCOREINFO", 0, b"OSRELEASE=6.1\n")),
    load(HIGH, paddr=0x40300000, vaddr=0xFFFF888000000000),
    load(LOW, paddr=0x40000000),
    load(TAIL, paddr=0x50000000, memsz=0x2000),
]
# What lies where in physical memory, with the holes of two kinds.
MEMORY = {0x40000000: LOW + HIGH, 0x50000000: TAIL}
EXCLUDED, END = 0x50000800, 0x50002000
REFUSED = {"foreign": File(SEGMENTS, machine=40).tobytes(), "vmcore-text": b"hello, world"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dumps")
    File(SEGMENTS, phoff=192, trailing=b"\1" * 11).write(folder / "vmcore")
    (folder / "vmcore-cut").write_bytes(File(SEGMENTS).tobytes()[:-0x700])
    for name, content in REFUSED.items():
        (folder / name).write_bytes(content)
    os.utime(folder / "vmcore", (WRITTEN, WRITTEN))
    return folder


@pytest.fixture(scope="module")
def live(folder: Path, serve_all_along: Serve) -> Live:
    return serve_all_along(folder, "--host-arch", "x86_64", "--rescan", "3600")


@pytest.fixture
def server(live: Live) -> Iterator[Connection]:
    with Connection(live.url) as connection:
        yield connection


@pytest.fixture(scope="module")
def links(live: Live) -> dict[str, str]:
    with Connection(live.url) as server:
        return {name: dump["links"]["self"] for name, dump in listed(server).items()}


@pytest.fixture
def dump(links: dict[str, str]) -> str:
    return links["vmcore"]


@pytest.fixture(scope="module")
def content(folder: Path) -> bytes:
    return (folder / "vmcore").read_bytes()


def problem(answer: Answer) -> dict[str, object]:
    """The members of a problem, which is never stored."""
    assert answer.get("Content-Type") == "application/problem+json"
    said: dict[str, object] = json.loads(answer.body)
    assert said["status"] == answer.status
    assert {"type", "title", "detail"} < said.keys()
    return said


@pytest.mark.parametrize("resource", ["vmcore", "stored"])
def test_an_elf_is_served_as_it_lies_in_the_file(server: Connection, dump: str, content: bytes, resource: str) -> None:
    answer = server.get(f"{dump}/{resource}")
    assert (answer.status, answer.body) == (200, content)
    assert answer.get("Content-Type") == "application/octet-stream"
    assert answer.get("Accept-Ranges") == "bytes"
    assert answer.get("Last-Modified") == LAST_MODIFIED
    assert answer.get("Cache-Control") == "private, no-cache"
    assert answer.get("X-Content-Type-Options") == "nosniff"


@pytest.mark.parametrize(
    ("field", "start", "stop"),
    [
        ("bytes=0-63", 0, 64),
        ("bytes=1000-", 1000, None),
        ("bytes=-11", -11, None),
        ("BYTES=5-5", 5, 6),
        ("bytes=3000000-99999999999999999999999", 3_000_000, None),
    ],
)
def test_a_range_is_a_slice_of_the_file(
    server: Connection, dump: str, content: bytes, field: str, start: int, stop: int | None
) -> None:
    answer = server.get(f"{dump}/vmcore", Range=field)
    first, end, _ = slice(start, stop).indices(len(content))
    assert (answer.status, answer.body) == (206, content[start:stop])
    assert answer.get("Content-Range") == f"bytes {first}-{end - 1}/{len(content)}"
    assert answer.get("Content-Length") == str(end - first)


def test_a_suffix_longer_than_the_file_is_the_whole_file(server: Connection, dump: str, content: bytes) -> None:
    answer = server.get(f"{dump}/vmcore", Range="bytes=-99999999999999999999")
    assert (answer.status, answer.body) == (206, content)


def test_several_ranges_come_as_parts_and_neighbours_as_one(server: Connection, dump: str, content: bytes) -> None:
    size = len(content)
    answer = server.get(f"{dump}/vmcore", Range="bytes=-4, 1000-1999, 0-3, 2000-2009, 500-1500")
    assert (answer.status, answer.get("Content-Range")) == (206, None)
    assert parts_of(answer) == [
        (f"bytes {size - 4}-{size - 1}/{size}", content[-4:]),
        (f"bytes 500-2009/{size}", content[500:2010]),
        (f"bytes 0-3/{size}", content[:4]),
    ]


@pytest.mark.parametrize("field", ["bytes=9-5", "bytes=x-y", "bytes", "bits=0-1", "bytes=0-1,5-2", "bytes=,", "bytes=0-1;2-3"])
def test_a_range_field_that_is_malformed_or_of_another_unit_is_ignored(
    server: Connection, dump: str, content: bytes, field: str
) -> None:
    answer = server.get(f"{dump}/vmcore", Range=field)
    assert (answer.status, answer.body) == (200, content)


@pytest.mark.parametrize(
    "field", ["bytes=4000000-", "bytes=4000000-4000001,5000000-", "bytes=-0", "bytes=99999999999999999999-"]
)
def test_a_range_past_the_end_is_416_with_the_size(server: Connection, dump: str, content: bytes, field: str) -> None:
    answer = server.get(f"{dump}/vmcore", Range=field)
    assert (answer.status, answer.get("Content-Range")) == (416, f"bytes */{len(content)}")
    assert problem(answer)["type"] == "/problems/unsatisfiable"


@pytest.mark.parametrize(("count", "status"), [(1024, 206), (1025, 416)])
def test_more_than_1024_ranges_are_refused(server: Connection, dump: str, count: int, status: int) -> None:
    answer = server.get(f"{dump}/vmcore", Range="bytes=" + ",".join(f"{n % 10}-" for n in range(count)))
    assert answer.status == status


def test_overlapping_ranges_never_cost_more_than_the_file(server: Connection, dump: str, content: bytes) -> None:
    answer = server.get(f"{dump}/vmcore", Range="bytes=" + ",".join(f"{n}-" for n in range(500)))
    assert (answer.status, answer.body) == (206, content)


def test_head_has_the_fields_of_a_get_and_ignores_range(server: Connection, dump: str, content: bytes) -> None:
    got, head = server.get(f"{dump}/vmcore"), server.head(f"{dump}/vmcore", Range="bytes=0-1")
    assert (head.status, head.body, head.get("Content-Range")) == (200, b"", None)
    assert head.get("Content-Length") == str(len(content))
    for name in ("ETag", "Last-Modified", "Content-Type", "Accept-Ranges", "Cache-Control"):
        assert head.get(name) == got.get(name)
    # The connection is at a message boundary: nothing followed the head.
    assert server.get("/healthz").body == b"ok\n"


def test_one_etag_stands_for_all_resources_and_is_the_descriptions(server: Connection, dump: str) -> None:
    tags = {server.head(f"{dump}/{each}").get("ETag") for each in ("vmcore", "vmcore?normalised", "stored", "memory/physical")}
    assert tags == {json.loads(server.get(dump).body)["etag"]}


def test_conditions_decide_between_304_412_206_and_the_whole(server: Connection, dump: str, content: bytes) -> None:
    tag = server.head(f"{dump}/vmcore").get("ETag") or ""
    later = formatdate(WRITTEN + 60, usegmt=True)
    earlier = formatdate(WRITTEN - 60, usegmt=True)
    asked: list[tuple[dict[str, str], int]] = [
        ({"If-None-Match": tag}, 304),
        ({"If-None-Match": f'"other", W/{tag}'}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-None-Match": "*", "Range": "bytes=0-3"}, 304),
        ({"If-Modified-Since": LAST_MODIFIED}, 304),
        ({"If-Modified-Since": earlier}, 200),
        ({"If-Modified-Since": later, "If-None-Match": '"other"'}, 200),
        ({"If-Match": tag}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Match": f"W/{tag}"}, 412),
        ({"If-Unmodified-Since": LAST_MODIFIED}, 200),
        ({"If-Unmodified-Since": earlier}, 412),
        ({"If-Range": tag, "Range": "bytes=0-3"}, 206),
        ({"If-Range": LAST_MODIFIED, "Range": "bytes=0-3"}, 206),
        ({"If-Range": '"other"', "Range": "bytes=0-3"}, 200),
        ({"If-Range": f"W/{tag}", "Range": "bytes=0-3"}, 200),
        ({"If-Range": later, "Range": "bytes=0-3"}, 200),
    ]
    bodies = {200: content, 206: content[:4], 304: b""}
    for fields, status in asked:
        answer = server.request("GET", f"{dump}/vmcore", fields)
        assert answer.status == status, fields
        assert answer.get("ETag") == tag
        assert answer.get("Last-Modified") == LAST_MODIFIED
        if status == 412:
            assert problem(answer)["type"] == "/problems/changed"
        else:
            assert answer.body == bodies[status], fields


@pytest.mark.parametrize(
    ("start", "stop"), [(0x40000000, 0x40000001), (0x40000FFF, 0x40301001), (0x402FFFFF, 0x40300001), (0x50000000, 0x50000800)]
)
def test_physical_memory_is_read_by_address_across_segments(server: Connection, dump: str, start: int, stop: int) -> None:
    answer = server.get(f"{dump}/memory/physical", Range=f"bytes={start}-{stop - 1}")
    base = max(each for each in MEMORY if each <= start)
    assert (answer.status, answer.body) == (206, MEMORY[base][start - base : stop - base])
    assert answer.get("Content-Range") == f"bytes {start}-{stop - 1}/{END}"


@pytest.mark.parametrize(
    ("field", "address", "kind"),
    [
        (None, "0x0", "absent"),
        ("bytes=0-0", "0x0", "absent"),
        (f"bytes={0x40304FFF}-{0x40305000}", "0x40305000", "absent"),
        (f"bytes={0x50000000}-{0x50000FFF}", hex(EXCLUDED), "excluded"),
        ("bytes=-1", "0x50001fff", "excluded"),
        (f"bytes={0x40000000}-{0x40000003},{0x50001000}-{0x50001003}", "0x50001000", "excluded"),
        # Two ranges side by side: the hole between them was not asked for.
        (f"bytes={0x40304FF0}-{0x40304FFF},{0x40305001}-{0x40305001}", "0x40305001", "absent"),
    ],
)
def test_memory_that_is_not_there_is_404_with_its_address_and_kind(
    server: Connection, dump: str, field: str | None, address: str, kind: str
) -> None:
    answer = server.get(f"{dump}/memory/physical", **({"Range": field} if field else {}))
    said = problem(answer)
    assert (answer.status, said["type"], said["address"], said["kind"]) == (404, "/problems/unmapped", address, kind)
    assert (said["dump"], answer.get("Cache-Control")) == (dump.rpartition("/")[2], "no-store")


def test_zeros_for_what_is_not_there_must_be_asked_for(server: Connection, dump: str) -> None:
    target = f"{dump}/memory/physical?fill=zero"
    answer = server.get(target, Range=f"bytes={0x50000000 - 10}-{END - 1}")
    assert (answer.status, answer.body) == (206, bytes(10) + TAIL + bytes(END - EXCLUDED))
    answer = server.get(target, Range=f"bytes={0x40304FFF}-{0x40305000 + 200_000}")
    assert (answer.status, answer.body) == (206, HIGH[-1:] + bytes(200_001))
    assert server.head(target).get("Content-Length") == str(END)


@pytest.mark.parametrize("query", ["fill=one", "fill=", "fill=zero&fill=zero", "fill=Zero"])
def test_any_other_fill_is_400(server: Connection, dump: str, query: str) -> None:
    answer = server.get(f"{dump}/memory/physical?{query}", Range="bytes=0-3")
    assert (answer.status, problem(answer)["type"]) == (400, "/problems/bad-fill")


def test_two_ranges_of_memory_with_a_hole_between_them_are_two_parts(server: Connection, dump: str) -> None:
    field = f"bytes={0x40304FF0}-{0x40304FFF},{0x50000000}-{0x50000003}"
    answer = server.get(f"{dump}/memory/physical", Range=field)
    assert [body for _, body in parts_of(answer)] == [HIGH[-16:], TAIL[:4]]


def test_normalised_is_the_same_memory_with_the_program_headers_at_byte_64(server: Connection, dump: str) -> None:
    answer = server.get(f"{dump}/vmcore?normalised")
    image, end = answer.body, 64 + 56 * len(SEGMENTS)
    assert answer.status == 200
    assert image[32:40] == (64).to_bytes(8, "little")
    assert set(image[end:4096]) == {0}
    for segment in SEGMENTS[1:]:
        at = image.index(segment.content[:64], 0x1000)
        assert (at % 4096, image[at : at + len(segment.content)]) == (0, segment.content)
    for start, stop in ((0, 10), (60, 5000), (4096, 4100), (len(image) - 1, len(image))):
        part = server.get(f"{dump}/vmcore?normalised", Range=f"bytes={start}-{stop - 1}")
        assert (part.status, part.body) == (206, image[start:stop])


def test_an_incomplete_dump_serves_what_it_has(server: Connection, links: dict[str, str], folder: Path) -> None:
    content = (folder / "vmcore-cut").read_bytes()
    assert server.get(f"{links['vmcore-cut']}/vmcore").body == content
    start = 0x50000000
    answer = server.get(f"{links['vmcore-cut']}/memory/physical", Range=f"bytes={start}-{start + 0xFF}")
    assert answer.body == TAIL[:0x100]
    answer = server.get(f"{links['vmcore-cut']}/memory/physical", Range=f"bytes={start}-{start + 0x7FF}")
    assert (answer.status, problem(answer)["address"]) == (404, "0x50000100")


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("resource", ["vmcore", "stored", "memory/physical"])
def test_a_refused_dump_is_listed_with_its_reason_and_its_bytes_are_422_and_never_mapped(
    live: Live, server: Connection, links: dict[str, str], folder: Path, name: str, resource: str
) -> None:
    said = json.loads(server.get(links[name]).body)
    assert said["state"] == "refused"
    for method in ("GET", "HEAD"):
        answer = server.request(method, f"{links[name]}/{resource}", {"Range": "bytes=0-3"})
        assert answer.status == 422
        if method == "GET":
            assert problem(answer)["detail"] == said["verdict"]["policy"]["reason"]
            assert REFUSED[name][:4] not in answer.body
    server.get(f"{links['vmcore']}/vmcore", Range="bytes=0-3")
    assert f"{folder}/vmcore\n" in maps(live)
    assert f"{folder}/{name}\n" not in maps(live)


@pytest.mark.parametrize("target", ["/v1/dumps/nobody-00000000", "/v1/dumps/nobody-00000000/vmcore"])
def test_an_id_that_nobody_has_is_404(server: Connection, target: str) -> None:
    answer = server.get(target)
    said = problem(answer)
    assert (answer.status, said["type"], said["dump"]) == (404, "/problems/no-such-dump", "nobody-00000000")


def test_a_connection_goes_on_after_every_kind_of_answer(server: Connection, dump: str, content: bytes) -> None:
    for _ in range(3):
        assert server.get(f"{dump}/vmcore", Range="bytes=0-99").body == content[:100]
        assert server.get(f"{dump}/vmcore", Range="bytes=9999999999-").status == 416
        assert server.get(f"{dump}/memory/physical").status == 404
        assert server.get(f"{dump}/vmcore", If_Match='"x"').status == 412
        assert server.head(f"{dump}/vmcore").status == 200
        assert server.get(f"{dump}/vmcore", If_None_Match="*").status == 304
        assert server.get(f"{dump}/vmcore", Range="bytes=0-9, 1000-1009").status == 206
        assert server.get(f"{dump}/vmcore").body == content


def test_pipelined_requests_are_answered_in_order(server: Connection, dump: str, content: bytes) -> None:
    for n in range(20):
        server.ask("GET", f"{dump}/vmcore", {"Range": f"bytes={n}-{n + 99_999}"})
    for n in range(20):
        assert server.answer().body == content[n : n + 100_000]


@pytest.fixture(scope="module")
def real(sample: Callable[[str], Path], serve_all_along: Serve) -> Iterator[tuple[Connection, dict[str, Said]]]:
    """A server of every real dump there is, each by its own path, and what it says of them."""
    paths = [sample(name) for name in SAMPLES]
    live = serve_all_along(*paths, "--allow-arch", "any", "--rescan", "3600")
    with Connection(live.url) as connection:
        yield connection, listed(connection)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_real_dump_is_served_byte_for_byte_and_its_memory_by_address(
    real: tuple[Connection, dict[str, Said]], sample: Callable[[str], Path], name: str
) -> None:
    server, dumps = real
    content, said = sample(name).read_bytes(), json.loads(server.get(dumps[name]["links"]["self"]).body)
    assert said["state"] == "ready"
    assert server.get(said["links"]["vmcore"]).body == content
    described = [each for each in said["segments"] if each["file_size"]]
    # Of what is described twice any description would do: the bytes agree.
    for each in {each["physical_address"]: each for each in described[-20:]}.values():
        start, offset, length = int(each["physical_address"], 16), each["offset"], min(each["file_size"], 200_000)
        answer = server.get(said["links"]["physical"], Range=f"bytes={start}-{start + length - 1}")
        assert (answer.status, answer.body == content[offset : offset + length]) == (206, True)
