"""Errors on the wire: a real server whose handlers fail in every way, read byte by byte."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from farcore.errors import BadDumpError, FarcoreError, FaultError, ForeignArchError, SettingsError, SourceChangedError
from farcore_server.problem import Problem, problem_middleware
from tests.http1 import Answer, Connection, CutError

ABSENT = FaultError(address=0x1_0000_A000, length=4096, space="physical", kind="absent")


def raising(error: Exception) -> Any:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise error

    return handler


async def ask(handler: Any, method: str = "GET", target: str = "/v1/dumps/vmcore-1a2b3c4d/vmcore") -> Answer:
    app = web.Application(middlewares=[problem_middleware])
    app.add_routes([web.get("/v1/dumps/{id}/vmcore", handler), web.put("/v1/dumps/{id}/vmcore", handler)])
    async with TestServer(app) as server:

        def talk() -> Answer:
            with Connection(str(server.make_url("/"))) as connection:
                answer = connection.request(method, target)
                # The connection goes on: nothing of a body is left on it, not even after HEAD.
                assert connection.get("/nowhere").status == 404
                return answer

        return await asyncio.to_thread(talk)


EXCLUDED = FaultError(address=0, length=1, space="physical", kind="excluded")
UNREADABLE = FaultError(address=2**64 - 1, length=1, space="vmcore", kind="unreadable")
CHANGED = SourceChangedError("the file ends at byte 9")

MAPPED = [
    (ABSENT, 404, "unmapped", {"address": "0x10000a000", "kind": "absent"}),
    (EXCLUDED, 404, "unmapped", {"address": "0x0", "kind": "excluded"}),
    (UNREADABLE, 500, "unreadable", {"address": "0xffffffffffffffff", "kind": "unreadable"}),
    (BadDumpError("it is cut off", term="phnum"), 422, "refused", {"term": "phnum"}),
    (ForeignArchError("an s390 dump", machine="EM_S390"), 422, "foreign-arch", {"term": "arch", "machine": "EM_S390"}),
    (CHANGED, 503, "changed", {}),
]


@pytest.mark.parametrize(("error", "status", "slug", "members"), MAPPED)
async def test_an_error_of_core_has_its_status_its_type_and_its_facts(
    error: FarcoreError, status: int, slug: str, members: dict[str, str]
) -> None:
    answer = await ask(raising(error))
    body = json.loads(answer.body)
    title = body.pop("title")
    assert title
    assert answer.status == status
    assert body == {
        "type": f"/problems/{slug}",
        "status": status,
        "detail": str(error),
        "dump": "vmcore-1a2b3c4d",
        **members,
    }
    assert answer.get("Content-Type") == "application/problem+json"
    assert answer.get("Cache-Control") == "no-store"


async def test_a_dump_that_has_changed_may_be_asked_for_again() -> None:
    answer = await ask(raising(CHANGED))
    assert int(answer.get("Retry-After") or 0) > 0


@pytest.mark.parametrize("error", [ValueError("secret"), SettingsError("secret"), KeyError("secret")])
async def test_an_unexpected_error_is_500_without_its_text(error: Exception) -> None:
    answer = await ask(raising(error))
    assert (answer.status, json.loads(answer.body)["type"]) == (500, "/problems/internal")
    assert b"secret" not in answer.body
    assert b"Error" not in answer.body


async def test_an_unexpected_error_is_logged_with_its_traceback_and_the_request(caplog: pytest.LogCaptureFixture) -> None:
    await ask(raising(ValueError("why it failed")), target="/v1/dumps/a%0Ab/vmcore")
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "why it failed" in caplog.text
    assert record.getMessage() == "GET /v1/dumps/a%0Ab/vmcore failed"


async def test_a_storage_failure_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    await ask(raising(UNREADABLE))
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is None
    assert record.getMessage() == f"GET /v1/dumps/vmcore-1a2b3c4d/vmcore: {UNREADABLE}"


async def test_a_problem_keeps_its_members_and_headers_and_no_member_replaces_a_standard_one() -> None:
    problem = Problem(
        503,
        "indexing",
        "The dump is being read",
        "It has 3 s to go.",
        dump="other-0",
        members={"seconds": 3, "status": 200, "type": "/x"},
        headers={"Retry-After": "3", "Cache-Control": "private"},
    )
    answer = await ask(raising(problem))
    assert json.loads(answer.body) == {
        "type": "/problems/indexing",
        "title": "The dump is being read",
        "status": 503,
        "detail": "It has 3 s to go.",
        "dump": "other-0",
        "seconds": 3,
    }
    assert (answer.get("Retry-After"), answer.get("Cache-Control")) == ("3", "private")


async def test_head_gets_the_headers_of_get_and_no_body() -> None:
    get, head = await ask(raising(ABSENT)), await ask(raising(ABSENT), "HEAD")
    assert (head.status, head.body) == (404, b"")
    for name in ("Content-Type", "Content-Length", "Cache-Control"):
        assert head.get(name) == get.get(name)
    assert int(get.get("Content-Length") or 0) == len(get.body)


async def test_a_path_that_is_nothing_is_404_and_says_where_the_dumps_are() -> None:
    answer = await ask(raising(ABSENT), target="/etc/passwd")
    body = json.loads(answer.body)
    assert (answer.status, body["type"], body["title"]) == (404, "/problems/not-found", "Not Found")
    assert "/v1/dumps" in body["detail"]
    assert "dump" not in body


async def test_a_method_that_is_not_there_is_405_with_allow() -> None:
    answer = await ask(raising(ABSENT), "DELETE")
    body = json.loads(answer.body)
    assert (answer.status, body["type"]) == (405, "/problems/method-not-allowed")
    assert {word.strip() for word in (answer.get("Allow") or "").split(",")} == {"GET", "HEAD", "PUT"}
    assert "GET, HEAD, PUT" in body["detail"]


async def test_aiohttps_own_refusal_keeps_its_text_as_the_detail() -> None:
    answer = await ask(raising(web.HTTPBadRequest(text="the item has no start")))
    body = json.loads(answer.body)
    assert (answer.status, body["type"], body["detail"]) == (400, "/problems/bad-request", "the item has no start")
    assert json.loads((await ask(raising(web.HTTPForbidden()))).body)["detail"] == "Forbidden"


async def test_an_answer_below_400_that_was_raised_is_no_problem() -> None:
    answer = await ask(raising(web.HTTPFound("/elsewhere")))
    assert (answer.status, answer.get("Location")) == (302, "/elsewhere")
    assert answer.get("Content-Type") != "application/problem+json"
    answer = await ask(raising(web.HTTPNotModified()))
    assert answer.status == 304


@pytest.mark.parametrize("error", [ABSENT, CHANGED, ValueError("why"), ConnectionError("S3")])
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("sent", [0, 5])
async def test_an_error_behind_the_head_of_an_answer_cuts_the_connection(
    error: Exception, chunked: bool, sent: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = 10
        await response.prepare(request)
        if sent:
            await response.write(b"a" * sent)
        raise error

    app = web.Application(middlewares=[problem_middleware])
    app.add_routes([web.get("/", handler)])
    async with TestServer(app) as server:

        def talk() -> CutError:
            with Connection(str(server.make_url("/"))) as connection, pytest.raises(CutError) as cut:
                connection.get("/")
            return cut.value

        cut = await asyncio.to_thread(talk)
    assert cut.head is not None
    assert (cut.head.status, cut.received) == (200, b"a" * sent)
    assert len([record for record in caplog.records if "the body was cut" in record.getMessage()]) == 1
    assert not [record for record in caplog.records if record.name.startswith("aiohttp.server")]


async def test_a_client_that_has_gone_is_nobodys_fault(caplog: pytest.LogCaptureFixture) -> None:
    ended = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"a" * 65536)
        finally:
            ended.set()

    app = web.Application(middlewares=[problem_middleware])
    app.add_routes([web.get("/", handler)])

    def talk(url: str) -> None:
        with Connection(url) as connection:
            connection.ask("GET", "/")
            connection.answer_head()

    async with TestServer(app) as server:
        await asyncio.to_thread(talk, str(server.make_url("/")))
        await asyncio.wait_for(ended.wait(), 20)
        await asyncio.sleep(0.1)
    assert not [record for record in caplog.records if record.levelno >= logging.INFO and record.name != "aiohttp.access"]


async def test_a_connection_that_failed_elsewhere_is_the_servers_fault() -> None:
    assert (await ask(raising(ConnectionRefusedError("S3")))).status == 500
