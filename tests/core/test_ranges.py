"""ranges.py against RFC 9110's own examples, slices of bytes, brute force over positions, and the email package."""

from __future__ import annotations

import email
from email.message import Message
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from farcore.ranges import (
    MAX_RANGES,
    PART_OVERHEAD,
    Between,
    ByteRange,
    ContentRange,
    From,
    Last,
    Multipart,
    Partial,
    Spec,
    Unsatisfiable,
    Whole,
    coalesce,
    content_range,
    multipart,
    parse,
    parse_content_range,
    resolve,
    select,
    unsatisfied,
)

# The length that RFC 9110 14.1.2's examples assume.
TEN_THOUSAND = 10_000

specs = st.one_of(
    st.tuples(st.integers(0, 300), st.integers(0, 300)).map(lambda pair: Between(min(pair), max(pair))),
    st.integers(0, 300).map(From),
    st.integers(0, 300).map(Last),
)
byte_ranges = st.tuples(st.integers(0, 600), st.integers(1, 60)).map(lambda pair: ByteRange(pair[0], pair[0] + pair[1]))


def ranges_within(size: int) -> st.SearchStrategy[list[ByteRange]]:
    position = st.integers(0, size - 1)
    return st.lists(st.builds(lambda a, b: ByteRange(min(a, b), max(a, b) + 1), position, position), min_size=1, max_size=5)


def written(spec: Spec) -> str:
    match spec:
        case Between(first, last):
            return f"{first}-{last}"
        case From(first):
            return f"{first}-"
        case Last(length):
            return f"-{length}"


def sliced(content: bytes, spec: Spec) -> bytes:
    match spec:
        case Between(first, last):
            return content[first : last + 1]
        case From(first):
            return content[first:]
        case Last(length):
            return content[-length:] if length else b""


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        # RFC 9110 14.1.2's examples, the one with a blank after "=" among them.
        ("bytes=0-499", (Between(0, 499),)),
        ("bytes=500-999", (Between(500, 999),)),
        ("bytes=-500", (Last(500),)),
        ("bytes=9500-", (From(9500),)),
        ("bytes=0-0,-1", (Between(0, 0), Last(1))),
        ("bytes= 0-999, 4500-5499, -1000", (Between(0, 999), Between(4500, 5499), Last(1000))),
        ("bytes=500-600,601-999", (Between(500, 600), Between(601, 999))),
        ("bytes=500-700,601-999", (Between(500, 700), Between(601, 999))),
        # Units are case-insensitive; a field's value is without the blanks around it.
        ("BYTES=1-2", (Between(1, 2),)),
        ("Bytes=1-2", (Between(1, 2),)),
        (" \tbytes=1-2\t ", (Between(1, 2),)),
        # Lists: blanks of both kinds, empty elements anywhere (5.6.1.2).
        ("bytes=1-2\t,\t-3", (Between(1, 2), Last(3))),
        ("bytes=,, ,1-2,,-3, ,", (Between(1, 2), Last(3))),
        ("bytes=001-0002", (Between(1, 2),)),
        ("bytes=-0", (Last(0),)),
        ("bytes=0-0", (Between(0, 0),)),
        ("bytes=18446744073709551615-", (From(2**64 - 1),)),
        ("bytes=0-99999999999999999999", (Between(0, 10**20 - 1),)),
    ],
)
def test_a_valid_header_gives_its_specs_in_order(header: str, expected: tuple[Spec, ...]) -> None:
    assert parse(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes= , ,",
        "bytes 0-1",
        "bytes:0-1",
        "bytes =0-1",
        "=0-1",
        "0-1",
        "items=0-1",
        "bytesx=0-1",
        "bytes=-",
        "bytes=--1",
        "bytes=1--2",
        "bytes=1-2-3",
        "bytes=1",
        "bytes=1-2;3-4",
        "bytes=a-b",
        "bytes=0x1-0x2",
        "bytes=+1-2",
        "bytes=1.0-2",
        "bytes=1_0-20",
        "bytes=0 -1",
        "bytes=0- 1",
        "bytes=0\xa0-1",
        "bytes=0-1\n",
        "bytes=\n0-1",
        "bytes=\u0661-\u0662",
        "bytes=\u00b2-",
        "bytes=2-1",
        "bytes=0-1,2-1",
        "bytes=0-1,x",
        "bytes=0-1,bytes=2-3",
        "bytes=10-9",
        "bytes=" + "9" * 30 + "-" + "8" * 30,
        "bytes=" + "9" * 30 + "-5",
    ],
)
def test_a_malformed_header_or_another_unit_is_ignored(header: str) -> None:
    assert parse(header) is None
    assert select(header, TEN_THOUSAND) == Whole()


