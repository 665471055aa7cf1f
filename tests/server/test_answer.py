"""What a GET or HEAD is told: a table from RFC 9110, and bodies against slices and the email package."""

from __future__ import annotations

import email
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore.ranges import MAX_RANGES
from farcore_server.answer import Answer, Representation, answer

CONTENT = bytes(range(256)) * 3 + b"the last 232 bytes" * 12 + bytes(16)
SIZE = len(CONTENT)
ETAG = '"0123456789abcdef"'
MODIFIED = 784111777
SAME = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"
DUMP = Representation(SIZE, ETAG, MODIFIED)
BOUNDARY = "0123456789abcdef0123456789abcdef"


def ask(method: str = "GET", wanted: Representation = DUMP, /, **fields: str) -> Answer:
    """The answer to a request with these fields."""
    return answer(method, {name.replace("_", "-"): value for name, value in fields.items()}, wanted, BOUNDARY)


def body(told: Answer, content: bytes = CONTENT) -> bytes:
    """What its parts and its tail make."""
    return b"".join(head + content[start:stop] for head, start, stop in told.parts) + told.tail


GETS = [
    # fields, status, Content-Range, the body as a slice
    ({}, 200, None, slice(None)),
    ({"Range": "bytes=0-9"}, 206, f"bytes 0-9/{SIZE}", slice(0, 10)),
    ({"Range": "bytes=990-"}, 206, f"bytes 990-{SIZE - 1}/{SIZE}", slice(990, None)),
    ({"Range": "bytes=-10"}, 206, f"bytes {SIZE - 10}-{SIZE - 1}/{SIZE}", slice(-10, None)),
    ({"Range": f"bytes=-{SIZE + 9}"}, 206, f"bytes 0-{SIZE - 1}/{SIZE}", slice(None)),
    ({"Range": "bytes=0-99999"}, 206, f"bytes 0-{SIZE - 1}/{SIZE}", slice(None)),
    ({"Range": "bytes=5-5"}, 206, f"bytes 5-5/{SIZE}", slice(5, 6)),
    ({"Range": "bytes=0-9,5-20,50-60"}, 206, f"bytes 0-60/{SIZE}", slice(0, 61)),
    ({"Range": "bytes=0-9,99999-"}, 206, f"bytes 0-9/{SIZE}", slice(0, 10)),
    # Ignored (14.2): another unit, a malformed field.
    ({"Range": "pages=0-9"}, 200, None, slice(None)),
    ({"Range": "bytes=9-0"}, 200, None, slice(None)),
    ({"Range": "bytes"}, 200, None, slice(None)),
    # 13.1.5: the range counts only if the version is the one that the client has a part of.
    ({"Range": "bytes=0-9", "If_Range": ETAG}, 206, f"bytes 0-9/{SIZE}", slice(0, 10)),
    ({"Range": "bytes=0-9", "If_Range": '"stale"'}, 200, None, slice(None)),
    ({"Range": "bytes=0-9", "If_Range": f"W/{ETAG}"}, 200, None, slice(None)),
    ({"Range": "bytes=0-9", "If_Range": SAME}, 206, f"bytes 0-9/{SIZE}", slice(0, 10)),
    ({"Range": "bytes=0-9", "If_Range": BEFORE}, 200, None, slice(None)),
    ({"Range": "bytes=99999-", "If_Range": '"stale"'}, 200, None, slice(None)),
    ({"If_Range": '"stale"'}, 200, None, slice(None)),
    # Conditions that hold.
    ({"If_Match": ETAG, "Range": "bytes=0-9"}, 206, f"bytes 0-9/{SIZE}", slice(0, 10)),
    ({"If_Match": "*"}, 200, None, slice(None)),
    ({"If_None_Match": '"stale"'}, 200, None, slice(None)),
    ({"If_Modified_Since": BEFORE}, 200, None, slice(None)),
    ({"If_Unmodified_Since": SAME}, 200, None, slice(None)),
]


