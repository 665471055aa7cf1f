"""URLs: what is taken, and the sentence for what is not."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from farcore.errors import SettingsError
from farcore_client.dumpurl import DumpUrl, ServerUrl


@pytest.mark.parametrize(
    ("text", "shown", "place"),
    [
        ("http://127.0.0.1:8787", "http://127.0.0.1:8787", "127.0.0.1:8787"),
        ("http://127.0.0.1:8787/", "http://127.0.0.1:8787", "127.0.0.1:8787"),
        ("HTTPS://Collector.Example", "https://collector.example", "collector.example:443"),
        ("http://[::1]:80", "http://[::1]", "[::1]:80"),
        ("https://dump_host-1:8443", "https://dump_host-1:8443", "dump_host-1:8443"),
    ],
)
def test_a_servers_url_is_scheme_host_and_port(text: str, shown: str, place: str) -> None:
    assert (str(ServerUrl.parse(text)), ServerUrl.parse(text).place) == (shown, place)


def test_a_dumps_url_is_a_server_and_an_id() -> None:
    url = DumpUrl.parse("http://localhost:8787/v1/dumps/vmcore-1a2b3c4d")
    assert (str(url.server), url.id, url.path) == ("http://localhost:8787", "vmcore-1a2b3c4d", "/v1/dumps/vmcore-1a2b3c4d")
    assert str(url) == "http://localhost:8787/v1/dumps/vmcore-1a2b3c4d"


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("host:1", "write http://host:1, or https://host:1"),
        ("host", "write http://host,"),
        ("ftp://host/", "write http://host/"),
        ("http://host:1/v1/dumps", "write http://host:1"),
        ("http://host:1/v1/dumps/x-1", "`farcore info http://host:1/v1/dumps/x-1`"),
        ("http://host:1/v1/dumps/x-1/", "`farcore info http://host:1/v1/dumps/x-1`"),
        ("http://host:1/?all", "write http://host:1/"),
        ("http://host:1#top", "write http://host:1"),
        ("http://", "is not HOST:PORT"),
        ("http://host:", "is not HOST:PORT"),
        ("http://host:0", "is not HOST:PORT"),
        ("http://host:65536", "is not HOST:PORT"),
        ("http://a..b", "is not HOST:PORT"),
        ("http://-" + "a" * 63, "is not HOST:PORT"),
        ("http://::1:8787", "is not HOST:PORT"),
        ("http://[1::2::3]", "is not HOST:PORT"),
        ("http://ho st", "neither blanks"),
        ("http://höst", "neither blanks"),
        ("http://host\n", "neither blanks"),
        ("", "neither blanks"),
    ],
)
def test_what_is_no_servers_url_is_told_how_to_be_one(text: str, fix: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ServerUrl.parse(text)
    assert fix in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("http://h:1/v1/dumps/x-1/", "write http://h:1/v1/dumps/x-1"),
        ("http://h:1/v1/dumps/x-1/vmcore", "write http://h:1/v1/dumps/x-1"),
        ("http://h:1", "`farcore ls http://h:1`"),
        ("http://h:1/v1/dumps/", "`farcore ls http://h:1`"),
        ("http://h:1/v1/dumps/../x", "`farcore ls http://h:1`"),
        ("http://h:1/v1/dumps/X", "`farcore ls http://h:1`"),
        ("http://h:1/v2/dumps/x", "`farcore ls http://h:1`"),
        ("h:1/v1/dumps/x", "write http://h:1/v1/dumps/x"),
        ("http://h:1/v1/dumps/" + "x" * 129, "`farcore ls http://h:1`"),
    ],
)
def test_what_is_no_dumps_url_is_told_how_to_be_one(text: str, fix: str) -> None:
    with pytest.raises(SettingsError) as caught:
        DumpUrl.parse(text)
    assert str(caught.value).endswith(fix) or fix in str(caught.value).split(": ", 1)[1]


@pytest.mark.parametrize(
    "text",
    [
        "http://user:s3cret@host:1",
        "http://s3cret@host:1/v1/dumps/x-1",
        "user:s3cret@host:1",
        "http:/user:s3cret@host",
        "ftp://user:s3cret@host",
        "http://host?token=s3cret",
        "http://host/v1/dumps/x-1?token=s3cret",
        "http://host#s3cret",
    ],
)
@pytest.mark.parametrize("parse", [ServerUrl.parse, DumpUrl.parse])
def test_a_secret_in_a_url_is_refused_and_not_repeated(parse: type[ServerUrl], text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text)  # type: ignore[call-arg, arg-type]
    assert "s3cret" not in str(caught.value)


@given(st.text() | st.from_regex(r"https?://[^ ]*", fullmatch=True))
@example("http://[::1")
@example("http://[v1.x]")
@example("http://host:٣")
def test_any_text_is_a_url_or_a_sentence(text: str) -> None:
    try:
        url = DumpUrl.parse(text)
    except SettingsError:
        return
    assert re.fullmatch(r"https?://[a-z0-9_.:\[\]-]+/v1/dumps/[a-z0-9-]+", str(url))
    assert DumpUrl.parse(str(url)) == url
