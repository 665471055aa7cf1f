"""farcore against farcored over TLS, with certificates that openssl has made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.client.conftest import Farcore, Served
from tests.live import Live, Serve
from tests.requires import requires

pytestmark = requires("openssl")


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, stdin=subprocess.DEVNULL)


def make(folder: Path, name: str, alternative: str) -> None:
    """NAME.pem, which has signed itself, and NAME.key."""
    files = ("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")
    names = ("-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}")
    openssl("req", "-x509", "-days", "2", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *names, *files)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    make(folder, "server", "IP:127.0.0.1")
    make(folder, "elsewhere", "DNS:elsewhere.example")
    make(folder, "alice", "DNS:alice")
    make(folder, "mallory", "DNS:mallory")
    return folder


@pytest.fixture
def live(serve: Serve, served: Served, certificates: Path) -> Live:
    return serve(served.folder, "--tls-cert", certificates / "server.pem", "--tls-key", certificates / "server.key")


def test_a_server_is_trusted_by_the_ca_that_is_named(farcore: Farcore, live: Live, certificates: Path) -> None:
    assert live.url.startswith("https://")
    done = farcore("ls", live.url, "--cacert", certificates / "server.pem")
    assert (done.status, done.stderr) == (0, "")
    assert f"{live.url}/v1/dumps/small-elf-" in done.text


@pytest.mark.parametrize("ca", [[], ["--cacert", "alice.pem"]])
def test_a_server_that_is_not_trusted_is_not_read(farcore: Farcore, live: Live, certificates: Path, ca: list[str]) -> None:
    done = farcore("ls", live.url, *(certificates / word if word.endswith(".pem") else word for word in ca))
    assert (done.status, done.stdout) == (1, b"")
    assert "is not trusted" in done.stderr
    assert "give --cacert FILE" in done.stderr


def test_a_certificate_of_another_name_is_refused(farcore: Farcore, serve: Serve, served: Served, certificates: Path) -> None:
    pair = ("--tls-cert", certificates / "elsewhere.pem", "--tls-key", certificates / "elsewhere.key")
    done = farcore("ls", serve(served.folder, *pair).url, "--cacert", certificates / "elsewhere.pem")
    assert (done.status, done.stdout) == (1, b"")
    assert "is another name's" in done.stderr


def test_http_and_https_that_were_mistaken_for_each_other_are_told_apart(farcore: Farcore, live: Live, served: Served) -> None:
    done = farcore("ls", live.url.replace("https", "http"))
    assert (done.status, "is it served by https://?" in done.stderr) == (1, True)
    done = farcore("ls", served.url.replace("http", "https"))
    assert (done.status, f"speaks no TLS: write {served.url}" in done.stderr) == (1, True)


def test_a_clients_certificate_is_shown_where_one_is_asked_for(
    farcore: Farcore, serve: Serve, served: Served, certificates: Path
) -> None:
    pair = ("--tls-cert", certificates / "server.pem", "--tls-key", certificates / "server.key")
    live = serve(served.folder, *pair, "--tls-client-ca", certificates / "alice.pem")
    ask = ("ls", live.url, "--cacert", certificates / "server.pem")
    assert farcore(*ask, "--cert", certificates / "alice.pem", "--key", certificates / "alice.key").status == 0
    both = certificates / "both.pem"
    both.write_bytes((certificates / "alice.pem").read_bytes() + (certificates / "alice.key").read_bytes())
    assert farcore(*ask, "--cert", both).status == 0
    for more in ([], ["--cert", certificates / "mallory.pem", "--key", certificates / "mallory.key"]):
        done = farcore(*ask, *more)
        assert (done.status, done.stdout) == (1, b"")
        assert "--cert" in done.stderr
    done = farcore(*ask, "--cert", certificates / "alice.pem", "--key", certificates / "mallory.key")
    assert (done.status, "are no certificate and its key: key values mismatch" in done.stderr) == (2, True)
