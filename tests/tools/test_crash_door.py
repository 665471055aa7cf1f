"""Same eyes: what crash shows through each door is what it shows on a local copy, line by line.

The lines that differ are those of OWN, and docs/doors.md names them to users.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.live import Live, Serve
from tests.realdumps import SYMBOLS, RealDumps
from tests.requires import requires

FARCORE = Path(sys.executable).with_name("farcore")
COMMANDS = "sys\nbt -a\nps\nlog\nmod\nkmem -i\nrd linux_banner 16\nrd -p 1000 4\nquit\n"
# What crash says of the way in which it got at the dump, and nothing about the dump.
OWN = re.compile(
    r"^\s*DUMPFILE: .*\n"
    r"|^NOTE: setting (phys_base|kimage_voffset|vabits_actual) to: .*\n\n?"
    r"|^crash: cannot read vmcoreinfo_data\n\n?",
    re.MULTILINE,
)
DUMPS = ("panic", "later", "kdump", "cross")
WITHIN = 240  # seconds; 20 to 35 where nothing else runs


def shown(argv: list[str | Path], environment: Mapping[str, str] = os.environ) -> str:
    """What a crash session prints, less OWN and the empty lines."""
    done = subprocess.run(
        argv, input=COMMANDS, capture_output=True, text=True, errors="replace", env=environment, timeout=WITHIN
    )
    assert done.returncode == 0, done.stdout[-400:] + done.stderr[-400:]
    return re.sub(r"\n{2,}", "\n", OWN.sub("", done.stdout)).strip()


def without_failures(local: str, there: str) -> tuple[str, str]:
    """Both without the backtraces that a local crash fails at and that the door has (a CPU that was taken offline)."""
    for header in re.findall(r"(PID: .*)\nbt: invalid size request: 0 .*", local):
        block = re.compile(re.escape(header) + r"\n(?:.*\n)*?(?=PID: |\s+PID )")
        found = block.search(there)
        assert found is not None
        assert "#0 [" in found[0] or "invalid size request" in found[0]
        local, there = block.sub("", local), block.sub("", there)
    return local, there


def compared(local: str, there: str) -> str:
    """The lines in which the two differ, the first of them."""
    lines = difflib.unified_diff(local.splitlines(), there.splitlines(), "local", "through the door", lineterm="", n=0)
    return "\n".join([*lines][:30])


@pytest.fixture(scope="module")
def server(real_dumps: RealDumps, serve_all_along: Serve) -> Live:
    """A server with the dumps."""
    return serve_all_along(*(real_dumps(name) for name in DUMPS))


def url_of(server: str, path: Path) -> str:
    """The DUMPURL of a dump."""
    done = subprocess.run([FARCORE, "ls", server], capture_output=True, text=True, check=True)
    return next(
        word for line in done.stdout.splitlines() if line.startswith(path.name) for word in line.split() if "/v1/" in word
    )


class Session(NamedTuple):
    """A crash, the name of the dump, and what that crash prints on the file itself."""

    crash: Path
    dump: str
    local: str


@pytest.fixture(scope="module", params=[("crash", "kdump"), *(("crash-later", dump) for dump in DUMPS)])
def session(request: pytest.FixtureRequest, real_dumps: RealDumps) -> Session:
    """The newer crash on each dump, the older on one."""
    crash, dump = request.param
    local = shown([real_dumps(crash), "-s", real_dumps(SYMBOLS[dump]), real_dumps(dump)])
    return Session(real_dumps(crash), dump, local)


@requires("crash")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("door", ["remote", "fuse"])
def test_crash_shows_the_same_through_the_door(real_dumps: RealDumps, server: Live, session: Session, door: str) -> None:
    if door == "fuse" and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("there is no FUSE here")
    environment = {**os.environ, "PATH": f"{session.crash.parent}:{os.environ['PATH']}"}
    url, symbols = url_of(server.url, real_dumps(session.dump)), real_dumps(SYMBOLS[session.dump])
    there = shown([FARCORE, "crash", url, symbols, "--door", door, "--", "-s"], environment)
    assert "PANIC:" in session.local
    assert session.local.count("\n") > 300
    assert compared(*without_failures(session.local, there)) == ""
