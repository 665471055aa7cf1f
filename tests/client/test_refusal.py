"""Answers of 4xx and 5xx as errors with a sentence."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore.errors import FarcoreError, FaultError, SourceChangedError
from farcore_client.dumpurl import ServerUrl
from farcore_client.errors import ProtocolError, RefusedError
from farcore_client.refusal import refusal

SERVER = ServerUrl("http", "host", 8787)


def problem(slug: str, **members: object) -> bytes:
    return json.dumps({"type": f"/problems/{slug}", "title": "A title", "detail": "Words of the server.", **members}).encode()


def error(status: int, body: bytes, content_type: str = "application/problem+json", *, token: bool = False) -> FarcoreError:
    return refusal(status, content_type, body, SERVER, space="physical", length=16, token=token)


@pytest.mark.parametrize(
    ("status", "slug", "sentence"),
    [
        (401, "unauthorized", "the server wants a token: give --token-file FILE or set FARCORE_TOKEN"),
        (404, "no-such-dump", "the server has no dump with this id: `farcore ls http://host:8787` shows"),
        (404, "not-found", "the server said 404 Not Found: Words of the server"),
        (421, "misdirected", "host is no name that this server answers to: Words of the server"),
        (422, "refused", "the server refused this dump: Words of the server (`farcore info` shows"),
        (422, "foreign-arch", "the server refused this dump: Words of the server"),
        (503, "indexing", "the server is not ready to answer: Words of the server; try again"),
        (500, "internal", "the server said 500 Internal Server Error: Words of the server"),
        (499, "odd", "the server said 499: Words of the server"),
    ],
)
def test_a_problem_is_a_sentence_that_says_what_to_do(status: int, slug: str, sentence: str) -> None:
    found = error(status, problem(slug))
    assert isinstance(found, RefusedError)
    assert (found.status, found.slug) == (status, slug)
    assert str(found).startswith(sentence)
    assert ".;" not in str(found)


def test_a_token_that_was_shown_in_vain_is_said_to_be_unknown() -> None:
    assert "does not take this token" in str(error(401, problem("unauthorized"), token=True))


@pytest.mark.parametrize(("status", "kind"), [(404, "absent"), (404, "excluded"), (500, "unreadable")])
def test_a_hole_is_a_fault_with_its_address_and_kind(status: int, kind: str) -> None:
    found = error(status, problem("unmapped", address="0xa0000", kind=kind))
    assert isinstance(found, FaultError)
    assert (found.address, found.length, found.space, found.kind) == (0xA0000, 16, "physical", kind)


@pytest.mark.parametrize(
    "members",
    [{}, {"address": "0xa0000"}, {"address": "rm -rf", "kind": "absent"}, {"address": "0x1", "kind": "nice"}, {"address": []}],
)
def test_a_hole_without_address_or_kind_is_an_ordinary_refusal(members: dict[str, object]) -> None:
    assert isinstance(error(404, problem("unmapped", **members)), RefusedError)


@pytest.mark.parametrize(("status", "slug"), [(412, "changed"), (412, "precondition-failed"), (503, "changed")])
def test_another_version_of_the_dump_is_a_changed_source(status: int, slug: str) -> None:
    assert isinstance(error(status, problem(slug)), SourceChangedError)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html", b"<h1>It works!</h1>"),
        ("", problem("refused")),
        ("application/json", problem("refused")),
        ("application/problem+json", b"<h1>It works!</h1>"),
        ("application/problem+json", b'"string"'),
        ("application/problem+json", b"[" * 100_000),
        ("application/problem+json", b"\xff"),
    ],
)
def test_of_what_is_no_problem_only_the_status_is_shown(content_type: str, body: bytes) -> None:
    found = error(502, body, content_type)
    assert isinstance(found, ProtocolError)
    assert str(found) == "http://host:8787 answered 502 Bad Gateway without farcored's words; is this the URL of a farcored?"


def test_a_login_of_somebody_else_is_no_reason_to_give_a_token() -> None:
    assert "not farcored's" in str(error(401, b"<html>", "text/html"))


@given(
    st.integers(400, 999),
    st.sampled_from(["application/problem+json", "Application/Problem+JSON; charset=utf-8", "text/html"]),
    st.binary() | st.dictionaries(st.sampled_from(["type", "title", "detail", "kind", "address"]), st.text() | st.none()),
)
def test_any_answer_is_an_error_of_farcores(status: int, content_type: str, body: bytes | dict[str, str | None]) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert isinstance(error(status, raw, content_type), FarcoreError)
