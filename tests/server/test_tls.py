"""TLS: real handshakes, with certificates that openssl has made, between a server with the context under test and clients."""

from __future__ import annotations

import ssl
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError, ClientSession, TCPConnector, web
from aiohttp.test_utils import TestServer

from farcore.errors import SettingsError
from farcore_server.settings import Settings
from farcore_server.tls import ssl_context
from tests.requires import requires

pytestmark = requires("openssl")


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, stdin=subprocess.DEVNULL)


def make(folder: Path, name: str, issuer: str | None = None) -> None:
    """NAME.pem and NAME.key, signed by ISSUER or by itself."""
    key, cert, request = folder / f"{name}.key", folder / f"{name}.pem", folder / f"{name}.csr"
    new: list[str | Path] = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        key,
        "-subj",
        f"/CN={name}",
    ]
    if issuer is None:
        openssl("req", "-x509", *new, "-out", cert, "-days", "2", "-addext", "keyUsage=critical,keyCertSign,digitalSignature")
        return
    openssl("req", *new, "-out", request)
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    signer: list[str | Path] = ["-CA", folder / f"{issuer}.pem", "-CAkey", folder / f"{issuer}.key", "-CAcreateserial"]
    openssl("x509", "-req", "-in", request, *signer, "-out", cert, "-days", "2", "-extfile", folder / "names")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    for name, issuer in (("ca", None), ("server", "ca"), ("clients", None), ("alice", "clients"), ("mallory", "ca")):
        make(folder, name, issuer)
    return folder


def settings(folder: Path, *, client_ca: bool = False) -> Settings:
    return Settings(
        tls_cert=folder / "server.pem",
        tls_key=folder / "server.key",
        tls_client_ca=folder / "clients.pem" if client_ca else None,
    )


def client(folder: Path, who: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if who:
        context.load_cert_chain(folder / f"{who}.pem", folder / f"{who}.key")
    return context


async def fetch(server_side: Settings, client_side: ssl.SSLContext) -> str:
    async def scheme(request: web.Request) -> web.Response:
        return web.Response(text=request.scheme)

    app = web.Application()
    app.add_routes([web.get("/", scheme)])
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=ssl_context(server_side))
    try:
        async with (
            ClientSession(connector=TCPConnector(ssl=client_side)) as session,
            session.get(server.make_url("/")) as answer,
        ):
            return await answer.text()
    finally:
        await server.close()


def test_without_a_certificate_there_is_no_tls() -> None:
    assert ssl_context(Settings()) is None


async def test_a_client_that_trusts_the_ca_gets_an_answer(certificates: Path) -> None:
    assert await fetch(settings(certificates), client(certificates)) == "https"


async def test_a_client_that_does_not_trust_the_ca_gets_none(certificates: Path) -> None:
    with pytest.raises(ClientConnectionError):
        await fetch(settings(certificates), ssl.create_default_context())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_1_2_and_1_3_are_spoken(certificates: Path, version: ssl.TLSVersion) -> None:
    side = client(certificates)
    side.minimum_version = side.maximum_version = version
    assert await fetch(settings(certificates), side) == "https"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_1_1_is_refused_by_the_server(certificates: Path) -> None:
    # SECLEVEL=0, or the client itself would have none of 1.1.
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(certificates / "ca.pem")
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context = ssl_context(settings(certificates))
    assert context is not None
    with pytest.raises(ssl.SSLError, match=r"(?i)unsupported.protocol|version"):
        handshake(context, old)


def handshake(server_side: ssl.SSLContext, client_side: ssl.SSLContext) -> None:
    """Both ends in memory, in turns, until neither has more to say; ssl.SSLError of either."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client_side.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server_side.wrap_bio(to_server, to_client, True),
    ]
    for _ in range(8):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("who", "welcome"), [("alice", True), ("mallory", False), (None, False)])
async def test_where_a_client_ca_is_named_only_its_clients_get_in(
    certificates: Path, who: str | None, welcome: bool, version: ssl.TLSVersion
) -> None:
    side = client(certificates, who)
    side.minimum_version = side.maximum_version = version
    if welcome:
        assert await fetch(settings(certificates, client_ca=True), side) == "https"
        return
    with pytest.raises(ClientConnectionError):
        await fetch(settings(certificates, client_ca=True), side)


async def test_a_client_certificate_is_not_asked_for_unless_a_ca_is_named(certificates: Path) -> None:
    assert await fetch(settings(certificates), client(certificates, "mallory")) == "https"


def test_a_file_that_cannot_be_used_is_named(certificates: Path) -> None:
    good = settings(certificates)
    ca, key, other = (certificates / name for name in ("ca.pem", "server.key", "alice.key"))
    (certificates / "text").write_text("not PEM")
    for wrong, why in (
        (replace(good, tls_cert=certificates / "none"), f"{certificates}/none: .*No such file"),
        (replace(good, tls_client_ca=certificates / "none"), f"{certificates}/none: .*No such file"),
        (replace(good, tls_cert=certificates / "text"), "server.key are no certificate and its key"),
        (replace(good, tls_key=other), "alice.key are no certificate and its key: key values mismatch"),
        (replace(good, tls_cert=ca), "key values mismatch"),
        (replace(good, tls_client_ca=certificates / "text"), "text: no certificates of CAs"),
        (replace(good, tls_client_ca=key), "server.key: no certificates of CAs"),
    ):
        with pytest.raises(SettingsError, match=why):
            ssl_context(wrong)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(certificates: Path) -> None:
    encrypted = certificates / "encrypted.key"
    openssl("pkey", "-in", certificates / "server.key", "-aes256", "-passout", "pass:secret", "-out", encrypted)
    with pytest.raises(SettingsError, match="is encrypted"):
        ssl_context(replace(settings(certificates), tls_key=encrypted))
