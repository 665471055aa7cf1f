"""What of a request and of an answer makes a grant: on bytes written by hand, and on some that Hypothesis builds."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from farcore import layout
from farcore.layout import Layout
from farcore.runs import Runs
from farcore_server.body import PIECE
from farcore_server.grant import Grant, split, template

SIZE = 1 << 40
HEAD = b"GET /v1/dumps/x/vmcore HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer t\r\nRange: bytes="
END = b"\r\nAccept: */*\r\n\r\n"


def grant(prefix: bytes = HEAD, suffix: bytes = END, size: int = SIZE) -> Grant:
    """One that lacks all that wanted() has no use for."""
    return over(layout.stored(size), prefix, suffix)


def over(layout: Layout, prefix: bytes = HEAD, suffix: bytes = END) -> Grant:
    """The same of another layout."""
    fields: dict[str, Any] = {field.name: None for field in dataclasses.fields(Grant) if field.init}
    return Grant(**fields | {"prefix": prefix, "suffix": suffix, "layout": layout})


def wanted(chunk: bytes, by: Grant | None = None) -> tuple[int, int] | None:
    """The [start, stop) that a chunk asks for, its digits being those of the answer."""
    (found,) = (by or grant()).wanted([chunk])
    if found is None:
        return None
    offset, length, digits = found
    assert digits == b"%d-%d" % (offset, offset + length - 1)
    return offset, offset + length


@pytest.mark.parametrize(
    ("digits", "span"),
    [
        (b"0-0", (0, 1)),
        (b"5-9", (5, 10)),
        (b"%d-%d" % (SIZE - 1, SIZE - 1), (SIZE - 1, SIZE)),
        (b"0-%d" % (PIECE - 1), (0, PIECE)),
        # More than is sent at once, or with zeros that the answer has not.
        (b"0-%d" % PIECE, None),
        (b"0007-9", None),
        (b"7-000009", None),
        (b"00-9", None),
        # Not all there, backwards, or of more digits than any dump has bytes.
        (b"0-%d" % SIZE, None),
        (b"%d-%d" % (SIZE, SIZE), None),
        (b"9-8", None),
        (b"0-%020d" % 1, None),
        (b"%020d-1" % 0, None),
        (b"0-" + b"9" * 100_000, None),
        # Not digits.
        (b"", None),
        (b"-", None),
        (b"5", None),
        (b"5-", None),
        (b"-5", None),
        (b"0-5-", None),
        (b"0--5", None),
        (b"+0-5", None),
        (b"0-+5", None),
        (b"0 -5", None),
        (b"0- 5", None),
        (b"0-5 ", None),
        (b"1_0-2_0", None),
        (b"0x0-0x5", None),
        ("٠-٥".encode(), None),
        ("0-²".encode(), None),
        (b"\xb2-\xb3", None),
        (b"0-5,7-9", None),
        (b"0-5\r\nRange: bytes=7-9", None),
        (b"0-5\0", None),
    ],
)
def test_digits_are_ascii_and_name_bytes_that_are_there(digits: bytes, span: tuple[int, int] | None) -> None:
    assert wanted(HEAD + digits + END) == span


@given(st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, PIECE)), max_size=5))
def test_every_range_inside_is_found_among_others(spans: list[tuple[int, int]]) -> None:
    ranges = [(start, min(SIZE, start + length)) for start, length in spans]
    chunks = [HEAD + b"%d-%d" % (start, stop - 1) + END for start, stop in ranges]
    mixed = [each for chunk in chunks for each in (chunk, b"x" + chunk)]
    found = list(grant().wanted(mixed))
    assert found[1::2] == [None] * len(ranges)
    assert [(each[0], each[0] + each[1]) for each in found[::2] if each is not None] == ranges


@given(st.permutations([(0, 10), (5, 100), (100, 200), (150, 151), (199, 200), (200, 201), (150, 250), (1000, 1001)]))
def test_a_range_lies_where_its_run_does_whatever_was_asked_before(spans: list[tuple[int, int]]) -> None:
    # Positions 0-99 lie at 5000, 100-199 at 0; there is nothing from 200 on.
    start, stop, offset = (np.array(column, np.uint64) for column in ([0, 100], [100, 200], [5000, 0]))
    by = over(Layout("physical", 2000, Runs(start, stop, offset, np.zeros(2, np.uint8))))
    for first, last in spans:
        (found,) = by.wanted([HEAD + b"%d-%d" % (first, last - 1) + END])
        inside = last <= 100 or (first >= 100 and last <= 200)
        where = first + 5000 if first < 100 else first - 100
        assert found == ((where, last - first, b"%d-%d" % (first, last - 1)) if inside else None)


@given(st.integers(0, 10**6), st.data())
def test_one_other_byte_anywhere_and_it_is_another_request(first: int, data: st.DataObject) -> None:
    chunk = bytearray(HEAD + b"%d-%d" % (first, first + 9) + END)
    at = data.draw(st.integers(0, len(HEAD) - 1) | st.integers(len(chunk) - len(END), len(chunk) - 1))
    chunk[at] ^= data.draw(st.integers(1, 255))
    assert wanted(bytes(chunk)) is None


@given(st.integers(0, 10**6), st.data())
def test_a_piece_of_a_request_or_more_than_one_is_none(first: int, data: st.DataObject) -> None:
    chunk = HEAD + b"%d-%d" % (first, first + 9) + END
    start = data.draw(st.integers(0, len(chunk)))
    stop = data.draw(st.integers(start, len(chunk)))
    if (start, stop) != (0, len(chunk)):
        assert wanted(chunk[start:stop]) is None
    for more in (chunk, chunk[start:stop] or b"\n", b"\r\n"):
        assert wanted(chunk + more) is None
        assert wanted(more + chunk) is None


@given(st.binary(min_size=1, max_size=12), st.binary(min_size=1, max_size=12), st.binary(max_size=30))
@example(b"bytes=1", b"1\r\n", b"bytes=1\r\n")
def test_prefix_and_suffix_never_share_a_byte(prefix: bytes, suffix: bytes, chunk: bytes) -> None:
    found = wanted(chunk, grant(prefix, suffix))
    assert found is None or len(chunk) >= len(prefix) + len(b"0-0") + len(suffix)


@pytest.mark.parametrize(
    ("chunk", "halves"),
    [
        (HEAD + b"5-9" + END, (HEAD, END)),
        (HEAD + b"05-0009" + END, (HEAD, END)),
        (b"GET / HTTP/1.1\r\nrANGE:bytes=5-9\r\n\r\n", (b"GET / HTTP/1.1\r\nrANGE:bytes=", b"\r\n\r\n")),
        (b"GET / HTTP/1.1\r\nRange: \t bytes=5-9\t\r\n\r\n", (b"GET / HTTP/1.1\r\nRange: \t bytes=", b"\t\r\n\r\n")),
    ],
)
def test_a_plain_request_is_split_around_its_digits(chunk: bytes, halves: tuple[bytes, bytes]) -> None:
    assert split(chunk) == halves


@pytest.mark.parametrize(
    "chunk",
    [
        b"",
        b"\r\n\r\n",
        HEAD + b"5-9",
        HEAD + b"5-9" + END[:-2],
        HEAD + b"5-9" + END + b"x",
        HEAD + b"5-9" + END + HEAD + b"5-9" + END,
        b"\r\n" + HEAD + b"5-9" + END,
        HEAD.replace(b"GET", b"HEAD") + b"5-9" + END,
        HEAD.replace(b"GET", b"POST") + b"5-9" + END,
        HEAD.replace(b"GET", b"get") + b"5-9" + END,
        HEAD.replace(b"\r\n", b"\n") + b"5-9" + END.replace(b"\r\n", b"\n"),
        # Anything but two numbers, or more than one field of that name.
        HEAD + b"5-" + END,
        HEAD + b"-9" + END,
        HEAD + b"5-9,11-12" + END,
        HEAD + b"5-9 x" + END,
        HEAD + b"5-" + b"9" * 20 + END,
        HEAD.replace(b"bytes", b"lines") + b"5-9" + END,
        HEAD.replace(b"Range", b"If-Range") + b"5-9" + END,
        HEAD.replace(b"Range", b"X-Range") + b"5-9" + END,
        HEAD + b"5-9\r\nRange: bytes=7-8" + END,
        HEAD + b"5-9\r\nRANGE: lines=7-8" + END,
        HEAD + b"5-9\r\nRange : bytes=7-8" + END,
        b"GET /?\r\nHost: x\r\n\r\n",
    ],
)
def test_whatever_is_not_one_plain_request_is_none(chunk: bytes) -> None:
    assert split(chunk) is None


@given(
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=30),
    st.integers(0, 10**18),
    st.integers(1, PIECE),
)
def test_what_was_split_is_wanted_again(value: str, first: int, length: int) -> None:
    chunk = HEAD + b"%d-%d\r\nX: " % (first, first + length - 1) + value.encode("latin-1") + END
    halves = split(chunk)
    assert halves is not None
    assert wanted(chunk, grant(*halves, size=1 << 62)) == (first, first + length)


HEADERS = {
    "ETag": '"a%d%%b"',
    "Accept-Ranges": "bytes",
    "Content-Range": "bytes 0-9/1000",
    "Content-Length": "10",
    "Date": "Thu, 01 Jan 1970 00:00:00 GMT",
    "Server": "farcore/1 (100%)",
}


def test_a_template_is_the_answers_head_with_three_gaps_and_percent_signs_mean_nothing() -> None:
    head = template("HTTP/1.1 206 Partial Content", HEADERS, 1000)
    assert head is not None
    before, after = head
    assert before + b"7-8" + after % (2, b"today") == (
        b"HTTP/1.1 206 Partial Content\r\n"
        b'ETag: "a%d%%b"\r\n'
        b"Accept-Ranges: bytes\r\n"
        b"Content-Range: bytes 7-8/1000\r\n"
        b"Content-Length: 2\r\n"
        b"Date: today\r\n"
        b"Server: farcore/1 (100%)\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize("missing", ["Content-Range", "Content-Length", "Date"])
def test_a_head_without_one_of_the_gaps_is_no_template(missing: str) -> None:
    assert template("HTTP/1.1 206 Partial Content", {k: v for k, v in HEADERS.items() if k != missing}, 1000) is None


def test_a_head_whose_gaps_stand_in_another_order_is_no_template() -> None:
    assert template("HTTP/1.1 206 Partial Content", dict(reversed(HEADERS.items())), 1000) is None
