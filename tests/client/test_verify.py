"""farcore verify: the same or not, and where; whatever the server says."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from farcore_server import tokens
from tests.client.conftest import Farcore
from tests.client.hostile import JSON, answer, hostile
from tests.client.test_info import dump_url
from tests.elfwriter import Dump, load
from tests.live import Live, Serve


@pytest.fixture(scope="module")
def served_dump(serve_all_along: Serve, tmp_path_factory: pytest.TempPathFactory) -> tuple[Live, Path]:
    path = Dump([load(random.Random(3).randbytes(9 << 20), paddr=0)]).write(tmp_path_factory.mktemp("verify") / "a.elf")
    return serve_all_along(path), path


def test_a_copy_is_proved_and_a_changed_one_is_not(farcore: Farcore, served_dump: tuple[Live, Path], tmp_path: Path) -> None:
    live, path = served_dump
    url, copy = dump_url(farcore, live.url, path.name), tmp_path / "copy"
    content = bytearray(path.read_bytes())
    copy.write_bytes(content)
    done = farcore("verify", url, copy)
    assert (done.status, done.stderr) == (0, "")
    assert done.text == f"{copy} is {url}: 9.0 MiB, all 3 chunks are the same\n"
    for at in (0, 4 << 20, len(content) - 1):
        content[at] ^= 1
        copy.write_bytes(content)
        content[at] ^= 1
        low = at // (4 << 20) * (4 << 20)
        done = farcore("verify", url, copy)
        assert (done.status, done.text) == (1, "")
        assert f"{copy} is not the dump: they differ somewhere in bytes {low:,} to " in done.stderr
    copy.write_bytes(content[:-1])
    assert "it has " in farcore("verify", url, copy).stderr
    assert "No such file" in farcore("verify", url, tmp_path / "none").stderr


def test_a_pull_is_proved_by_what_the_server_knows_and_says_so_where_it_has_a_token(
    farcore: Farcore, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Dump([load(random.Random(3).randbytes(9 << 20), paddr=0)]).write(tmp_path / "a.elf")
    token = tokens.add(tmp_path / "tokens", "alice")
    state = tmp_path / "state"
    live = serve(path, "--token-file", tmp_path / "tokens", environment={"STATE_DIRECTORY": str(state)})
    monkeypatch.setenv("FARCORE_TOKEN", token)
    (said,) = json.loads(farcore("ls", live.url, "--json").text)
    url = f"{live.url}/v1/dumps/{said['id']}"
    first = json.loads(farcore("pull", url, "-o", tmp_path / "one", "--json").text.splitlines()[-1])
    assert first["digests"] == 0
    assert json.loads((state / "verified" / said["id"]).read_text())["etag"] == said["etag"]
    assert farcore("verify", url, tmp_path / "one").status == 0
    last = json.loads(farcore("pull", url, "-o", tmp_path / "two", "--json").text.splitlines()[-1])
    assert last["digests"] == 3
    assert (tmp_path / "two").read_bytes() == path.read_bytes()


GOOD = {"algorithm": "blake3", "chunk_size": 4 << 20, "size": 5, "etag": '"v1"', "complete": True, "digests": ["0" * 64]}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "is not the dump: they differ somewhere in bytes 0 to 4"),
        ({"algorithm": "md5"}, "of another kind than this farcore knows"),
        ({"chunk_size": 1}, "of another kind than this farcore knows"),
        ({"digests": ["x" * 64]}, "something else than digests"),
        ({"digests": ["0" * 64] * 2}, "the server's manifest is not one"),
        ({"digests": {}}, "the server's manifest is not one"),
        ({"size": "many"}, "the server's manifest is not one"),
        ({"digests": [], "trouble": "a disk failed"}, "the server cannot make all digests: a disk failed"),
    ],
)
def test_what_is_no_manifest_proves_nothing(
    farcore: Farcore, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    (tmp_path / "file").write_bytes(b"fives")
    body = json.dumps({**GOOD, **changes}).encode()
    with hostile({"GET /v1/dumps/x/manifest": answer(body, Content_Type=JSON)}) as server:
        done = farcore("verify", f"{server.url}/v1/dumps/x", tmp_path / "file")
    assert done.status == 1
    assert sentence in done.stderr