@pytest.mark.parametrize(("fields", "status", "content_range", "part"), GETS)
def test_a_get_is_told_the_whole_or_the_range_that_counts(
    fields: dict[str, str], status: int, content_range: str | None, part: slice
) -> None:
    told = ask(**fields)
    assert (told.status, told.headers.get("Content-Range"), told.detail) == (status, content_range, "")
    assert told.headers["Content-Type"] == "application/octet-stream"
    assert body(told) == CONTENT[part]
    assert told.length == len(CONTENT[part])


@pytest.mark.parametrize(("fields", "status", "content_range", "part"), GETS)
def test_a_head_is_told_the_whole_whatever_range_it_names(
    fields: dict[str, str], status: int, content_range: str | None, part: slice
) -> None:
    told = ask("HEAD", **fields)
    assert (told.status, told.headers.get("Content-Range"), told.length) == (200, None, SIZE)
    assert told.headers == ask("GET").headers


NOT_MODIFIED = [
    {"If_None_Match": ETAG},
    {"If_None_Match": f"W/{ETAG}"},
    {"If_None_Match": f'"x", {ETAG}'},
    {"If_None_Match": "*"},
    {"If_Modified_Since": SAME},
    {"If_Modified_Since": AFTER},
    {"If_None_Match": ETAG, "If_Modified_Since": BEFORE},
    {"If_None_Match": ETAG, "Range": "bytes=0-9"},
    {"If_None_Match": ETAG, "Range": "bytes=99999-"},
]
FAILED = [
    ({"If_Match": '"stale"'}, "If-Match"),
    ({"If_Match": f"W/{ETAG}"}, "If-Match"),
    ({"If_Match": '"stale"', "If_None_Match": ETAG}, "If-Match"),
    ({"If_Match": '"stale"', "Range": "bytes=0-9"}, "If-Match"),
    ({"If_Unmodified_Since": BEFORE}, "If-Unmodified-Since"),
]


@pytest.mark.parametrize("fields", NOT_MODIFIED)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_the_client_has_already_is_not_sent_again(method: str, fields: dict[str, str]) -> None:
    told = ask(method, **fields)
    assert (told.status, told.parts, told.tail, told.length) == (304, (), b"", 0)
    # 15.4.5: the fields that a 200 would have had, and none about the content.
    assert dict(told.headers) == {
        "ETag": ETAG,
        "Last-Modified": SAME,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
    }


@pytest.mark.parametrize(("fields", "name"), FAILED)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_condition_that_fails_is_named_with_the_tag_there_is(method: str, fields: dict[str, str], name: str) -> None:
    told = ask(method, **fields)
    assert (told.status, told.parts, told.length) == (412, (), 0)
    assert told.detail.startswith(f"{name} does not hold")
    assert ETAG in told.detail
    assert told.headers["ETag"] == ETAG


