"""The gate: header values written by hand, and the middleware on a real server."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from farcore_server import tokens
from farcore_server.access import GRANT, Access, Denied, Granted, access_middleware
from farcore_server.problem import problem_middleware
from farcore_server.settings import Hosts
from farcore_server.tokens import TokenFile
from tests.http1 import Answer, Connection

TOKEN = "farcore_0123456789-abc_DEF"
PLAIN = 'Bearer realm="farcore", Basic realm="farcore", charset="UTF-8"'
WRONG = 'Bearer realm="farcore", error="invalid_token", Basic realm="farcore", charset="UTF-8"'


@pytest.fixture
def access(tmp_path: Path) -> Access:
    digests = {
        name: hashlib.sha256(token.encode()).hexdigest() for name, token in {"alice": TOKEN, "rené": "pâss:wörd"}.items()
    }
    (tmp_path / "tokens").write_text(f"alice 2026-01-31 {digests['alice']}\nrene 2026-01-31 {digests['rené']}\n")
    return Access(TokenFile(tmp_path / "tokens"))


def basic(pair: bytes) -> str:
    return "Basic " + b64encode(pair).decode()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (f"Bearer {TOKEN}", "alice"),
        (f"bearer {TOKEN}", "alice"),
        (f"BEARER   {TOKEN} ", "alice"),
        (basic(b"alice:" + TOKEN.encode()), "alice"),
        (basic(b"anybody:" + TOKEN.encode()), "alice"),
        (basic(b":" + TOKEN.encode()), "alice"),
        (basic("x:pâss:wörd".encode()), "rene"),
        # curl -u alice:farcore_0123456789-abc_DEF, taken from `curl -v`
        ("Basic YWxpY2U6ZmFyY29yZV8wMTIzNDU2Nzg5LWFiY19ERUY=", "alice"),
    ],
)
def test_a_token_is_taken_as_bearer_and_as_the_password_of_any_user(access: Access, value: str, name: str) -> None:
    assert access.check(value, "evil.example") == Granted(name)


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (None, "wants a token"),
        ("", "expected `Bearer TOKEN`"),
        ("Bearer", "expected `Bearer TOKEN`"),
        (f"Bearer {TOKEN} x", "expected `Bearer TOKEN`"),
        (f"Bearer {TOKEN}, Bearer {TOKEN}", "expected `Bearer TOKEN`"),
        (f"Bearer\t{TOKEN}", "expected `Bearer TOKEN`"),
        (TOKEN, "expected `Bearer TOKEN`"),
        ("Bearer \udcff", "expected `Bearer TOKEN`"),
        (f"Digest {TOKEN}", "neither Bearer nor Basic"),
        ("Basic =", "expected `Bearer TOKEN`"),
        ("Basic ab", "USER:TOKEN, in UTF-8 and base64"),
        ("Basic a-b_", "USER:TOKEN, in UTF-8 and base64"),
        ("Basic OmZhcm-NvcmVfMDEyMzQ1Njc4OS1hYmNfREVG", "USER:TOKEN, in UTF-8 and base64"),
        (basic(b"a:\xff"), "USER:TOKEN, in UTF-8 and base64"),
        (basic(TOKEN.encode()), "no colon"),
    ],
)
def test_without_a_usable_header_the_answer_is_401_with_both_challenges(access: Access, value: str | None, detail: str) -> None:
    denied = access.check(value, "localhost")
    assert isinstance(denied, Denied)
    assert (denied.status, denied.headers) == (401, {"WWW-Authenticate": PLAIN})
    assert detail in denied.detail
    assert TOKEN not in denied.detail


@pytest.mark.parametrize("value", [f"Bearer {TOKEN}x", basic(f"{TOKEN}:alice".encode()), basic(b"alice:"), "Bearer AAAA"])
def test_a_wrong_token_is_told_so(access: Access, value: str) -> None:
    denied = access.check(value, "localhost")
    assert isinstance(denied, Denied)
    assert (denied.status, denied.headers) == (401, {"WWW-Authenticate": WRONG})


OWN = [
    "localhost", "localhost:8787", "LocalHost:1", "localhost.", "localhost.:8787", "localhost:",
    "127.0.0.1", "127.0.0.1:8787", "127.255.255.254:65535", "127.0.0.1.", "[::1]", "[::1]:8787", "[0:0:0:0:0:0:0:1]:80",
]  # fmt: skip
ADDRESSES = ["192.0.2.7:8787", "128.0.0.1", "0.0.0.0:8787", "[2001:db8::1]:8787", "[::]", "[::ffff:192.0.2.7]"]
FOREIGN = [
    None, "", ":8787", "evil.example", "evil.example:8787", "localhost.evil.example", "127.0.0.1.evil.example",
    "127.0.0.1.nip.io", "foo.localhost", "localhost..", "localhostx", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1",
    "127.0.0.256", "127.0.0.1..",
    "::1", "::1:8787", "[::1", "::1]", "[localhost]", "[127.0.0.1]", "[::1]x", "[::1%lo]", "[::1].", "localhost:8787:8787",
    "localhost:65536", "localhost:999999", "localhost:-1", "localhost:+1", "localhost:http", "localhost:８７", "localhost ",
    "evil@localhost", "localhost@evil.example", "localhost/", "localhost#", "localhost,evil.example", "localhost, localhost",
    "localhost\n", "127.0.0.1\0", "１２７.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("host", OWN)
@pytest.mark.parametrize("hosts", ["loopback", "address", "any"])
def test_without_credentials_the_names_of_this_machine_are_answered_at_any_port(host: str, hosts: Hosts) -> None:
    assert Access(None, hosts).check(None, host) == Granted(None)


@pytest.mark.parametrize("host", ADDRESSES)
def test_without_credentials_an_address_is_answered_only_where_the_server_was_told_to_be_insecure(host: str) -> None:
    assert isinstance(Access(None).check(None, host), Denied)
    assert Access(None, "address").check(None, host) == Granted(None)


@pytest.mark.parametrize("host", FOREIGN)
def test_without_credentials_any_other_host_is_421(host: str | None) -> None:
    for access in (Access(None), Access(None, "address")):
        denied = access.check(f"Bearer {TOKEN}", host)
        assert isinstance(denied, Denied)
        assert denied.status == 421
        assert "--token-file" in denied.detail


@pytest.mark.parametrize("host", [*OWN, *ADDRESSES, "evil.example", None])
def test_where_tls_asks_for_certificates_host_is_not_looked_at(host: str | None) -> None:
    assert Access(None, "any").check(None, host) == Granted(None)


def test_the_version_is_the_token_files(access: Access) -> None:
    assert Access(None).version == Access(None).version
    before = access.version
    assert access.tokens is not None
    tokens.add(access.tokens.path, "bob")
    assert access.version > before


async def whoami(request: web.Request) -> web.Response:
    return web.Response(text=str(request[GRANT].name))


async def healthy(request: web.Request) -> web.Response:
    return web.Response(text="healthy")


async def ask(access: Access, *requests: bytes) -> list[Answer]:
    app = web.Application(middlewares=[problem_middleware, access_middleware(access)])
    app.add_routes([web.get("/v1/dumps", whoami), web.get("/metrics", whoami)])
    app.add_routes([web.get("/healthz", healthy), web.get("/readyz", healthy)])
    async with TestServer(app) as server:

        def talk(request: bytes) -> Answer:
            with Connection(str(server.make_url("/"))) as connection:
                connection.send(request + b"\r\n\r\n")
                return connection.answer(request.split()[0].decode())

        return [await asyncio.to_thread(talk, request) for request in requests]


LOCAL = b" HTTP/1.1\r\nHost: localhost"


@pytest.mark.parametrize(
    "path", [b"/v1/dumps", b"/metrics", b"/", b"/nothing/here", b"/healthz/", b"/healthz/../v1/dumps", b"//healthz"]
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"OPTIONS", b"TRACE"])
async def test_no_route_but_the_open_two_tells_a_stranger_whether_it_exists(access: Access, method: bytes, path: bytes) -> None:
    (answer,) = await ask(access, method + b" " + path + LOCAL)
    assert (answer.status, answer.get("WWW-Authenticate")) == (401, PLAIN)
    assert answer.get("Content-Type") == "application/problem+json"


async def test_the_health_routes_are_open_to_any_host_without_a_token(access: Access) -> None:
    for gate in (access, Access(None)):
        answers = await ask(gate, *(b"GET " + path + b" HTTP/1.1\r\nHost: evil.example" for path in (b"/healthz", b"/readyz")))
        assert [(answer.status, answer.body) for answer in answers] == [(200, b"healthy")] * 2


async def test_a_handler_is_told_whose_token_it_was(access: Access) -> None:
    get = b"GET /v1/dumps" + LOCAL
    with_token, with_password = await ask(
        access,
        get + b"\r\nAuthorization: Bearer " + TOKEN.encode(),
        get + b"\r\nauthorization: " + basic(b":" + TOKEN.encode()).encode(),
    )
    assert (with_token.body, with_password.body) == (b"alice", b"alice")
    (open_to_all,) = await ask(Access(None), get)
    assert open_to_all.body == b"None"


async def test_two_tokens_in_one_request_are_none(access: Access) -> None:
    line = b"\r\nAuthorization: Bearer " + TOKEN.encode()
    (answer,) = await ask(access, b"GET /v1/dumps" + LOCAL + line + line)
    assert answer.status in (400, 401)


async def test_a_revoked_token_is_refused_on_the_connection_that_used_it(access: Access) -> None:
    app = web.Application(middlewares=[problem_middleware, access_middleware(access)])
    app.add_routes([web.get("/v1/dumps", whoami)])
    async with TestServer(app) as server:
        connection = await asyncio.to_thread(Connection, str(server.make_url("/")))
        with connection:
            first = await asyncio.to_thread(connection.get, "/v1/dumps", Authorization=f"Bearer {TOKEN}")
            assert access.tokens is not None
            tokens.revoke(access.tokens.path, "alice")
            second = await asyncio.to_thread(connection.get, "/v1/dumps", Authorization=f"Bearer {TOKEN}")
    assert (first.status, second.status, second.get("WWW-Authenticate")) == (200, 401, WRONG)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /v1/dumps HTTP/1.1\r\nHost: evil.example",
        b"GET /v1/dumps HTTP/1.0",
        b"GET http://evil.example/v1/dumps" + LOCAL,
        b"GET http://localhost@evil.example/v1/dumps" + LOCAL,
        b"GET http://evil.example?/v1/dumps" + LOCAL,
    ],
)
async def test_a_page_that_resolved_its_own_name_to_this_machine_gets_421(request_: bytes) -> None:
    (answer,) = await ask(Access(None), request_)
    assert answer.status == 421


async def test_a_whole_url_in_the_request_line_counts_instead_of_host() -> None:
    (answer,) = await ask(Access(None), b"GET http://127.0.0.1:8787/v1/dumps HTTP/1.1\r\nHost: evil.example")
    assert answer.status == 200


async def test_two_hosts_are_none_of_this_servers() -> None:
    (answer,) = await ask(Access(None), b"GET /v1/dumps" + LOCAL + b"\r\nHost: localhost")
    assert answer.status in (400, 421)
