"""Session: what leaves this machine, and what becomes of answers that nobody should give."""

from __future__ import annotations

import asyncio
import errno
import gzip
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest

from farcore.errors import FarcoreError, SettingsError
from farcore.source import Extent
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl, ServerUrl
from farcore_client.errors import CutError, ProtocolError, UnreachableError
from farcore_client.partial import Resource
from farcore_client.refusal import MAX_PROBLEM
from farcore_client.session import MAX_JSON, Session
from farcore_client.translation import translated
from tests.client.hostile import ETAG, JSON, PROBLEM, Hostile, answer, hostile

LIST = {"GET /v1/dumps": answer(b'{"dumps": []}', Content_Type=JSON)}


def session(server: Hostile, token: str | None = None, *, silence: float = 10) -> Session:
    return Session(ServerUrl.parse(server.url), Credentials(token), silence=silence)


def fields(head: str) -> dict[str, str]:
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in head.split("\r\n")[1:-2])}


async def test_a_token_is_sent_as_bearer_and_nothing_else_says_who_asks() -> None:
    with hostile(LIST) as server:
        for token in ("farcore_abc", None):
            async with session(server, token) as asking:
                assert await asking.dumps() == []
    with_token, without = map(fields, server.asked)
    assert with_token.pop("authorization") == "Bearer farcore_abc"
    assert with_token == without
    assert sorted(without) == ["accept", "accept-encoding", "host", "user-agent"]
    assert without["host"] == server.url.removeprefix("http://")


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_a_redirect_is_not_followed_and_the_token_stays_here(status: str) -> None:
    with (
        hostile(LIST) as elsewhere,
        hostile({"GET /v1/dumps": answer(b"", status, Location=f"{elsewhere.url}/v1/dumps")}) as server,
    ):
        async with session(server, "s3cret") as asking:
            with pytest.raises(ProtocolError, match=f"sends you on to {elsewhere.url}/v1/dumps: farcore follows nobody"):
                await asking.dumps()
    assert (len(server.asked), elsewhere.asked) == (1, [])


async def test_proxies_and_netrc_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("default login me password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with hostile(LIST) as proxy, hostile(LIST) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with session(server) as asking:
            assert await asking.dumps() == []
    assert (len(server.asked), proxy.asked) == (1, [])
    assert "authorization" not in fields(server.asked[0])


async def test_a_cookie_is_not_kept() -> None:
    with hostile({"GET /v1/dumps": answer(b'{"dumps": []}', Set_Cookie="who=me; Path=/")}) as server:
        async with session(server) as asking:
            await asking.dumps()
            await asking.dumps()
    assert ["cookie" in fields(head) for head in server.asked] == [False, False]


async def test_a_server_that_says_nothing_is_given_up() -> None:
    with hostile({"GET /v1/dumps": None}) as server:
        async with session(server, silence=0.2) as asking:
            with pytest.raises(UnreachableError, match="did not answer in time"):
                await asking.dumps()


async def test_a_body_that_stops_is_given_up_with_the_bytes_that_came() -> None:
    head = answer(status="206 Partial Content", ETag=ETAG, Content_Range="bytes 0-9/10", Content_Length="10")

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + b"abc")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(stall, "127.0.0.1") as listening:
        url = ServerUrl("http", "127.0.0.1", listening.sockets[0].getsockname()[1])
        came: list[bytes] = []
        async with Session(url, Credentials(), silence=0.2) as asking:
            with pytest.raises(CutError, match=r"only 3 of 10 bytes came: the server was silent for 0\.2 s") as caught:
                await asking.read("/x", "vmcore", Extent(0, 10), Resource(10, ETAG), came.append)
    assert (caught.value.received, caught.value.length, b"".join(came)) == (3, 10, b"abc")


async def test_an_error_of_whoever_takes_the_bytes_is_left_alone() -> None:
    def full(piece: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    said = answer(b"0123456789", "206 Partial Content", ETag=ETAG, Content_Range="bytes 0-9/10")
    with hostile({"GET /x": said}) as server:
        async with session(server) as asking:
            with pytest.raises(OSError, match="No space left") as caught:
                await asking.read("/x", "vmcore", Extent(0, 10), Resource(10, ETAG), full)
    assert not isinstance(caught.value, FarcoreError)


async def test_json_without_end_is_not_collected() -> None:
    with hostile({"GET /v1/dumps": answer(b" " * (MAX_JSON + 1), Content_Type=JSON)}) as server:
        async with session(server) as asking:
            with pytest.raises(ProtocolError, match="more than 131,072 KiB"):
                await asking.dumps()


@pytest.mark.parametrize(("size", "said"), [(MAX_PROBLEM, "the server said 500"), (MAX_PROBLEM + 1, "more than 16 KiB")])
async def test_words_of_an_error_are_taken_up_to_a_limit(size: int, said: str) -> None:
    problem = b'{"type": "/problems/internal", "detail": "d"}'.ljust(size)
    with hostile({"GET /v1/dumps": answer(problem, "500 Oh", Content_Type=PROBLEM)}) as server:
        async with session(server) as asking:
            with pytest.raises(FarcoreError, match=said):
                await asking.dumps()


async def test_json_that_is_cut_is_a_sentence() -> None:
    with hostile({"GET /v1/dumps/x": answer(b'{"a": 1}', Content_Length="100")}) as server:
        async with session(server) as asking:
            with pytest.raises(UnreachableError, match="cut the connection in the middle of its answer"):
                await asking.describe(DumpUrl(asking.server, "x"))


async def test_a_compressed_answer_that_nobody_asked_for_is_no_json() -> None:
    packed = gzip.compress(b'{"dumps": []}')
    with hostile({"GET /v1/dumps": answer(packed, Content_Encoding="gzip", Content_Type=JSON)}) as server:
        async with session(server) as asking:
            with pytest.raises(ProtocolError, match="is not the JSON of a farcored"):
                await asking.dumps()


def test_certificates_for_plain_http_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="write https://host:80, or leave them out"):
        Session(ServerUrl.parse("http://host"), Credentials(cacert=tmp_path / "ca.pem"))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, ""), "nothing listens on host:80: check the URL (its usual port is 8787)"),
        (ConnectionResetError(errno.ECONNRESET, ""), "host:80 hung up without an answer; is it served by https://?"),
        (OSError(errno.EHOSTUNREACH, ""), "host:80 cannot be reached: No route to host; check the URL and the network"),
        (socket.gaierror(-2, "Name or service not known"), "there is no address for the name host: Name or service not known"),
        (TimeoutError(), "host:80 did not answer in time"),
        (aiohttp.ServerTimeoutError(), "host:80 did not answer in time"),
        (aiohttp.ServerDisconnectedError(), "host:80 hung up without an answer; is it served by https://?"),
        (aiohttp.ClientPayloadError(), "host:80 cut the connection in the middle of its answer"),
        (aiohttp.ClientError("odd"), "host:80 cannot be reached: odd"),
        (aiohttp.ClientError(), "host:80 cannot be reached: ClientError"),
        (ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] alert"), "http://host wants a client's certificate"),
        (
            aiohttp.ClientOSError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] alert"),
            "http://host does not take the certificate of --cert",
        ),
        (ssl.SSLError(1, "[SSL: ODD_THING] x"), "TLS with host:80 failed: "),
    ],
)
def test_every_foreign_error_is_a_sentence_of_farcore(error: Exception, sentence: str) -> None:
    with pytest.raises(FarcoreError) as caught, translated(ServerUrl.parse("http://host")):
        raise error
    assert str(caught.value).startswith(sentence)
    assert caught.value.__cause__ is error
