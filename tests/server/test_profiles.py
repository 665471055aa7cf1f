from __future__ import annotations

import json
from pathlib import Path

from farcore.profile import MAX_SIZE
from tests.elfwriter import Dump, load
from tests.http1 import Answer, Connection
from tests.live import Serve

BUILD = "3b43fad5034874490492495d552c0af6a5fab235"
NATIVE = ("--host-arch", "x86_64")


def profile(**kinds: list[list[int]]) -> bytes:
    return json.dumps({"version": 1, "sessions": 1, "kinds": kinds, "dumps": {}}).encode()


def put(server: Connection, body: bytes, build_id: str = BUILD) -> Answer:
    return server.request("PUT", f"/v1/profiles/{build_id}", {"Content-Type": "application/json"}, body)


def test_what_sessions_read_is_merged_and_kept_over_a_restart(tmp_path: Path, serve: Serve) -> None:
    dump = Dump([load(b"page")]).write(tmp_path / "vmcore")
    state = {"STATE_DIRECTORY": str(tmp_path / "state")}
    with Connection(serve(dump, *NATIVE, "--workers", "2", environment=state).url) as server:
        assert server.get(f"/v1/profiles/{BUILD}").status == 404
        assert put(server, profile(image=[[4096, 2, 1]])).status == 204
    live = serve(dump, *NATIVE, "--workers", "2", environment=state)
    for _ in range(4):  # whichever worker it meets
        with Connection(live.url) as server:
            assert put(server, profile(image=[[4097, 2, 1]], memmap=[[7, 1, 1]])).status == 204
            found = json.loads(server.get(f"/v1/profiles/{BUILD}").body)
    assert found["sessions"] == 5
    assert found["kinds"] == {"image": [[4096, 1, 1], [4097, 2, 5]], "memmap": [[7, 1, 5]]}


def test_what_is_no_profile_is_refused_and_changes_nothing(tmp_path: Path, serve: Serve) -> None:
    dump = Dump([load(b"page")]).write(tmp_path / "vmcore")
    with Connection(serve(dump, *NATIVE, "--workers", "1").url) as server:
        assert put(server, profile(image=[[4096, 2, 1]])).status == 204
        for body in (b"", b"[]", profile(image=[[4096, 0, 1]])):
            refused = put(server, body)
            assert (refused.status, json.loads(refused.body)["type"]) == (400, "/problems/bad-profile")
        for build_id in ("../tokens", "ABCDEF12", "12", "0" * 66):
            assert put(server, profile(), build_id).status == 404
        assert json.loads(server.get(f"/v1/profiles/{BUILD}").body)["sessions"] == 1
        assert put(server, b" " * (MAX_SIZE + 1)).status == 413
