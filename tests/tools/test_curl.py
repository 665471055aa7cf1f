"""The promises of the README as curl keeps them: ranges, resumption, conditions, credentials."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.elfwriter import Dump as File
from tests.elfwriter import load
from tests.live import Live, Serve
from tests.multipart import parts_of_mail
from tests.requires import requires

pytestmark = requires("curl")

CONTENT = File([load(os.urandom(3 << 20), paddr=0x100000)]).tobytes()


@dataclass(frozen=True, slots=True)
class Curl:
    """curl in a folder, against one dump."""

    live: Live
    folder: Path
    dump: str

    def __call__(self, *arguments: str, check: bool = True) -> bytes:
        done = subprocess.run(["curl", "-q", "-sS", *arguments], cwd=self.folder, capture_output=True, timeout=60)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def status(self, *arguments: str) -> int:
        return int(self("-o", os.devnull, "-w", "%{http_code}", *arguments))


def curl_to(live: Live, folder: Path, *credentials: str) -> Curl:
    unnamed = Curl(live, folder, "")
    (dump,) = json.loads(unnamed(*credentials, f"{live.url}/v1/dumps"))["dumps"]
    return Curl(live, folder, f"{live.url}{dump['links']['self']}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "vmcore").write_bytes(CONTENT)
    return tmp_path / "served" / "vmcore"


@pytest.fixture
def curl(path: Path, tmp_path: Path, serve: Serve) -> Curl:
    (tmp_path / "client").mkdir()
    return curl_to(serve(path, "--host-arch", "x86_64"), tmp_path / "client")


def test_a_range_a_suffix_and_several_ranges(curl: Curl) -> None:
    assert curl("-r", "0-63", f"{curl.dump}/vmcore") == CONTENT[:64]
    assert curl("-r", "-100", f"{curl.dump}/vmcore") == CONTENT[-100:]
    assert curl("-r", "1048576-1052671", f"{curl.dump}/memory/physical") == CONTENT[120:4216]
    mail = curl("-i", "-r", "0-9,5000-5009", f"{curl.dump}/vmcore")
    assert [body for _, body in parts_of_mail(mail.partition(b"\r\n")[2])] == [CONTENT[:10], CONTENT[5000:5010]]


def test_a_download_that_was_cut_is_resumed_where_it_ended(curl: Curl) -> None:
    (curl.folder / "vmcore").write_bytes(CONTENT[:1_000_000])
    curl("-C", "-", "-O", f"{curl.dump}/vmcore")
    assert (curl.folder / "vmcore").read_bytes() == CONTENT


def test_a_resumed_download_of_a_dump_that_has_changed_starts_anew(curl: Curl, path: Path) -> None:
    curl("--etag-save", "tag", "-r", "0-999999", "-o", "vmcore", f"{curl.dump}/vmcore")
    tag = (curl.folder / "tag").read_text().strip()
    changed = CONTENT[:-5] + b"other"
    path.unlink()
    path.write_bytes(changed)
    assert curl("-H", f"If-Range: {tag}", "-r", "1000000-", f"{curl.dump}/vmcore") == changed
    assert curl("-f", "-H", f"If-Match: {tag}", f"{curl.dump}/vmcore", check=False) == b""


def test_what_one_has_already_is_not_sent_again(curl: Curl) -> None:
    curl("--etag-save", "tag", "-o", "vmcore", f"{curl.dump}/vmcore")
    assert curl.status("--etag-compare", "tag", f"{curl.dump}/vmcore") == 304
    curl("-R", "-o", "vmcore", f"{curl.dump}/vmcore")
    assert curl.status("-z", "vmcore", f"{curl.dump}/vmcore") == 304
    assert (curl.folder / "vmcore").stat().st_mtime == int((curl.folder.parent / "served" / "vmcore").stat().st_mtime)


def test_head_shows_the_size_and_the_tag(curl: Curl) -> None:
    fields = curl("-I", f"{curl.dump}/vmcore").decode().lower()
    assert f"content-length: {len(CONTENT)}\r\n" in fields
    assert "accept-ranges: bytes\r\n" in fields
    assert 'etag: "' in fields


def test_an_error_makes_curl_f_fail_and_says_why_without_it(curl: Curl) -> None:
    done = subprocess.run(["curl", "-q", "-sSf", "-r", "0-9", f"{curl.dump}/memory/physical"], capture_output=True)
    assert (done.returncode, done.stdout) == (22, b"")
    said = json.loads(curl("-r", "0-9", f"{curl.dump}/memory/physical"))
    assert (said["type"], said["address"], said["kind"]) == ("/problems/unmapped", "0x0", "absent")


def test_a_token_is_taken_as_a_password_as_a_bearer_and_from_netrc(path: Path, tmp_path: Path, serve: Serve) -> None:
    farcored = str(Path(sys.executable).with_name("farcored"))
    file = tmp_path / "tokens"
    made = subprocess.run([farcored, "token", "add", "alice", "--token-file", file], capture_output=True, text=True, check=True)
    token = made.stdout.strip()
    live = serve(path, "--token-file", file, "--host-arch", "x86_64")
    curl = curl_to(live, tmp_path, "-u", f"alice:{token}")
    (tmp_path / "netrc").write_text(f"machine {urlsplit(live.url).hostname} login alice password {token}\n")
    target = f"{curl.dump}/vmcore"
    assert curl.status(target) == 401
    assert curl.status("-u", "alice:guess", target) == 401
    for credentials in (["-u", f"anyone:{token}"], ["--oauth2-bearer", token], ["--netrc-file", "netrc"]):
        assert curl.status("-r", "0-9", *credentials, target) == 206
