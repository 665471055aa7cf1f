"""farcore pull of files on servers that are no farcored: with ranges, without them, and with ranges that lie."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from farcore.errors import SettingsError
from farcore_client.plainurl import PlainUrl
from tests.client.conftest import Farcore
from tests.client.hostile import answer, hostile
from tests.requires import requires

CONTENT = b"".join(random.Random(n).randbytes(1 << 20) if n % 2 else bytes(1 << 20) for n in range(5)) + b"the end"
ETAG = '"strong"'


def ranged(head: str, content: bytes = CONTENT, etag: str = ETAG) -> bytes:
    """The answer of a server that has ranges and honours If-Match."""
    found = re.search(r"Range: bytes=(\d+)-(\d+)", head)
    asked = re.search(r'If-Match: (".*?")', head)
    if asked and asked[1] != etag:
        return answer(status="412 Precondition Failed")
    if found is None:
        return answer(content, ETag=etag)
    first, last = int(found[1]), min(int(found[2]), len(content) - 1)
    said = f"bytes {first}-{last}/{len(content)}"
    return answer(content[first : last + 1], "206 Partial Content", ETag=etag, Content_Range=said)


def test_a_file_comes_in_ranges_with_its_query_and_no_token(
    farcore: Farcore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hostile(ranged) as server:
        monkeypatch.setenv("FARCORE_TOKEN", "farcore_secret")
        done = farcore("pull", f"{server.url}/bucket/a%2Fb.elf?X-Sig=a%2Bb%3D&x=1", "-o", tmp_path / "copy")
    assert (done.status, done.stderr) == (0, "")
    assert "over ranges: 3.0 MiB zeros" in done.text
    assert "verified by TCP alone" in done.text
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert (tmp_path / "copy").stat().st_blocks * 512 < 3 << 20
    assert set(server.requests()) == {"GET /bucket/a%2Fb.elf?X-Sig=a%2Bb%3D&x=1"}
    assert not [head for head in server.asked if "farcore_secret" in head]
    assert "X-Sig" not in done.text


@contextmanager
def python_server(folder: Path) -> Iterator[str]:
    """What `python -m http.server` runs: no ranges, no ETag, a date."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *said: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_server_without_ranges_gives_one_stream_and_the_name_is_the_files(
    farcore: Farcore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www/a b.elf").write_bytes(CONTENT)
    monkeypatch.chdir(tmp_path)
    with python_server(tmp_path / "www") as url:
        done = farcore("pull", f"{url}/a%20b.elf")
    assert done.status == 0
    assert "over one stream" in done.text
    assert (tmp_path / "a b.elf").read_bytes() == CONTENT


def test_a_file_that_is_replaced_while_it_is_pulled_is_not_spliced(farcore: Farcore, tmp_path: Path) -> None:
    count = 0

    def changing(head: str) -> bytes:
        nonlocal count
        count += 1
        return ranged(head) if count < 2 else ranged(head.replace("If-Match", "X-Match"), CONTENT[::-1], '"other"')

    with hostile(changing) as server:
        done = farcore("pull", f"{server.url}/a.elf", "-o", tmp_path / "copy")
    assert (done.status, "two versions are never mixed" in done.stderr) == (1, True)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (answer(status="403 Forbidden"), "the server answered 403 Forbidden: may it be read, and has the link expired?"),
        (answer(status="404 Not Found"), "the file is not, or no longer, there"),
        (answer(status="302 Found", Location="http://x"), "the server answered 302 Found"),
        (answer(b"0\r\n\r\n", Transfer_Encoding="chunked"), "does not say how long the file is"),
        (answer(b"x", Content_Encoding="gzip"), "sends the file encoded (gzip)"),
        (answer(b"x", "206 Partial Content"), "does not say what it is"),
    ],
)
def test_what_is_no_file_is_a_sentence(farcore: Farcore, tmp_path: Path, said: bytes, sentence: str) -> None:
    with hostile({"GET /a.elf": said}) as server:
        done = farcore("pull", f"{server.url}/a.elf", "-o", tmp_path / "copy")
    assert (done.status, done.stdout) == (1, b"")
    assert sentence in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_dump_whose_batches_are_kept_away_comes_in_ranges(farcore: Farcore, tmp_path: Path) -> None:
    def proxy(head: str) -> bytes:
        return answer(b"no", "405 Method Not Allowed") if head.startswith("POST") else ranged(head)

    with hostile(proxy) as server:
        done = farcore("pull", f"{server.url}/v1/dumps/x", "-o", tmp_path / "copy")
        events = farcore("pull", f"{server.url}/v1/dumps/x", "-o", tmp_path / "other", "--json").text.splitlines()
    assert done.status == 0
    assert re.fullmatch(r"farcore: no batches of pages here \(.*405.*\): what is left comes in plain ranges.*\n", done.stderr)
    assert "over ranges" in done.text
    assert (tmp_path / "copy").read_bytes() == CONTENT
    said = [event["event"] for event in map(json.loads, events)]
    assert [each for each in said if each != "progress"] == ["start", "instead", "start", "done"]


@pytest.mark.parametrize(
    "text", ["http://h/", "http://h/a/", "http://h/..", "http://u:p@h/a", "http://h/a#b", "ftp://h/a", "http://h/ö"]
)
def test_what_names_no_file_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        PlainUrl.parse(text)
    assert "u:p" not in str(caught.value)


@requires("nginx")
def test_nginx_gives_ranges(farcore: Farcore, tmp_path: Path) -> None:
    (tmp_path / "www").mkdir(mode=0o755)
    (tmp_path / "www/a.elf").write_bytes(CONTENT)
    tmp_path.chmod(0o755)
    with python_server(tmp_path) as url:
        port = int(url.rpartition(":")[2])
    config = f"""
daemon off; pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}}
http {{ access_log off; client_body_temp_path {tmp_path}/t; proxy_temp_path {tmp_path}/t; fastcgi_temp_path {tmp_path}/t;
        uwsgi_temp_path {tmp_path}/t; scgi_temp_path {tmp_path}/t;
        server {{ listen 127.0.0.1:{port}; root {tmp_path}/www; }} }}
user root;
"""
    (tmp_path / "conf").write_text(config)
    with subprocess.Popen(["nginx", "-c", str(tmp_path / "conf")]) as nginx:
        try:
            for _ in range(50):
                done = farcore("pull", f"http://127.0.0.1:{port}/a.elf", "-o", tmp_path / "copy")
                if done.status == 0:
                    break
        finally:
            nginx.terminate()
    assert "over ranges" in done.text
    assert (tmp_path / "copy").read_bytes() == CONTENT
