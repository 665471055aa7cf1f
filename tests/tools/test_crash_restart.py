"""A session of crash outlives a restart of the server, and ends where the dump was replaced meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.live import farcored
from tests.realdumps import RealDumps
from tests.relay import relay
from tests.requires import requires
from tests.tools.test_crash_door import FARCORE, url_of

WITHIN = 100  # seconds


@pytest.fixture
def copy(real_dumps: RealDumps, tmp_path: Path) -> Path:
    """A dump that a test may replace."""
    return Path(shutil.copy(real_dumps("panic"), tmp_path / "vmcore"))


@contextmanager
def session(real_dumps: RealDumps, url: str, door: str) -> Iterator[subprocess.Popen[str]]:
    """`farcore crash`, its prompt waiting for commands."""
    path = f"{real_dumps('crash-later').parent}:{os.environ['PATH']}"
    argv: list[str | Path] = [FARCORE, "crash", url, real_dumps("vmlinux"), "--door", door, "--", "-s"]
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": path},
    ) as crash:
        try:
            yield crash
        finally:
            crash.kill()


def typed(crash: subprocess.Popen[str], command: str, until: str) -> str:
    """What crash says to ``command``, up to the line with ``until``."""
    assert crash.stdin is not None
    assert crash.stdout is not None
    crash.stdin.write(f"{command}\n")
    crash.stdin.flush()
    found = ""
    while until not in found:
        line = crash.stdout.readline()
        assert line, f"crash ended: {found[-300:]}"
        found += line
    return found


@requires("crash")
@pytest.mark.timeout(240)
def test_a_session_outlives_a_restart_and_not_another_dump(real_dumps: RealDumps, copy: Path) -> None:
    with ExitStack() as servers:
        first = servers.enter_context(farcored(copy))
        between = servers.enter_context(relay(first.url))
        with session(real_dumps, url_of(between.url, copy), "remote") as crash:
            assert "6.1.0" in typed(crash, "sys", "MEMORY:")
            between.down()
            first.process.terminate()
            first.process.wait()
            between.to = servers.enter_context(farcored(copy)).url
            between.open()
            assert "TOTAL MEM" in typed(crash, "kmem -i", "COMMITTED")
            changed = bytearray(copy.read_bytes())
            changed[-4096:] = os.urandom(4096)
            copy.write_bytes(changed)
            _, said = crash.communicate("search -k deadbeef12345678\nquit\n", timeout=WITHIN)
        assert "the dump's file has changed" in said
