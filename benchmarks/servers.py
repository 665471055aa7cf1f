"""Servers: nginx, farcored and the C responder, each as processes of their own on a port of loopback."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import BenchmarkError, process
from benchmarks.network import free_port
from benchmarks.wan import Wan

STARTS_WITHIN: Final = 30.0  # seconds; a busy machine takes several for Python's imports alone
STOPS_WITHIN: Final = 10.0
LOOPBACK: Final = "127.0.0.1"

# What an administrator who cares would set. sendfile_max_chunk keeps its default, 2m: it is what keeps a worker fair.
# max_ranges is unlimited by default; 2,008 of them take 44 KiB of header.
VARIANTS: Final = {
    "nginx": "sendfile on;",
    "nginx aio": "sendfile on; aio threads;",  # a cold file need not stall a worker
    "nginx copying": "sendfile off;",  # cheaper for a page, dearer for everything larger
}
_NGINX: Final = """
{user}
worker_processes {workers};
daemon off;
pid {directory}/pid;
error_log {directory}/error.log warn;
worker_rlimit_nofile 65536;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    default_type application/octet-stream;
    {variant}
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_requests 1000000;
    keepalive_timeout 300s;
    large_client_header_buffers 4 64k;
    open_file_cache max=1000 inactive=300s;
    open_file_cache_valid 60s;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen {address}:{port}{ssl};
        root {root};
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A key and a certificate for 127.0.0.1, signed by itself."""

    chain: Path
    key: Path

    @classmethod
    def make(cls, directory: Path) -> Certificate:
        """With openssl(1), P-256, for a day."""
        made = cls(directory / "chain.pem", directory / "key.pem")
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=127.0.0.1"
        subprocess.run([*command.split(), "-out", made.chain, "-keyout", made.key], check=True, capture_output=True)
        return made


@dataclass(frozen=True, slots=True)
class Server:
    """Processes that answer at ``address`` and ``port``; ``paths`` has the URL's path of each file by its name."""

    name: str
    port: int
    pid: int
    paths: Mapping[str, str]
    tls: bool = False
    address: str = LOOPBACK

    @property
    def family(self) -> tuple[int, ...]:
        """Its processes."""
        return process.family(self.pid)


def nginx_program() -> str:
    """Its path; an ordinary user's PATH need not have it."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise BenchmarkError("nginx is not installed: apt-get install nginx-light")
    return program


@contextmanager
def nginx(
    root: Path, *, name: str = "nginx", workers: int = 1, certificate: Certificate | None = None, line: Wan | None = None
) -> Iterator[Server]:
    """nginx over the files of ``root``, at the far end of a line if there is one; ``name`` is one of VARIANTS."""
    port = free_port()
    directory = root.parent / f"nginx-{port}"
    directory.mkdir()
    conf, log = directory / "nginx.conf", directory / "error.log"
    conf.write_text(
        _NGINX.format(
            user="user root;" if os.geteuid() == 0 else "",
            workers=workers,
            directory=directory,
            address=line.address if line else LOOPBACK,
            port=port,
            root=root,
            variant=VARIANTS[name],
            ssl=f" ssl; ssl_certificate {certificate.chain}; ssl_certificate_key {certificate.key}" if certificate else "",
        )
    )
    with _running([nginx_program(), "-e", str(log), "-c", str(conf)], log, port, line) as pid:
        paths = {path.name: f"/{path.name}" for path in root.iterdir()}
        yield Server(name, port, pid, paths, certificate is not None, line.address if line else LOOPBACK)


@contextmanager
def farcored(
    root: Path, *, workers: int = 1, certificate: Certificate | None = None, line: Wan | None = None
) -> Iterator[Server]:
    """farcored over the dumps of ``root``, with the settings that it has by itself; at the far end of a line, if any."""
    port, address = free_port(), line.address if line else LOOPBACK
    command = [str(Path(sys.executable).with_name("farcored")), "serve", str(root), "--listen", f"{address}:{port}"]
    command += ["--workers", str(workers), *(["--insecure"] if line else [])]
    if certificate:
        command += ["--tls-cert", str(certificate.chain), "--tls-key", str(certificate.key)]
    with _running(command, root.parent / f"farcored-{port}.log", port, line) as pid:
        paths = {dump["name"]: f"/v1/dumps/{dump['id']}/vmcore" for dump in _listed(address, port, certificate)}
        yield Server("farcore", port, pid, paths, certificate is not None, address)


@contextmanager
def responder(program: Path, file: Path) -> Iterator[Server]:
    """The C responder over one file."""
    port = free_port()
    with _running([str(program), str(port), str(file)], file.parent.parent / f"responder-{port}.log", port) as pid:
        yield Server("C epoll", port, pid, {file.name: "/"})


@contextmanager
def _running(command: Sequence[str], log: Path, port: int, line: Wan | None = None) -> Iterator[int]:
    """The process's id, once it takes connections. It ends with the body, and with us, whatever becomes of us."""
    there = line.server if line else ()
    with log.open("ab") as said:
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *there, *command], stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
    try:
        _await(child, (line.address if line else LOOPBACK, port), log)
        yield child.pid
    finally:
        child.terminate()
        try:
            child.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _await(child: subprocess.Popen[bytes], at: tuple[str, int], log: Path) -> None:
    give_up = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < give_up and child.poll() is None:
        try:
            with closing(http.client.HTTPConnection(*at, timeout=1)) as connection:
                connection.connect()
            return
        except OSError:
            time.sleep(0.05)
    raise BenchmarkError(f"{log.name.rpartition('-')[0]} did not start: {log.read_text()[-2000:]}")


def _listed(address: str, port: int, certificate: Certificate | None) -> list[dict[str, Any]]:
    """GET /v1/dumps."""
    connection: http.client.HTTPConnection
    if certificate:
        trust = ssl.create_default_context(cafile=str(certificate.chain))
        trust.check_hostname = False
        connection = http.client.HTTPSConnection(address, port, timeout=STARTS_WITHIN, context=trust)
    else:
        connection = http.client.HTTPConnection(address, port, timeout=STARTS_WITHIN)
    with closing(connection):
        connection.request("GET", "/v1/dumps")
        dumps: list[dict[str, Any]] = json.load(connection.getresponse())["dumps"]
        return dumps