def test_a_number_of_a_million_digits_is_past_every_end() -> None:
    huge = "9" * 1_000_000
    assert select(f"bytes=5-{huge}", 10) == Partial((ByteRange(5, 10),))
    assert select(f"bytes=-{huge}", 10) == Partial((ByteRange(0, 10),))
    assert select(f"bytes={huge}-{huge}", 2**64) == select(f"bytes={huge}-", 2**64)
    assert isinstance(select(f"bytes={huge}-", 2**64), Unsatisfiable)
    assert select("bytes=" + "0" * 1_000_000 + "5-7", 10) == Partial((ByteRange(5, 8),))


def test_twenty_digits_are_exact_and_one_more_is_past_every_end() -> None:
    assert parse("bytes=" + "9" * 20 + "-") == (From(10**20 - 1),)
    assert parse("bytes=1" + "2" * 20 + "-") == (From(10**20),)


@given(st.text(alphabet="bytesBYTES=-,0123456789 \t", max_size=40) | st.text(max_size=40))
def test_any_text_is_parsed_or_ignored(header: str) -> None:
    found = parse(header)
    assert found is None or len(found) > 0


@given(st.lists(specs, min_size=1, max_size=8), st.sampled_from([",", ", ", " ,\t", ",,", " , , "]))
def test_what_is_written_is_parsed(wanted: list[Spec], comma: str) -> None:
    assert parse("bytes=" + comma.join(map(written, wanted))) == tuple(wanted)


@given(st.lists(specs, max_size=8), st.integers(0, 256))
@example([Last(0)], 10)
@example([Last(11)], 10)
@example([From(9), From(10), Between(9, 9), Between(10, 10)], 10)
@example([From(0), Last(1), Between(0, 0)], 0)
def test_resolved_ranges_are_the_slices_that_are_not_empty(wanted: list[Spec], size: int) -> None:
    content = bytes(range(size))  # no two bytes are alike, so a slice tells its position
    expected = [sliced(content, spec) for spec in wanted if sliced(content, spec)]
    assert [content[start:stop] for start, stop in resolve(wanted, size)] == expected
    assert all(0 <= start < stop <= size for start, stop in resolve(wanted, size))


def test_a_suffix_longer_than_the_file_is_the_whole_file() -> None:
    assert resolve((Last(11),), 10) == (ByteRange(0, 10),)


def grouped(ranges: list[ByteRange], gap: int) -> list[set[int]]:
    """By brute force: which ranges belong together, as sets of their places; the sets in order of their first member."""
    groups = [{place} for place in range(len(ranges))]
    for one, other in combinations(range(len(ranges)), 2):
        (a, b), (c, d) = ranges[one], ranges[other]
        if min(abs(x - y) for x in range(a, b) for y in range(c, d)) - 1 < gap:
            left, right = (next(group for group in groups if place in group) for place in (one, other))
            if left is not right:
                groups.remove(right)
                left |= right
    return sorted(groups, key=min)


@given(st.lists(byte_ranges, max_size=6), st.sampled_from([0, 1, 2, 10, PART_OVERHEAD]))
def test_ranges_nearer_than_the_gap_merge_and_keep_their_order(ranges: list[ByteRange], gap: int) -> None:
    expected = [
        (min(ranges[place].start for place in group), max(ranges[place].stop for place in group))
        for group in grouped(ranges, gap)
    ]
    assert list(coalesce(ranges, gap)) == expected


