"""What is believed of the head of an answer with bytes."""

from __future__ import annotations

import pytest

from farcore.errors import SourceChangedError
from farcore.source import Extent
from farcore_client.errors import ProtocolError
from farcore_client.partial import Resource, demand, resource, version

WANTED = Extent(100, 50)
VERSION = Resource(1000, '"v1"')
SOUND = {"Content-Range": "bytes 100-149/1000", "Content-Length": "50", "ETag": '"v1"'}


def test_head_says_size_and_version() -> None:
    assert resource({"Content-Length": "18446744073709551616", "ETag": '"a"'}) == (1 << 64, '"a"')


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Length": "10"},
        {"ETag": '"a"'},
        {"Content-Length": "10", "ETag": 'W/"a"'},
        {"Content-Length": "10", "ETag": "a"},
        {"Content-Length": "10", "ETag": '"a", "b"'},
        {"Content-Length": "-1", "ETag": '"a"'},
        {"Content-Length": "10, 10", "ETag": '"a"'},
        {"Content-Length": "٣", "ETag": '"a"'},
    ],
)
def test_head_without_a_length_or_a_strong_tag_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ProtocolError, match="no length or no strong ETag"):
        resource(headers)


@pytest.mark.parametrize("less", [(), ("Content-Length",), ("ETag",)])
def test_the_range_that_was_asked_for_is_taken(less: tuple[str, ...]) -> None:
    demand(206, {name: value for name, value in SOUND.items() if name not in less}, WANTED, VERSION)


@pytest.mark.parametrize(
    "odd",
    [
        {"Content-Range": "bytes 100-148/1000"},
        {"Content-Range": "bytes 100-150/1000"},
        {"Content-Range": "bytes 99-149/1000"},
        {"Content-Range": "bytes 100-149/1001"},
        {"Content-Range": "bytes 100-149/*"},
        {"Content-Range": "bytes=100-149/1000"},
        {"Content-Range": ""},
        {"Content-Length": "49"},
        {"Content-Length": "51"},
        {"Content-Encoding": "gzip"},
    ],
)
def test_another_range_is_refused(odd: dict[str, str]) -> None:
    with pytest.raises(ProtocolError, match=next(iter(odd))):
        demand(206, SOUND | odd, WANTED, VERSION)


def test_an_answer_with_the_whole_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="answered 200 to a range"):
        demand(200, {"Content-Length": "1000", "ETag": '"v1"'}, WANTED, VERSION)


def test_another_version_is_a_changed_source() -> None:
    with pytest.raises(SourceChangedError):
        demand(206, SOUND | {"ETag": '"v2"'}, WANTED, VERSION)


@pytest.mark.parametrize(
    ("status", "said", "size"),
    [
        (206, "bytes 8-15/100", 100),
        (206, "bytes 8-11/12", 12),
        (206, "bytes 8-14/100", None),
        (206, "bytes 8-15/12", None),
        (206, "bytes 0-7/100", None),
        (206, "bytes 8-15/*", None),
        (200, "bytes 8-15/100", None),
    ],
)
def test_a_range_tells_its_resource_only_if_it_is_the_one_that_was_asked_for(status: int, said: str, size: int | None) -> None:
    headers = {"Content-Range": said, "ETag": '"a"'}
    if size is not None:
        assert version(status, headers, Extent(8, 8)) == Resource(size, '"a"')
        return
    with pytest.raises(ProtocolError):
        version(status, headers, Extent(8, 8))