@pytest.mark.parametrize("field", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0", "bytes=5000-,6000-"])
def test_a_range_with_nothing_in_it_is_unsatisfiable(field: str) -> None:
    told = ask(Range=field)
    assert (told.status, told.parts, told.length) == (416, (), 0)
    assert told.headers["Content-Range"] == f"bytes */{SIZE}"
    assert f"{SIZE:,}" in told.detail


@pytest.mark.parametrize(("count", "status"), [(MAX_RANGES, 206), (MAX_RANGES + 1, 416)])
def test_ranges_are_answered_up_to_their_limit(count: int, status: int) -> None:
    wanted = Representation(1 << 30, ETAG, MODIFIED)
    told = ask("GET", wanted, Range="bytes=" + ",".join(f"{n * 1000}-{n * 1000}" for n in range(count)))
    assert (told.status, len(told.parts)) == (status, count if status == 206 else 0)


@pytest.mark.parametrize(
    ("field", "status", "length"), [("bytes=0-", 416, 0), ("bytes=-1", 200, 0), ("bytes=0-0", 416, 0), (None, 200, 0)]
)
def test_of_no_bytes_there_is_a_whole_and_no_part(field: str | None, status: int, length: int) -> None:
    told = ask("GET", Representation(0, ETAG, MODIFIED), **({} if field is None else {"Range": field}))
    assert (told.status, told.length, told.parts) == (status, length, ())
    assert told.headers.get("Content-Range") == ("bytes */0" if status == 416 else None)


def test_of_one_byte_there_is_a_whole_and_a_part() -> None:
    wanted = Representation(1, ETAG, MODIFIED)
    for fields, status in (({}, 200), ({"Range": "bytes=0-0"}, 206), ({"Range": "bytes=-5"}, 206)):
        told = ask("GET", wanted, **fields)
        assert (told.status, told.length, body(told, b"x")) == (status, 1, b"x")


@pytest.mark.parametrize(
    "fields", [{}, {"Range": "bytes=0-9"}, {"Range": "bytes=0-1,500-501"}, {"Range": "bytes=5000-"}, {"If_Match": '"x"'}]
)
@pytest.mark.parametrize("modified", [None, 0, MODIFIED])
def test_every_answer_has_the_validators(fields: dict[str, str], modified: int | None) -> None:
    headers = ask("GET", Representation(SIZE, ETAG, modified), **fields).headers
    assert (headers["ETag"], headers["Accept-Ranges"], headers["Cache-Control"]) == (ETAG, "bytes", "private, no-cache")
    assert headers.get("Last-Modified") == (None if modified is None else formatdate(modified, usegmt=True))


def test_without_a_last_modified_no_date_counts() -> None:
    wanted = Representation(SIZE, ETAG, None)
    assert ask("GET", wanted, If_Modified_Since=AFTER).status == 200
    assert ask("GET", wanted, If_Unmodified_Since=BEFORE).status == 200
    assert ask("GET", wanted, Range="bytes=0-9", If_Range=SAME).status == 200


@pytest.mark.parametrize(("gap", "parts"), [(1, [(0, 20), (21, 30)]), (2, [(0, 30)]), (80, [(0, 30)])])
def test_no_byte_between_two_ranges_is_sent_where_gaps_are_holes(gap: int, parts: list[tuple[int, int]]) -> None:
    told = ask("GET", Representation(SIZE, ETAG, MODIFIED, gap), Range="bytes=0-9,21-29,10-19")
    assert [(part.start, part.stop) for part in told.parts] == parts


bounds = st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE + 50)).map(sorted)


@given(st.lists(bounds, min_size=1, max_size=12), st.sampled_from((1, 80)))
def test_a_multipart_body_is_as_long_as_it_says_and_holds_every_byte_asked_for(asked: list[list[int]], gap: int) -> None:
    wanted = Representation(SIZE, ETAG, MODIFIED, gap)
    told = ask("GET", wanted, Range="bytes=" + ", ".join(f"{first}-{last}" for first, last in asked))
    found = body(told)
    assert told.length == len(found)
    got: set[int] = set()
    for head, content in parts_of(told, found):
        first, last = (int(edge) for edge in head.removeprefix("bytes ").removesuffix(f"/{SIZE}").split("-"))
        assert content == CONTENT[first : last + 1]
        assert not got & set(range(first, last + 1))
        got |= set(range(first, last + 1))
    needed = {at for first, last in asked for at in range(first, min(last + 1, SIZE))}
    assert got == needed if gap == 1 else got >= needed


def parts_of(told: Answer, found: bytes) -> list[tuple[str, bytes]]:
    """(Content-Range, content) of each part of a 206, by the email package where there are several."""
    assert told.status == 206
    if "Content-Range" in told.headers:
        return [(told.headers["Content-Range"], found)]
    kind = told.headers["Content-Type"]
    assert kind == f"multipart/byteranges; boundary={BOUNDARY}"
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + found)
    assert message.defects == []
    found_parts = [part for part in message.walk() if not part.is_multipart()]
    assert {part.get_content_type() for part in found_parts} == {"application/octet-stream"}
    return [(part["Content-Range"], bytes(part.get_payload(decode=True))) for part in found_parts]