def test_a_gap_of_a_parts_overhead_stays_and_one_byte_less_goes() -> None:
    near, far = ByteRange(0, 10), ByteRange(10 + PART_OVERHEAD, 200)
    assert coalesce([near, far]) == (near, far)
    assert coalesce([near, ByteRange(far.start - 1, 200)]) == (ByteRange(0, 200),)


def test_a_gap_of_one_merges_without_a_byte_that_was_not_asked_for() -> None:
    assert select("bytes=0-9,10-19,15-20", 100, gap=1) == Partial((ByteRange(0, 21),))
    assert select("bytes=0-9,11-20", 100, gap=1) == Partial((ByteRange(0, 10), ByteRange(11, 21)))


@given(st.lists(specs, min_size=1, max_size=8), st.integers(0, 256))
def test_an_answer_covers_what_was_asked_for_once_and_only_small_gaps_more(wanted: list[Spec], size: int) -> None:
    content = bytes(range(size))
    asked = {byte for spec in wanted for byte in sliced(content, spec)}
    answer = select("bytes=" + ",".join(map(written, wanted)), size)
    if isinstance(answer, Partial):
        sent = [byte for start, stop in answer.ranges for byte in content[start:stop]]
        assert len(set(sent)) == len(sent)
        assert set(sent) >= asked > set()
        assert all(min(abs(byte - other) for other in asked) < PART_OVERHEAD for byte in sent)
    else:
        assert not asked


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        (None, 10, Whole()),
        (None, 0, Whole()),
        ("bytes=0-", 10, Partial((ByteRange(0, 10),))),
        ("bytes=0-0", 1, Partial((ByteRange(0, 1),))),
        ("bytes=9-99", 10, Partial((ByteRange(9, 10),))),
        # One satisfiable range suffices, and the others are left out.
        ("bytes=10-,-0,3-4", 10, Partial((ByteRange(3, 5),))),
        # The order is the request's; what merged stands where its first member stood.
        ("bytes=5000-5009,0-9,-10", TEN_THOUSAND, Partial((ByteRange(5000, 5010), ByteRange(0, 10), ByteRange(9990, 10000)))),
        ("bytes=5000-5009,0-9,5005-5020", TEN_THOUSAND, Partial((ByteRange(5000, 5021), ByteRange(0, 10)))),
        ("bytes=500-700,601-999", TEN_THOUSAND, Partial((ByteRange(500, 1000),))),
        # A suffix of an empty file is satisfiable, but no Content-Range can say so (14.1.2).
        ("bytes=-1", 0, Whole()),
        ("bytes=0-,-1", 0, Whole()),
    ],
)
def test_select_answers(header: str | None, size: int, expected: Whole | Partial) -> None:
    assert select(header, size) == expected


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=10-", 10), ("bytes=10-11,20-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=0-0", 0), ("bytes=-0", 0)],
)
def test_a_valid_header_that_holds_no_byte_is_unsatisfiable(header: str, size: int) -> None:
    answer = select(header, size)
    assert isinstance(answer, Unsatisfiable)
    assert f"{size:,} bytes" in answer.detail


def test_the_most_ranges_are_served_and_one_more_is_rejected() -> None:
    most = [f"{place * 1000}-{place * 1000 + 9}" for place in range(MAX_RANGES)]
    answer = select("bytes=" + ",".join(most), 10**9)
    assert isinstance(answer, Partial)
    assert len(answer.ranges) == MAX_RANGES
    rejected = select("bytes=" + ",".join([*most, "-1"]), 10**9)
    assert isinstance(rejected, Unsatisfiable)
    assert "1,024" in rejected.detail


def test_empty_list_elements_are_not_counted() -> None:
    assert select("bytes=" + "," * 10 * MAX_RANGES + "0-9", 100) == Partial((ByteRange(0, 10),))


