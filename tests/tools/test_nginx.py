"""deploy/nginx: real nginx with TLS, client certificates and its cache, in front of farcored with a token."""

from __future__ import annotations

import os
import random
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcore.batch import Batch
from farcore.frames import MEDIA_TYPE, Decoder
from farcore_server import tokens
from tests.elfwriter import Dump, load
from tests.http1 import Connection
from tests.live import Live, Serve
from tests.properties.test_live_ranges import ASKED, SIZE, Served, demand_slices
from tests.requires import requires

DEPLOY = Path(__file__).parents[2] / "deploy/nginx"
WITHIN = 20.0
pytestmark = requires("nginx", "openssl")


@dataclass(frozen=True)
class Front:
    """nginx with the shipped configuration, but for ports, places and the token."""

    url: str
    folder: Path
    live: Live

    def connection(self, *, certified: bool = True) -> Connection:
        context = ssl.create_default_context(cafile=str(self.folder / "cert.pem"))
        if certified:
            context.load_cert_chain(self.folder / "cert.pem", self.folder / "key.pem")
        connection = Connection(self.url)
        connection.socket = context.wrap_socket(connection.socket, server_hostname="127.0.0.1")
        return connection

    def asked(self) -> float:
        """How many requests for bytes of the vmcore have reached farcored."""
        token = (self.folder / "token").read_text()
        with Connection(self.live.url) as server:
            said = server.get("/metrics", Authorization=f"Bearer {token}").body.decode()
        found = re.findall(r'farcore_requests_total\{route="vmcore",status="\d+"\} ([\d.e+]+)', said)
        return sum(map(float, found))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def nginx(folder: Path, live: Live, token: str) -> Iterator[Front]:
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files: list[str | Path] = [
        "-keyout",
        folder / "key.pem",
        "-out",
        folder / "cert.pem",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    subprocess.run(["openssl", "req", "-x509", *new, *files], check=True, capture_output=True)
    (folder / "clients.pem").write_bytes((folder / "cert.pem").read_bytes())
    (folder / "token").write_text(token)
    (folder / "upstream.conf").write_text((DEPLOY / "upstream.conf").read_text().replace("TOKEN", token))
    port = free_port()
    shipped = (DEPLOY / "farcored.conf").read_text()
    for old, now in {
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/nginx/farcored/": f"{folder}/",
        "/var/cache/nginx/farcored": f"{folder}/cache",
        "server 127.0.0.1:8787": f"server {live.url.removeprefix('http://')}",
    }.items():
        assert old in shipped
        shipped = shipped.replace(old, now)
    places = "".join(
        f"{kind}_temp_path {folder}/tmp-{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    around = f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\nevents {{}}\n"
    (folder / "nginx.conf").write_text(f"{around}http {{\naccess_log off;\n{places}{shipped}\n}}\n")
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + WITHIN
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < give_up
            time.sleep(0.02)
        yield Front(f"http://127.0.0.1:{port}", folder, live)
    finally:
        process.terminate()
        process.wait(WITHIN)


@pytest.fixture(scope="module")
def content() -> bytes:
    head = Dump([load(paddr=0, offset=4096, filesz=SIZE - 4096)]).tobytes()
    return head + random.Random(11).randbytes(SIZE - len(head))


@pytest.fixture(scope="module")
def front(content: bytes, tmp_path_factory: pytest.TempPathFactory, serve_all_along: Serve) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    (folder / "vmcore").write_bytes(content)
    token = tokens.add(folder / "tokens", "nginx")
    live = serve_all_along(folder / "vmcore", "--allow-arch", "any", "--token-file", folder / "tokens")
    with nginx(folder, live, token) as found:
        yield found


def link(server: Connection) -> str:
    found = re.search(rb'"self": "([^"]+)"', server.get("/v1/dumps").body)
    assert found
    return found[1].decode()


@settings(ASKED, max_examples=80)
@given(data=st.data(), resource=st.sampled_from(["vmcore", "stored"]))
def test_any_set_of_ranges_through_nginx_gives_exactly_those_bytes(
    front: Front, content: bytes, data: st.DataObject, resource: str
) -> None:
    with front.connection() as server:
        demand_slices(Served(front.folder / "vmcore", server, link(server)), content, data, resource)


def test_who_has_no_certificate_reads_nothing(front: Front) -> None:
    with front.connection(certified=False) as server:
        assert server.get("/v1/dumps").status == 400


def test_what_one_analyst_has_read_is_not_asked_for_again_and_conditions_still_hold(front: Front, content: bytes) -> None:
    with front.connection() as server:
        vmcore = f"{link(server)}/vmcore"
        server.get(vmcore, Range="bytes=100-199")
        before = front.asked()
        answers = [server.get(vmcore, Range=f"bytes={at}-{at + 99}") for at in range(0, 1 << 20, 1 << 17)]
        assert [answer.body for answer in answers] == [content[at : at + 100] for at in range(0, 1 << 20, 1 << 17)]
        assert front.asked() - before <= 1  # one revalidation, if the slice was older than ten seconds
        etag = answers[0].get("ETag") or ""
        matched = server.get(vmcore, Range="bytes=5-9", If_Match=etag)
        assert (matched.status, matched.body) == (206, content[5:10])
        assert server.get(vmcore, Range="bytes=5-9", If_Match='"another"').status == 412
        assert server.get(vmcore, If_None_Match=etag).status == 304
        stale = server.get(vmcore, Range="bytes=5-9", If_Range='"another"')
        assert (stale.status, stale.body) == (200, content)


def test_batches_and_memory_by_address_pass_through(front: Front, content: bytes) -> None:
    with front.connection() as server:
        dump = link(server)
        assert server.get(f"{dump}/memory/physical", Range="bytes=0-99").body == content[4096:4196]
        batch = Batch.of([("vmcore", 0, 4096), ("physical", 4096, 4096)], level=1)
        answer = server.request("POST", f"{dump}/pages", {"Content-Type": MEDIA_TYPE}, batch.pack())
        decoder = Decoder(batch.total, zstd=True)
        assert b"".join(bytes(piece.content) for piece in decoder.feed(answer.body)) == content[:4096] + content[8192:12288]
        decoder.finish()


def test_a_dump_that_is_replaced_is_never_joined_with_the_one_before(front: Front, content: bytes) -> None:
    other = content[:4096] + random.Random(12).randbytes(SIZE - 4096)
    with front.connection() as server:
        vmcore = f"{link(server)}/vmcore"
        server.get(vmcore)
        fresh = front.folder / "fresh"
        fresh.write_bytes(other)
        os.rename(fresh, front.folder / "vmcore")
        try:
            give_up = time.monotonic() + 2 * WITHIN
            while (found := server.get(vmcore).body) != other:
                assert found == content
                assert time.monotonic() < give_up
                time.sleep(1)
        finally:
            fresh.write_bytes(content)
            os.rename(fresh, front.folder / "vmcore")
