"""Where debuginfod's files are kept, and what a server that is none may do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from farcore_client import debuginfod

ID = "ab" * 20


class Refused(Exception):
    """What a test's check raises."""


def taken(path: Path) -> None:
    assert path.stat().st_size == 5


@pytest.fixture
async def urls() -> AsyncIterator[dict[str, str]]:
    """Servers by what they do."""

    async def gives(request: web.Request) -> web.Response:
        return web.Response(body=b"whole")

    async def cuts(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "5"})
        await answer.prepare(request)
        await answer.write(b"who")
        assert request.transport is not None
        request.transport.close()
        return answer

    async def breaks(request: web.Request) -> web.Response:
        return web.Response(status=502)

    found, runners = {}, []
    for answer in (gives, cuts, breaks):
        app = web.Application()
        app.router.add_get(f"/buildid/{ID}/debuginfo", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found[answer.__name__] = f"http://127.0.0.1:{runner.addresses[0][1]}"
        runners.append(runner)
    yield found
    for runner in runners:
        await runner.cleanup()


def test_only_web_addresses_are_servers() -> None:
    words = "ima:enforcing https://debuginfod.example.org/ file:///srv http://[::1]:8002"
    assert debuginfod.servers({"DEBUGINFOD_URLS": words}) == ["https://debuginfod.example.org", "http://[::1]:8002"]
    assert debuginfod.servers({}) == []


def test_the_cache_is_where_debuginfod_find_has_it() -> None:
    home = {"HOME": "/u/kim"}
    assert debuginfod.cache(home) == Path("/u/kim/.cache/debuginfod_client")
    assert debuginfod.cache(home | {"XDG_CACHE_HOME": "/x"}) == Path("/x/debuginfod_client")
    assert debuginfod.cache(home | {"XDG_CACHE_HOME": "/x", "DEBUGINFOD_CACHE_PATH": "/y"}) == Path("/y")


async def test_a_body_that_is_cut_is_not_kept_and_the_next_server_is_asked(tmp_path: Path, urls: dict[str, str]) -> None:
    assert await debuginfod.fetch(ID, [urls["cuts"], urls["breaks"]], tmp_path, taken) is None
    assert [*(tmp_path / ID).iterdir()] == []
    kept = await debuginfod.fetch(ID, [urls["cuts"], urls["breaks"], urls["gives"]], tmp_path, taken)
    assert kept == tmp_path / ID / "debuginfo"
    assert kept.read_bytes() == b"whole"


async def test_what_the_check_refuses_is_not_kept(tmp_path: Path, urls: dict[str, str]) -> None:
    def refuses(path: Path) -> None:
        raise Refused

    with pytest.raises(Refused):
        await debuginfod.fetch(ID, [urls["gives"]], tmp_path, refuses)
    assert [*(tmp_path / ID).iterdir()] == []


async def test_a_kept_file_is_used_without_a_server_and_an_empty_one_is_not(tmp_path: Path, urls: dict[str, str]) -> None:
    kept = tmp_path / ID / "debuginfo"
    kept.parent.mkdir()
    kept.touch(0o000)
    assert await debuginfod.fetch(ID, [urls["gives"]], tmp_path, taken) == kept
    assert await debuginfod.fetch(ID, ["http://127.0.0.1:9"], tmp_path, taken) == kept