def test_the_whole_file_asked_for_a_thousand_times_is_sent_once() -> None:
    assert select("bytes=" + ",".join(["0-"] * MAX_RANGES), 10**12) == Partial((ByteRange(0, 10**12),))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes 0-499/1234", ContentRange(ByteRange(0, 500), 1234)),
        ("bytes 734-1233/1234", ContentRange(ByteRange(734, 1234), 1234)),
        ("Bytes 42-1233/*", ContentRange(ByteRange(42, 1234), None)),
        ("bytes */1234", ContentRange(None, 1234)),
        ("bytes */0", ContentRange(None, 0)),
        (" bytes 0-0/1\t", ContentRange(ByteRange(0, 1), 1)),
        ("bytes 0-18446744073709551614/18446744073709551615", ContentRange(ByteRange(0, 2**64 - 1), 2**64 - 1)),
        # Invalid by 14.4: the last position before the first, or not below the size.
        ("bytes 5-4/10", None),
        ("bytes 5-10/10", None),
        ("bytes 0-0/0", None),
        ("bytes */*", None),
        ("bytes 0-499", None),
        ("bytes 0-/10", None),
        ("bytes -5/10", None),
        ("bytes=0-4/10", None),
        ("bytes  0-4/10", None),
        ("bytes 0 - 4/10", None),
        ("items 0-4/10", None),
        ("bytes 0-4/10\n", None),
        ("bytes \u0660-\u0664/10", None),
        ("bytes 0-4/" + "9" * 21, None),
        ("bytes 0-4/" + "9" * 1_000_000, None),
        ("", None),
    ],
)
def test_content_range_is_read_or_refused(header: str, expected: ContentRange | None) -> None:
    assert parse_content_range(header) == expected


def test_content_range_is_written_as_the_rfc_has_it() -> None:
    assert content_range(ByteRange(42, 1234), 1234) == "bytes 42-1233/1234"
    assert unsatisfied(1234) == "bytes */1234"


def body_of(plan: Multipart, content: bytes, ranges: list[ByteRange]) -> bytes:
    parts = (head + content[start:stop] for head, (start, stop) in zip(plan.heads, ranges, strict=True))
    return b"".join(parts) + plan.tail


def test_a_multipart_body_looks_as_in_the_rfc() -> None:
    plan = multipart([ByteRange(500, 1000), ByteRange(7000, 8000)], 8000, "application/pdf", "THIS_STRING_SEPARATES")
    assert plan.content_type == "multipart/byteranges; boundary=THIS_STRING_SEPARATES"
    assert plan.heads == (
        b"--THIS_STRING_SEPARATES\r\nContent-Type: application/pdf\r\nContent-Range: bytes 500-999/8000\r\n\r\n",
        b"\r\n--THIS_STRING_SEPARATES\r\nContent-Type: application/pdf\r\nContent-Range: bytes 7000-7999/8000\r\n\r\n",
    )
    assert plan.tail == b"\r\n--THIS_STRING_SEPARATES--\r\n"


@given(st.binary(min_size=1, max_size=300).flatmap(lambda content: st.tuples(st.just(content), ranges_within(len(content)))))
@example((b"\r\n--", [ByteRange(0, 4)]))
@example((b"\n\r", [ByteRange(0, 2), ByteRange(1, 2)]))
def test_the_email_package_reads_a_multipart_body_back(drawn: tuple[bytes, list[ByteRange]]) -> None:
    content, ranges = drawn
    plan = multipart(ranges, len(content), "application/octet-stream", "0123456789abcdef0123456789abcdef")
    body = body_of(plan, content, ranges)
    assert plan.length == len(body)
    message = email.message_from_bytes(f"Content-Type: {plan.content_type}\r\n\r\n".encode() + body)
    assert not message.defects
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert len(parts) == len(ranges)
    for part, (start, stop) in zip(parts, ranges, strict=True):
        assert isinstance(part, Message)
        assert part["Content-Type"] == "application/octet-stream"
        assert part["Content-Range"] == f"bytes {start}-{stop - 1}/{len(content)}"
        assert part.get_payload(decode=True) == content[start:stop]


def test_the_smallest_part_costs_at_least_the_overhead_that_a_gap_is_weighed_against() -> None:
    plan = multipart([ByteRange(0, 1), ByteRange(8, 9)], 9, "application/octet-stream", "0123456789abcdef")
    assert len(plan.heads[1]) >= PART_OVERHEAD
