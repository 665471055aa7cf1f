"""farcore mount: a dump on a server as a file of this machine, for programs that know of files alone."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farcore_client.credentials import Credentials
from farcore_client.doors.mount import mounted
from farcore_client.dumpurl import DumpUrl, ServerUrl
from farcore_client.remote import connect, courier
from farcore_client.session import Session
from farcore_server import tokens
from tests.client.remote.conftest import dump_url
from tests.elfwriter import Dump, load
from tests.live import Live, Serve
from tests.realdumps import RealDumps
from tests.relay import relay
from tests.requires import requires

pytestmark = requires("fusermount3")

SAMPLE = "x86_64-panic.elf"
NATIVE = ("--host-arch", "x86_64", "--rescan", "0.2")
PAGE = 4096
NOISE = os.urandom(1024 * PAGE)
FARCORE = str(Path(sys.executable).with_name("farcore"))

Sample = Callable[[str], Path]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="root alone mounts without fusermount3")


@pytest.fixture(scope="module", autouse=True)
def _usable() -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse may not be used here")


@pytest.fixture(scope="module")
def live(sample: Sample, serve_all_along: Serve) -> Live:
    return serve_all_along(sample(SAMPLE), *NATIVE)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "mnt"
    directory.mkdir()
    yield directory
    if os.path.ismount(directory):
        subprocess.run(["fusermount3", "-uz", directory], check=True)


def farcore(live: Live, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    url = str(dump_url(live.url, SAMPLE))
    return subprocess.run([FARCORE, "mount", url, directory, *options], capture_output=True, text=True, timeout=60)


def gone(directory: Path, within: float = 10) -> bool:
    """Whether nothing is mounted there, now or soon."""
    give_up = time.monotonic() + within
    while os.path.ismount(directory) and time.monotonic() < give_up:
        time.sleep(0.05)
    return not os.path.ismount(directory)


def test_the_file_can_be_read_when_the_command_returns_until_it_is_unmounted(
    live: Live, directory: Path, sample: Sample
) -> None:
    done = farcore(live, directory)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert subprocess.run(["cmp", directory / "vmcore", sample(SAMPLE)]).returncode == 0
    assert os.listdir(directory) == ["vmcore"]
    found = (directory / "vmcore").stat()
    assert (found.st_mode, found.st_uid, found.st_mtime) == (0o100400, os.getuid(), int(sample(SAMPLE).stat().st_mtime))
    with pytest.raises(OSError, match=r"Read-only|Permission denied"):
        (directory / "vmcore").open("r+b")
    subprocess.run(["fusermount3", "-u", directory], check=True)
    assert gone(directory)


@requires("makedumpfile")
def test_normalised_a_dump_of_qemus_is_read_by_makedumpfile(
    real_dumps: RealDumps, serve: Serve, directory: Path, tmp_path: Path
) -> None:
    url = str(dump_url(serve(real_dumps("panic"), *NATIVE).url, real_dumps("panic").name))
    said = []
    for option in ([], ["--normalised"]):
        assert subprocess.run([FARCORE, "mount", url, directory, *option], timeout=60).returncode == 0
        asked: list[str | Path] = ["makedumpfile", "--dump-dmesg", directory / "vmcore", tmp_path / "log"]
        said.append(subprocess.run(asked, capture_output=True).returncode)
        subprocess.run(["fusermount3", "-u", directory], check=True)
        assert gone(directory)
    assert said == [1, 0]
    assert "sysrq" in (tmp_path / "log").read_text(errors="replace")


def test_who_mounts_stays_in_the_directory_that_files_were_named_from(live: Live, directory: Path) -> None:
    before = os.getcwd()
    with connect(dump_url(live.url, SAMPLE), Credentials()) as remote, mounted(remote, directory):
        assert os.getcwd() == before


def test_two_read_one_mount_in_sequence_at_once(tmp_path: Path, directory: Path, serve: Serve) -> None:
    dump = Dump([load(NOISE * 10, paddr=0)]).write(tmp_path / "vmcore")
    with connect(dump_url(serve(dump, *NATIVE).url, "vmcore"), Credentials()) as remote, mounted(remote, directory):
        skips = ("0", f"{7 << 20}", f"{21 << 20}")
        others = [subprocess.Popen(["cmp", directory / "vmcore", dump, skip, skip]) for skip in skips]
        assert [other.wait(60) for other in others] == [0, 0, 0]


@requires("openssl")
def test_over_tls_with_a_token_and_files_named_from_here_the_file_is_the_same(
    directory: Path, sample: Sample, tmp_path: Path, serve: Serve
) -> None:
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(["openssl", "req", "-x509", *new, *names], check=True, capture_output=True, cwd=tmp_path)
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(tokens.add(tmp_path / "tokens", "alice"))
    tls = ("--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem")
    live = serve(sample(SAMPLE), *NATIVE, "--token-file", tmp_path / "tokens", *tls)
    server = ServerUrl.parse(live.url)
    asked = Credentials(token.read_text(), tmp_path / "cert.pem")
    url = asyncio.run(_first(server, asked))
    command: list[str | Path] = [FARCORE, "mount", url, directory, "--token-file", "token", "--cacert", "cert.pem"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert subprocess.run(["cmp", directory / "vmcore", sample(SAMPLE)]).returncode == 0


async def _first(server: ServerUrl, asked: Credentials) -> str:
    async with Session(server, asked) as session:
        return f"{server}{(await session.dumps())[0]['links']['self']}"


@pytest.mark.parametrize(
    ("number", "helped"), [(signal.SIGINT, True), (signal.SIGTERM, True), pytest.param(signal.SIGTERM, False, marks=AS_ROOT)]
)
def test_a_signal_unmounts_and_ends_with_0(
    live: Live, directory: Path, tmp_path: Path, number: signal.Signals, helped: bool
) -> None:
    url = str(dump_url(live.url, SAMPLE))
    environment = dict(os.environ)
    if not helped:
        os.symlink(shutil.which("umount") or "", tmp_path / "umount")
        environment["PATH"] = str(tmp_path)
    command: list[str | Path] = [FARCORE, "mount", "--foreground", url, directory]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as process:
        give_up = time.monotonic() + 30
        while not os.path.ismount(directory):
            assert time.monotonic() < give_up
            time.sleep(0.05)
        assert (directory / "vmcore").open("rb").read(4) == b"\x7fELF"
        process.send_signal(number)
        assert process.wait(20) == 0
    assert gone(directory)


def test_a_mount_whose_process_is_killed_is_none_any_more(live: Live, directory: Path) -> None:
    command: list[str | Path] = [FARCORE, "mount", "--foreground", str(dump_url(live.url, SAMPLE)), directory]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        give_up = time.monotonic() + 30
        # fusermount3 lets go of what answers ENOTCONN, and a file system that has not begun does not.
        while not (directory / "vmcore").exists():
            assert time.monotonic() < give_up
            time.sleep(0.05)
        process.kill()
    assert gone(directory)


@pytest.mark.parametrize(
    ("where", "sentence"), [("nowhere", "is no directory: make it first"), ("mnt", "something is mounted on")]
)
def test_a_directory_that_will_not_do_is_a_sentence(live: Live, directory: Path, where: str, sentence: str) -> None:
    assert farcore(live, directory).returncode == 0
    done = farcore(live, directory.with_name(where))
    assert (done.returncode, sentence in done.stderr) == (1, True)
    assert len(done.stderr.splitlines()) == 1
    subprocess.run(["fusermount3", "-u", directory], check=True)


def read(path: Path, offset: int) -> bytes | int:
    """A page of the file, or the errno."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, PAGE, offset)
    except OSError as error:
        return error.errno or 0
    finally:
        os.close(fd)


