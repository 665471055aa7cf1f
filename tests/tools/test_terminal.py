"""farcore crash and farcore gdb on a terminal: who hears Ctrl-C, what the exit status is, and what is left behind."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live import Live, Serve
from tests.realdumps import RealDumps
from tests.requires import requires
from tests.tools.test_crash_door import FARCORE, url_of

WITHIN = 150  # seconds; a busy machine takes a minute for the symbols alone
CTRL_C = b"\x03"


class Terminal:
    """A program on a terminal of its own, with its own folder for temporary files."""

    def __init__(self, program: subprocess.Popen[bytes], screen: int, folder: Path) -> None:
        self.program, self.screen, self.folder = program, screen, folder
        self.shown = b""

    def type(self, keys: bytes) -> None:
        os.write(self.screen, keys)

    def await_text(self, text: bytes) -> None:
        """Returns when it has been shown since the last call."""
        give_up = time.monotonic() + WITHIN
        while text not in self.shown:
            assert time.monotonic() < give_up, self.shown[-500:].decode(errors="replace")
            if select.select([self.screen], [], [], 1)[0]:
                self.shown += os.read(self.screen, 4096)
        self.shown = self.shown.partition(text)[2]

    def close(self) -> None:
        """As a window is closed."""
        os.close(self.screen)
        self.screen = -1

    @property
    def left(self) -> list[str]:
        """What is there still: processes of its session, mounts, temporary files."""
        ps = ["ps", "-s", str(self.program.pid), "-o", "stat=,args="]
        processes = subprocess.run(ps, capture_output=True, text=True).stdout.splitlines()
        # Those that have ended are there until whoever inherits them looks.
        return [*(line for line in processes if line[0] != "Z"), *map(str, self.mounts), *os.listdir(self.folder)]

    @property
    def mounts(self) -> list[Path]:
        """What is mounted in its folder."""
        places = (Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines())
        return [place for place in places if place.is_relative_to(self.folder)]


@contextmanager
def terminal(folder: Path, path: Path, *argv: str | Path) -> Iterator[Terminal]:
    """The program, with ``path`` searched first."""
    folder.mkdir(exist_ok=True)
    screen, theirs = pty.openpty()
    environment = {**os.environ, "TMPDIR": str(folder), "PATH": f"{path}:{os.environ['PATH']}", "TERM": "dumb"}
    with subprocess.Popen(
        argv,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as program:
        os.close(theirs)
        there = Terminal(program, screen, folder)
        try:
            yield there
        finally:
            program.kill()
            program.wait()
            for mount in there.mounts:
                subprocess.run(["fusermount3", "-uz", mount], check=True)
            if there.screen >= 0:
                there.close()


@pytest.fixture(scope="module")
def url(real_dumps: RealDumps, serve_all_along: Serve) -> str:
    """The DUMPURL of a dump."""
    live: Live = serve_all_along(real_dumps("panic"))
    return url_of(live.url, real_dumps("panic"))


@requires("crash", "fusermount3")
@pytest.mark.timeout(240)
def test_ctrl_c_is_crashs_own_and_a_window_that_closes_leaves_nothing(real_dumps: RealDumps, url: str, tmp_path: Path) -> None:
    argv: list[str | Path] = [FARCORE, "crash", url, real_dumps("vmlinux"), "--", "-s"]
    with terminal(tmp_path / "t", real_dumps("crash-later").parent, *argv) as there:
        there.await_text(b"crash reads the dump through FUSE")
        there.await_text(b"crash> ")
        there.type(b"repeat -1 sys\n")
        there.await_text(b"PANIC:")
        time.sleep(0.5)  # it waits for the next second; a crash that is interrupted while it prints goes on
        there.type(CTRL_C)
        there.await_text(b"crash> ")
        there.type(b"rd linux_banner 2\n")
        there.await_text(b"Linux version")
        there.close()
        there.program.wait(20)
        assert there.left == []


@requires("crash", "fusermount3")
@pytest.mark.parametrize("door", ["fuse", "remote"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_crash_too_and_leaves_nothing(
    real_dumps: RealDumps, url: str, tmp_path: Path, door: str, number: signal.Signals
) -> None:
    argv: list[str | Path] = [FARCORE, "crash", url, real_dumps("vmlinux"), "--door", door, "--", "-s"]
    with terminal(tmp_path / "t", real_dumps("crash-later").parent, *argv) as there:
        there.await_text(b"crash reads the dump through")
        there.program.send_signal(number)
        assert there.program.wait(20) == 128 + number
        assert there.left == []


@requires("gdb")
@pytest.mark.parametrize(
    "end", [lambda there: there.program.terminate(), Terminal.close], ids=["SIGTERM", "a window that closes"]
)
def test_gdb_ends_with_its_command_and_leaves_nothing(
    real_dumps: RealDumps, url: str, tmp_path: Path, end: Callable[[Terminal], object]
) -> None:
    with terminal(tmp_path / "t", tmp_path, FARCORE, "gdb", url, real_dumps("vmlinux"), "--", "-nx") as there:
        there.await_text(b"(gdb) ")
        there.type(b"p 6 * 7\n")
        there.await_text(b"= 42")
        end(there)
        there.program.wait(20)
        assert there.left == []


@requires("crash", "gdb")
def test_the_exit_status_is_the_tools(real_dumps: RealDumps, url: str, tmp_path: Path) -> None:
    vmlinux = real_dumps("vmlinux")
    with terminal(tmp_path / "t", tmp_path, FARCORE, "gdb", url, vmlinux, "--", "-nx", "-batch", "-ex", "quit 7") as there:
        assert there.program.wait(WITHIN) == 7
    with terminal(tmp_path / "t", real_dumps("crash-later").parent, FARCORE, "crash", url, vmlinux, "--", "--none") as there:
        assert there.program.wait(WITHIN) == 1
