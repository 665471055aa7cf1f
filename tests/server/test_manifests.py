"""GET /manifest and POST /verified of a live server; the digests' oracle is blake3 over slices of the file."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import blake3

from farcore_server import tokens
from tests.elfwriter import Dump, load
from tests.http1 import Connection
from tests.live import Live, Serve
from tests.served import NOTICED_WITHIN, QUICK, only

CHUNK = 4 << 20
Said = dict[str, Any]


def dump(path: Path, seed: int = 1, size: int = 9 << 20) -> Path:
    return Dump([load(random.Random(seed).randbytes(size), paddr=0x1000)]).write(path)


def digests(path: Path) -> list[str]:
    content = path.read_bytes()
    return [blake3.blake3(content[at : at + CHUNK]).hexdigest() for at in range(0, len(content), CHUNK)]


def complete(server: Connection, link: str) -> Said:
    give_up = time.monotonic() + NOTICED_WITHIN
    while not (said := manifest(server, link))["complete"]:
        assert said["trouble"] is None
        assert time.monotonic() < give_up
        time.sleep(0.02)
    return said


def manifest(server: Connection, link: str, query: str = "") -> Said:
    answer = server.get(f"{link}/manifest{query}")
    assert (answer.status, answer.get("Content-Type")) == (200, "application/json; charset=utf-8")
    said: Said = json.loads(answer.body)
    return said


def test_a_manifest_has_the_digests_of_all_chunks_soon_after_it_was_asked_for(tmp_path: Path, serve: Serve) -> None:
    path = dump(tmp_path / "vmcore")
    with Connection(serve(path).url) as server:
        said = only(server)
        link = said["links"]["self"]
        assert manifest(server, link, "?known")["digests"] == []
        found = complete(server, link)
        assert found["digests"] == digests(path) == manifest(server, link, "?known")["digests"]
        assert (found["algorithm"], found["chunk_size"]) == ("blake3", CHUNK)
        assert (found["size"], found["etag"], found["verified"]) == (path.stat().st_size, said["etag"], None)
        assert server.get(f"{link}/manifest", If_Match=said["etag"]).status == 200
        assert server.get(f"{link}/manifest", If_Match='"another"').status == 412


def test_digests_are_not_made_unless_somebody_asks_for_more_than_is_known(tmp_path: Path, serve: Serve) -> None:
    path = dump(tmp_path / "vmcore")
    with Connection(serve(path).url) as server:
        link = only(server)["links"]["self"]
        for _ in range(5):
            assert manifest(server, link, "?known")["digests"] == []
            time.sleep(0.05)


def test_a_manifest_is_remembered_by_the_next_server(tmp_path: Path, serve: Serve) -> None:
    path, state = dump(tmp_path / "vmcore"), {"STATE_DIRECTORY": str(tmp_path / "state")}
    first = serve(path, environment=state)
    with Connection(first.url) as server:
        link = only(server)["links"]["self"]
        complete(server, link)
    until_saved(tmp_path / "state")
    first.process.terminate()
    first.process.wait()
    with Connection(serve(path, environment=state).url) as server:
        assert manifest(server, link, "?known")["digests"] == digests(path)


def until_saved(state: Path) -> None:
    give_up = time.monotonic() + NOTICED_WITHIN
    while not [path for path in state.glob("digests/*") if not path.name.startswith("tmp-")]:
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_of_a_file_that_changes_while_it_is_read_no_digest_is_kept(tmp_path: Path, serve: Serve) -> None:
    path = dump(tmp_path / "vmcore", size=200 << 20)
    state = tmp_path / "state"
    live = serve(tmp_path, *QUICK, environment={"STATE_DIRECTORY": str(state)})
    with Connection(live.url) as server:
        link, etag = only(server)["links"]["self"], only(server)["etag"]
        server.get(f"{link}/manifest")
        with path.open("r+b") as file:
            file.seek(100 << 20)
            file.write(b"other")
        os.utime(path, (1, 1))
        found = complete(server, link)
        assert found["etag"] != etag
        assert found["digests"] == digests(path)


def test_a_dump_whose_digests_are_made_keeps_nobody_waiting(tmp_path: Path, serve: Serve) -> None:
    path = dump(tmp_path / "vmcore", size=64 << 20)
    with Connection(serve(path, "--workers", "1").url) as server:
        link = only(server)["links"]["self"]
        server.get(f"{link}/manifest")
        waits = []
        for _ in range(50):
            began = time.monotonic()
            assert server.get("/healthz").status == 200
            waits.append(time.monotonic() - began)
        assert sorted(waits)[25] < 0.25


def say(server: Connection, link: str, body: object, headers: Mapping[str, str]) -> tuple[int, str]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = server.request("POST", f"{link}/verified", dict(headers), raw)
    return answer.status, json.loads(answer.body)["type"] if answer.body else ""


def test_who_shows_a_token_may_say_that_he_holds_a_proven_copy(tmp_path: Path, serve: Serve) -> None:
    path, state = dump(tmp_path / "vmcore", size=4096), tmp_path / "state"
    token = {"Authorization": f"Bearer {tokens.add(tmp_path / 'tokens', 'alice')}"}
    live = serve(path, "--token-file", tmp_path / "tokens", environment={"STATE_DIRECTORY": str(state)})
    with Connection(live.url) as server:
        said = json.loads(server.request("GET", "/v1/dumps", token).body)["dumps"][0]
        link, good = said["links"]["self"], {"etag": said["etag"]}
        assert say(server, link, good, {}) == (401, "/problems/unauthorized")
        wrong: list[object] = [b"", b"{", {"etag": 5}, [], b"[" * 3000, b" " * 5000]
        for bad in wrong:
            assert say(server, link, bad, token) == (400, "/problems/bad-verified")
        assert say(server, link, {"etag": '"older"'}, token) == (412, "/problems/changed")
        assert not (state / "verified").exists()
        assert say(server, link, good, token) == (204, "")
        written = json.loads((state / "verified" / said["id"]).read_text())
        assert (written["id"], written["etag"], written["by"]) == (said["id"], said["etag"], "alice")
        answer = server.request("GET", f"{link}/manifest?known", token)
        assert json.loads(answer.body)["verified"] == written
    assert_logged(live, said["id"])


def assert_logged(live: Live, dump_id: str) -> None:
    assert f"{dump_id}: alice holds a proven copy" in live.stderr


def test_without_tokens_nobody_is_believed_to_hold_a_proven_copy(tmp_path: Path, serve: Serve) -> None:
    with Connection(serve(dump(tmp_path / "vmcore", size=4096)).url) as server:
        said = only(server)
        assert say(server, said["links"]["self"], {"etag": said["etag"]}, {}) == (403, "/problems/token-needed")