def test_without_the_server_reads_are_eio_in_time_and_go_on_when_it_is_back(
    tmp_path: Path, directory: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "PATIENCE", 1.5)
    content = Dump([load(NOISE, paddr=0)]).write(tmp_path / "vmcore").read_bytes()
    live = serve(tmp_path / "vmcore", *NATIVE)
    said: list[str] = []
    with relay(live.url) as between:
        url = DumpUrl(ServerUrl.parse(between.url), dump_url(live.url, "vmcore").id)
        with connect(url, Credentials()) as remote, mounted(remote, directory, said.append):
            assert read(directory / "vmcore", 0) == content[:PAGE]
            between.down()
            assert read(directory / "vmcore", 800 * PAGE) == errno.EIO
            assert "nothing listens on" in said[0]
            threading.Timer(0.7, between.open).start()
            assert read(directory / "vmcore", 800 * PAGE) == content[800 * PAGE :][:PAGE]
    assert gone(directory)


def test_a_dump_that_was_replaced_is_eio_for_good_with_a_sentence(tmp_path: Path, directory: Path, serve: Serve) -> None:
    dump = Dump([load(NOISE, paddr=0)]).write(tmp_path / "vmcore")
    url = dump_url(serve(dump, *NATIVE).url, "vmcore")
    said: list[str] = []
    with connect(url, Credentials()) as remote, mounted(remote, directory, said.append):
        assert read(directory / "vmcore", 0) == dump.read_bytes()[:PAGE]
        Dump([load(bytes(reversed(NOISE)), paddr=0)]).write(tmp_path / "other").replace(dump)
        give_up = time.monotonic() + 10
        found = [read(directory / "vmcore", page * PAGE) for page in range(400, 1000, 100)]
        while errno.EIO not in found and time.monotonic() < give_up:
            found = [read(directory / "vmcore", page * PAGE) for page in range(401, 1000, 50)]
        assert read(directory / "vmcore", 900 * PAGE + 2 * PAGE) == errno.EIO
        assert "has changed since" in said[-1]
