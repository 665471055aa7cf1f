"""conditions.py against tables taken from RFC 9110 sections 5.6.7, 8.8 and 13."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from farcore_server.conditions import NotModified, Outcome, PreconditionFailed, Proceed, evaluate

# RFC 9110 5.6.7's date in its three forms.
MODIFIED = 784111777
IMF = "Sun, 06 Nov 1994 08:49:37 GMT"
RFC850 = "Sunday, 06-Nov-94 08:49:37 GMT"
ASCTIME = "Sun Nov  6 08:49:37 1994"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"

NOW = 1_700_000_000  # 14 Nov 2023 22:13:20
ETAG = '"5f-a,b"'

GO, WHOLE = Proceed(ranged=True), Proceed(ranged=False)


def ask(method: str = "GET", *, modified: int | None = MODIFIED, now: int = NOW, **fields: str) -> Outcome:
    return evaluate(method, {name.replace("_", "-"): value for name, value in fields.items()}, ETAG, modified, now)


# A list, whether the strong comparison finds the tag in it, and whether the weak one does (8.8.3.2, 5.6.1).
TAGS = [
    (ETAG, True, True),
    (f"  {ETAG}\t", True, True),
    (f"W/{ETAG}", False, True),
    (f'"x", {ETAG}', True, True),
    (f'"x",{ETAG},W/"y"', True, True),
    (f',, {ETAG} ,, "x",', True, True),
    (f'W/"x" , W/{ETAG}', False, True),
    ("*", True, True),
    (" *\t", True, True),
    (f'"with space", "back\\", "\xe4\udce4", "", {ETAG}', True, True),
    ('""', False, False),
    ('"5f-a"', False, False),
    ('"5f-a","b"', False, False),
    ('"5F-A,B"', False, False),
    ("5f-a,b", False, False),
    # Not lists of entity tags; they hold nothing.
    ("", False, False),
    (",", False, False),
    (f"*, {ETAG}", False, False),
    (f'{ETAG} "x"', False, False),
    (f'{ETAG}"x"', False, False),
    (f"x{ETAG}", False, False),
    (f"x, {ETAG}", False, False),
    (f"w/{ETAG}", False, False),
    (f"W/ {ETAG}", False, False),
    (f"W/W/{ETAG}", False, False),
    (f'{ETAG}, "open', False, False),
    (f'"open, {ETAG}', False, False),
    (f"{ETAG}, W/", False, False),
]


@pytest.mark.parametrize(("field", "strong", "_weak"), TAGS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
def test_if_match_compares_strongly(method: str, field: str, strong: bool, _weak: bool) -> None:
    assert ask(method, If_Match=field) == (WHOLE if strong else PreconditionFailed("If-Match"))


@pytest.mark.parametrize(("field", "_strong", "weak"), TAGS)
def test_if_none_match_compares_weakly(field: str, _strong: bool, weak: bool) -> None:
    assert ask("GET", If_None_Match=field) == (NotModified() if weak else WHOLE)
    assert ask("HEAD", If_None_Match=field) == (NotModified() if weak else WHOLE)
    assert ask("PUT", If_None_Match=field) == (PreconditionFailed("If-None-Match") if weak else WHOLE)


@pytest.mark.parametrize(
    ("field", "ranged"),
    [
        (ETAG, True),
        (f" {ETAG} ", True),
        (f"W/{ETAG}", False),
        ('"stale"', False),
        (f"{ETAG}, {ETAG}", False),
        (f'{ETAG}, "x"', False),
        ("*", False),
        ("", False),
        ("5f-a,b", False),
        (IMF, True),
        (RFC850, True),
        (ASCTIME, True),
        # Exact match, neither earlier nor later (13.1.5).
        (BEFORE, False),
        (AFTER, False),
        ("yesterday", False),
    ],
)
def test_if_range_decides_whether_the_range_counts(field: str, ranged: bool) -> None:
    assert ask(Range="bytes=0-1", If_Range=field) == Proceed(ranged)


@pytest.mark.parametrize(("now", "ranged"), [(MODIFIED - 1, False), (MODIFIED, False), (MODIFIED + 1, True)])
def test_if_range_takes_a_date_once_its_second_is_over(now: int, ranged: bool) -> None:
    assert ask(Range="bytes=0-1", If_Range=IMF, now=now) == Proceed(ranged)


def test_if_range_with_a_date_fails_where_there_is_no_last_modified() -> None:
    assert ask(Range="bytes=0-1", If_Range=IMF, modified=None) == WHOLE
    assert ask(Range="bytes=0-1", If_Range=ETAG, modified=None) == GO


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "get"])
def test_range_counts_for_get_alone(method: str) -> None:
    assert ask(method, Range="bytes=0-1") == WHOLE
    assert ask(method, Range="bytes=0-1", If_Range=ETAG) == WHOLE
    assert ask("GET", Range="bytes=0-1") == GO


def test_if_range_without_range_is_ignored() -> None:
    assert ask(If_Range=ETAG) == WHOLE
    assert ask(If_Range='"stale"') == WHOLE


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_if_unmodified_since_fails_only_for_an_earlier_date(method: str) -> None:
    assert ask(method, If_Unmodified_Since=BEFORE) == PreconditionFailed("If-Unmodified-Since")
    assert ask(method, If_Unmodified_Since=IMF) == WHOLE
    assert ask(method, If_Unmodified_Since=AFTER) == WHOLE


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_modified_since_spares_the_transfer_unless_the_date_is_earlier(method: str) -> None:
    assert ask(method, If_Modified_Since=BEFORE) == WHOLE
    assert ask(method, If_Modified_Since=IMF) == NotModified()
    assert ask(method, If_Modified_Since=AFTER) == NotModified()


def test_if_modified_since_is_ignored_for_other_methods() -> None:
    assert ask("POST", If_Modified_Since=AFTER) == WHOLE


def test_dates_are_ignored_where_there_is_no_last_modified() -> None:
    assert ask(modified=None, If_Modified_Since=AFTER) == WHOLE
    assert ask(modified=None, If_Unmodified_Since=BEFORE) == WHOLE


@pytest.mark.parametrize(
    "date",
    [
        "",
        "0",
        str(MODIFIED),
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 GMT; length=5",
        f"{IMF}, {IMF}",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun,  06 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 29 Feb 1995 08:49:37 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 1994 GMT",
        "Sun, 06 Nov \u0661\u0669\u0669\u0664 08:49:37 GMT",
        f'"{IMF}"',
    ],
)
def test_an_invalid_date_is_ignored(date: str) -> None:
    far_future, long_past = 2**40, -(2**40)
    assert ask(If_Modified_Since=date, modified=long_past) == WHOLE
    assert ask(If_Unmodified_Since=date, modified=far_future) == WHOLE
    assert ask(If_Range=date, Range="bytes=0-1") == WHOLE


# Seconds from GNU date: date -u -d '...' +%s (the leap second is the one after 23:59:59).
@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        (IMF, 784111777),
        (RFC850, 784111777),
        (ASCTIME, 784111777),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
        ("Tue, 29 Feb 2000 12:00:00 GMT", 951825600),
        ("Tue Feb 29 12:00:00 2000", 951825600),
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1483228800),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253402300799),
        # Two digits (5.6.7), seen on 14 Nov 2023 22:13:20: 50 years ahead is the future, one second more is the past.
        ("Tuesday, 14-Nov-73 22:13:20 GMT", 3277923200),
        ("Wednesday, 14-Nov-73 22:13:21 GMT", 122163201),
        ("Saturday, 31-Dec-72 00:00:00 GMT", 3250368000),
        ("Saturday, 01-Jan-00 00:00:00 GMT", 946684800),
        ("Friday, 31-Dec-99 00:00:00 GMT", 946598400),
    ],
)
def test_a_date_of_any_form_is_read_to_the_second(date: str, seconds: int) -> None:
    assert ask(If_Modified_Since=date, modified=seconds) == NotModified()
    assert ask(If_Modified_Since=date, modified=seconds + 1) == WHOLE
    assert ask(If_Unmodified_Since=date, modified=seconds) == WHOLE
    assert ask(If_Unmodified_Since=date, modified=seconds + 1) == PreconditionFailed("If-Unmodified-Since")


@pytest.mark.parametrize(
    ("date", "seconds"),
    [("Sunday, 06-Nov-01 00:00:00 GMT", 4160678400), ("Saturday, 06-Nov-94 00:00:00 GMT", 3939840000)],
)
def test_two_digits_of_a_year_are_read_around_the_answers_date(date: str, seconds: int) -> None:
    in_2124 = 4859740800
    assert ask(If_Modified_Since=date, modified=seconds, now=in_2124) == NotModified()
    assert ask(If_Modified_Since=date, modified=seconds + 1, now=in_2124) == WHOLE


STALE = '"stale"'


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # If-Match is there: If-Unmodified-Since is ignored, and what follows is still evaluated.
        ({"If-Match": ETAG, "If-Unmodified-Since": BEFORE}, WHOLE),
        ({"If-Match": STALE, "If-Unmodified-Since": AFTER}, PreconditionFailed("If-Match")),
        ({"If-Match": ETAG, "If-None-Match": ETAG}, NotModified()),
        ({"If-Match": STALE, "If-None-Match": ETAG}, PreconditionFailed("If-Match")),
        ({"If-Match": ETAG, "If-Modified-Since": IMF}, NotModified()),
        ({"If-Unmodified-Since": BEFORE, "If-None-Match": ETAG}, PreconditionFailed("If-Unmodified-Since")),
        ({"If-Unmodified-Since": IMF, "If-Modified-Since": IMF}, NotModified()),
        # If-None-Match is there: If-Modified-Since is ignored, though If-None-Match be empty.
        ({"If-None-Match": STALE, "If-Modified-Since": AFTER}, WHOLE),
        ({"If-None-Match": "", "If-Modified-Since": AFTER}, WHOLE),
        ({"If-None-Match": ETAG, "If-Modified-Since": BEFORE}, NotModified()),
        # If-Range comes last, and never turns a 304 or a 412 into bytes.
        ({"If-None-Match": ETAG, "Range": "bytes=0-1", "If-Range": ETAG}, NotModified()),
        ({"If-Match": STALE, "Range": "bytes=0-1", "If-Range": ETAG}, PreconditionFailed("If-Match")),
        ({"If-Match": ETAG, "Range": "bytes=0-1", "If-Range": STALE}, WHOLE),
        ({"If-Match": ETAG, "If-None-Match": STALE, "Range": "bytes=0-1", "If-Range": ETAG}, GO),
        ({"If-Modified-Since": BEFORE, "Range": "bytes=0-1"}, GO),
        ({}, WHOLE),
    ],
)
def test_conditions_are_evaluated_in_the_order_of_the_rfc(fields: dict[str, str], expected: Outcome) -> None:
    assert evaluate("GET", fields, ETAG, MODIFIED, NOW) == expected


def test_field_names_are_case_insensitive_in_any_mapping() -> None:
    assert evaluate("GET", {"iF-mAtCh": STALE}, ETAG, None, NOW) == PreconditionFailed("If-Match")
    headers = CIMultiDictProxy(CIMultiDict({"RANGE": "bytes=0-1", "if-range": STALE}))
    assert evaluate("GET", headers, ETAG, None, NOW) == WHOLE


def test_several_lines_of_one_field_are_one_list() -> None:
    headers = CIMultiDictProxy(CIMultiDict([("If-None-Match", STALE), ("if-none-match", ETAG)]))
    assert evaluate("GET", headers, ETAG, None, NOW) == NotModified()
    dates = CIMultiDictProxy(CIMultiDict([("If-Modified-Since", AFTER), ("If-Modified-Since", AFTER)]))
    assert evaluate("GET", dates, ETAG, MODIFIED, NOW) == WHOLE


@pytest.mark.parametrize(
    "hostile",
    [
        " " * 1_000_000 + "x",
        ", " * 500_000 + "x",
        '"' * 999_999,
        '"a",' * 250_000 + "x",
        '"a"' + " " * 1_000_000 + "x",
        "W/" * 500_000,
    ],
    ids=["blanks", "commas", "quotes", "tags", "blanks after a tag", "weak"],
)
def test_a_hostile_list_costs_no_more_than_its_length(hostile: str) -> None:
    assert ask(If_None_Match=hostile) == WHOLE  # what is quadratic in a million runs into the suite's time limit


@given(st.dictionaries(st.sampled_from(["If-Match", "If-None-Match", "If-Range", "If-Modified-Since", "Range"]), st.text()))
def test_any_text_in_the_fields_has_an_outcome(fields: dict[str, str]) -> None:
    assert isinstance(evaluate("GET", fields, ETAG, MODIFIED, NOW), Proceed | NotModified | PreconditionFailed)
