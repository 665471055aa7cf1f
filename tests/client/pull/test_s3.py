"""farcore pull from S3: a real server of it (SeaweedFS), and URLs that the AWS SDK has signed, for GET and nothing else."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import Farcore
from tests.requires import program, requires

SCRIPT = Path(sys.executable).with_name("farcore")
KEY, SECRET = "analyst", "not really secret"
CONTENT = b"".join(random.Random(n).randbytes(1 << 20) if n % 4 else bytes(1 << 20) for n in range(24)) + b"the end"
# Seconds in which the server, in Go and with a database, has begun.
WITHIN = 60.0
pytestmark = requires("weed", "boto3")


class Bucket:
    """One in a real S3 server."""

    def __init__(self, endpoint: str) -> None:
        import boto3

        self._client: Any = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=KEY, aws_secret_access_key=SECRET
        )
        self._client.create_bucket(Bucket="dumps")

    def put(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket="dumps", Key=name, Body=content)

    def signed(self, name: str, *, seconds: int = 600) -> str:
        """A URL with which anybody may GET it."""
        wanted = {"Bucket": "dumps", "Key": name}
        url: str = self._client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=seconds)
        return url


def ports(count: int) -> list[int]:
    """So many that are free."""
    with ExitStack() as taken:
        probes = [taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    folder = tmp_path_factory.mktemp("s3")
    users = [{"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}]
    (folder / "users").write_text(json.dumps({"identities": users}))
    names = ("s3", "s3.port.grpc", "master", "master.port.grpc", "volume", "volume.port.grpc", "filer", "filer.port.grpc")
    chosen = dict(zip(names, ports(len(names)), strict=True))
    options = [f"-{name if '.' in name else f'{name}.port'}={port}" for name, port in chosen.items()]
    command = [str(program("weed")), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-s3", *options]
    command += [f"-s3.config={folder}/users", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64"]
    endpoint, give_up = f"http://127.0.0.1:{chosen['s3']}", time.monotonic() + WITHIN
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            while True:
                try:
                    made = Bucket(endpoint)
                    made.put("vm core", CONTENT)
                    break
                except Exception:
                    if time.monotonic() > give_up:
                        raise
                    time.sleep(0.3)
            yield made
        finally:
            server.kill()  # it takes half a minute to end in order


def test_a_signed_url_that_refuses_head_is_pulled_in_ranges(farcore: Farcore, bucket: Bucket, tmp_path: Path) -> None:
    url = bucket.signed("vm core")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"))
    done = farcore("pull", url, "-o", tmp_path / "copy")
    assert (done.status, done.stderr) == (0, "")
    assert "over ranges: 6.0 MiB zeros" in done.text
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert (tmp_path / "copy").stat().st_blocks * 512 < len(CONTENT) - (5 << 20)


def test_what_a_signature_does_not_allow_is_a_sentence_and_the_url_is_not_repeated(
    farcore: Farcore, bucket: Bucket, tmp_path: Path
) -> None:
    url = bucket.signed("vm core")
    for wrong in (url.replace("Signature=", "Signature=0"), url.replace("vm%20core", "other")):
        done = farcore("pull", wrong, "-o", tmp_path / "copy")
        assert (done.status, done.stdout) == (1, b"")
        assert "the server answered 403 Forbidden: may it be read, and has the link expired?" in done.stderr
        assert "Signature" not in done.stderr
    assert not list(tmp_path.iterdir())


def begun(url: str, to: Path) -> int:
    """Kill a pull once some of it is proved; bytes of the journal."""
    journal = to.with_name(to.name + ".journal")
    command = [str(SCRIPT), "pull", url, "-o", str(to), "--limit-rate", "6M"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as pull:
        give_up = time.monotonic() + 30
        while not journal.exists() or journal.stat().st_size < 300:
            assert time.monotonic() < give_up
            assert pull.poll() is None
            time.sleep(0.02)
        pull.kill()
    return journal.stat().st_size


def test_a_killed_pull_goes_on_with_the_next_signed_url(farcore: Farcore, bucket: Bucket, tmp_path: Path) -> None:
    assert begun(bucket.signed("vm core"), tmp_path / "copy")
    done = farcore("pull", bucket.signed("vm core", seconds=601), "-o", tmp_path / "copy", "--json")
    assert done.status == 0
    assert json.loads(done.text.splitlines()[0])["resumed"] >= 1 << 20
    assert (tmp_path / "copy").read_bytes() == CONTENT


def test_an_object_that_was_replaced_is_never_spliced(farcore: Farcore, bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("replaced", CONTENT)
    assert begun(bucket.signed("replaced"), tmp_path / "copy")
    bucket.put("replaced", CONTENT[::-1])
    done = farcore("pull", bucket.signed("replaced"), "-o", tmp_path / "copy")
    assert (done.status, "two versions are never mixed" in done.stderr) == (1, True)
    assert not (tmp_path / "copy").exists()
