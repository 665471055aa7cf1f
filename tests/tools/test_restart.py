"""A session of each tool outlives a restart of the server in its midst, and ends where the dump was replaced meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.elfwriter import Dump, load, note
from tests.live import farcored
from tests.realdumps import RealDumps
from tests.relay import relay
from tests.requires import requires
from tests.tools.test_crash_door import FARCORE, url_of

WITHIN = 150  # seconds
PAGE = 4096
START = 0x100000
KNOWN = b"OSRELEASE=6.1.0\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=1\n"
# Prints 16 bytes at each physical address that is typed.
READER = 'import sys\nfor line in sys.stdin:\n    print("READ", prog.read(int(line, 0), 16, True).hex(), flush=True)\n'


class Server:
    """A farcored of one dump behind a port that stays."""

    def __init__(self, dump: Path, servers: ExitStack) -> None:
        self.dump, self._servers = dump, servers
        self._live = servers.enter_context(farcored(dump, "--rescan", "0.2"))
        self.between = servers.enter_context(relay(self._live.url))
        self.url = url_of(self.between.url, dump)

    def kill(self) -> None:
        """As a machine that is switched off."""
        self.between.down()
        for process in (*self._live.workers, self._live.process.pid):
            os.kill(process, signal.SIGKILL)
        self._live.process.wait()

    def start(self) -> None:
        """Another one."""
        self._live = self._servers.enter_context(farcored(self.dump, "--rescan", "0.2"))
        self.between.to = self._live.url
        self.between.open()

    def change(self) -> None:
        """Overwrite the dump's last page."""
        with self.dump.open("r+b") as file:
            file.seek(-PAGE, os.SEEK_END)
            file.write(os.urandom(PAGE))


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    with ExitStack() as servers:
        yield servers


@pytest.fixture
def server(servers: ExitStack, tmp_path: Path) -> Server:
    """Of a dump that has memory and no kernel in it, so that nothing is brought before it is asked for."""
    notes = note(("CORE", 1, bytes(336)), ("VMCOREINFO", 0, KNOWN))
    memory = load(os.urandom(1 << 20) * 40, paddr=START, vaddr=0xFFFF888000000000 + START)
    return Server(Dump([notes, memory]).write(tmp_path / "vmcore"), servers)


@contextmanager
def session(*argv: str | Path, path: str = os.environ["PATH"]) -> Iterator[subprocess.Popen[str]]:
    """A program that waits for what is typed."""
    pipe, environment = subprocess.PIPE, {**os.environ, "PATH": path}
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as program:
        try:
            yield program
        finally:
            program.kill()


def typed(program: subprocess.Popen[str], line: str, until: str) -> str:
    """What it says to the line, up to a line with ``until``."""
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(f"{line}\n")
    program.stdin.flush()
    found = ""
    while until not in found:
        said = program.stdout.readline()
        assert said, f"it ended: {found[-300:]}"
        found += said
    return found


@requires("drgn")
def test_drgn_outlives_a_killed_server_and_not_another_dump(server: Server, tmp_path: Path) -> None:
    content = server.dump.read_bytes()[-40 << 20 :]
    script = tmp_path / "reader.py"
    script.write_text(READER)
    argv = (FARCORE, "drgn", server.url, "--", "-q", script)
    with session(*argv) as one, session(*argv) as other:
        for number, at in enumerate((0x5000, 0x900000, 0x1200000)):
            for drgn in (one, other):
                assert typed(drgn, hex(START + at), "READ").split()[-1] == content[at:][:16].hex()
            if number == 0:
                server.kill()
                server.start()
        server.change()
        for drgn in (one, other):
            _, said = drgn.communicate(f"{START + 0x2000000:#x}\n", timeout=WITHIN)
            assert drgn.returncode == 1
            assert "the dump's file has changed" in said.splitlines()[-1]


@requires("gdb")
def test_gdbs_at_one_door_outlive_a_killed_server_and_not_another_dump(server: Server) -> None:
    content = server.dump.read_bytes()[-40 << 20 :]
    with (
        session(FARCORE, "door", "gdb", server.url) as door,
        session("gdb", "-nx", "-q") as one,
        session("gdb", "-nx", "-q") as other,
    ):
        assert door.stdout is not None
        attach = next(line.strip() for line in door.stdout if "target remote" in line)
        for gdb in (one, other):
            typed(gdb, f"set remotetimeout 120\n{attach}\necho attached\\n", "attached")
        for number, at in enumerate((0x5000, 0x900000, 0x1200000)):
            for gdb in (one, other):
                shown = typed(gdb, f"x/2xg {0xFFFF888000000000 + START + at:#x}", f"{START + at:x}:")
                words = [int.from_bytes(content[at + i :][:8], "little") for i in (0, 8)]
                assert [int(word, 16) for word in shown.split(":")[-1].split()] == words
            if number == 0:
                server.kill()
                server.start()
        server.change()
        for gdb in (one, other):
            _, said = gdb.communicate(f"x/2xg {0xFFFF888000000000 + START + 0x2000000:#x}\nquit\n", timeout=WITHIN)
            assert "Remote connection closed" in said
        door.terminate()
        assert "the dump's file has changed" in door.communicate()[1]


@requires("fusermount3")
@pytest.mark.timeout(180)
def test_without_its_server_a_mount_says_eio_within_40_seconds_and_reads_again_20_after_its_return(
    server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "mount"
    folder.mkdir()

    def dd(page: int) -> subprocess.CompletedProcess[bytes]:
        words = (f"if={folder}/vmcore", f"bs={PAGE}", f"skip={page}", "count=1", "status=none")
        return subprocess.run(["dd", *words], capture_output=True)

    with session(FARCORE, "mount", "--foreground", server.url, folder) as mount:
        while not os.path.ismount(folder):
            time.sleep(0.1)
        assert dd(100).returncode == 0
        server.kill()
        began = time.monotonic()
        lost = dd(3000)
        assert time.monotonic() - began < 40
        assert b"Input/output error" in lost.stderr
        server.start()
        began = time.monotonic()
        while (found := dd(3000)).returncode:
            assert time.monotonic() - began < 20
        assert found.stdout == server.dump.read_bytes()[3000 * PAGE :][:PAGE]
        mount.terminate()
        assert "EIO" in mount.communicate(timeout=20)[1]


@requires("crash")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("door", ["remote", "fuse"])
def test_crash_outlives_a_killed_server_and_not_another_dump(
    real_dumps: RealDumps, servers: ExitStack, tmp_path: Path, door: str
) -> None:
    if door == "fuse" and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("there is no FUSE here")
    server = Server(Path(shutil.copy(real_dumps("panic"), tmp_path / "vmcore")), servers)
    path = f"{real_dumps('crash-later').parent}:{os.environ['PATH']}"
    with session(FARCORE, "crash", server.url, real_dumps("vmlinux"), "--door", door, "--", "-s", path=path) as crash:
        assert "6.1.0" in typed(crash, "sys", "MEMORY:")
        server.kill()
        server.start()
        assert "TOTAL MEM" in typed(crash, "kmem -i", "COMMITTED")
        server.change()
        _, said = crash.communicate("search -k deadbeef12345678\nquit\n", timeout=WITHIN)
    assert "the dump's file has changed" in said
