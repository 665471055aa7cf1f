"""The real gdb on a dump that a farcored serves, through `farcore door gdb`: it must see what it sees on the local file."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from farcore_client.dumpurl import DumpUrl
from tests.client.remote.conftest import dump_url
from tests.live import Live, Serve
from tests.requires import requires
from tests.samples import SAMPLES

FARCORE = Path(sys.executable).with_name("farcore")
# Which of the samples have registers that gdb is told of: there is no 32-bit PowerPC in farcore.registers.
KNOWN = [name for name in SAMPLES if name != "bare-ppc.elf"]
# What a local gdb knows and NT_PRSTATUS does not: these come from notes of their own.
FLOATING = {"fpc", "fpsr", "fpcr", "fpscr"}


@pytest.fixture(scope="module")
def samples(serve_all_along: Serve, sample: Callable[[str], Path]) -> Live:
    """A server of all samples."""
    return serve_all_along(*map(sample, KNOWN), "--allow-arch", "any")


@contextmanager
def door(url: DumpUrl) -> Iterator[list[str]]:
    """The lines that a door tells its user to type."""
    with subprocess.Popen([FARCORE, "door", "gdb", str(url)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline()]
            while not lines[-1].startswith("    target remote"):
                assert lines[-1], "the door ended"
                lines.append(process.stdout.readline())
            yield [line.strip() for line in lines if line.startswith("    ")]
        finally:
            process.terminate()


def gdb(program: str | Path, *commands: str) -> list[str]:
    """What it prints, line by line."""
    argv = [program, "-nx", "-q", "-batch", *(word for command in commands for word in ("-ex", command))]
    done = subprocess.run(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100, stdin=subprocess.DEVNULL
    )
    return done.stdout.splitlines()


def registers(lines: Sequence[str]) -> list[str]:
    """What `info registers` of each thread shows, a thread a text, in order."""
    threads: list[list[str]] = []
    for line in lines:
        if line.startswith("[Switching to thread"):
            threads.append([])
        elif threads and re.match(r"\w+ +(0x|-|<)", line) and line.split()[0] not in FLOATING:
            threads[-1].append(line)
    return ["\n".join(thread) for thread in threads]


@requires("gdb-multiarch", "readelf")
@pytest.mark.parametrize("name", KNOWN)
def test_every_machines_registers_are_those_of_the_local_file(name: str, sample: Callable[[str], Path], samples: Live) -> None:
    path = sample(name)
    cpus = subprocess.run(["readelf", "-nW", path], capture_output=True, text=True).stdout.count("NT_PRSTATUS")
    asks = [ask for cpu in range(cpus) for ask in (f"thread {cpu + 1}", "info registers")]
    local = registers(gdb("gdb-multiarch", f"core-file {path}", *asks))
    with door(dump_url(samples.url, name)) as lines:
        found = registers(gdb("gdb-multiarch", *(line for line in lines if not line.startswith("symbol-file")), *asks))
    assert len(found) == cpus > 0
    assert all(len(thread.splitlines()) >= 16 for thread in local)
    # Of two CPUs of which one is idle (pid 0) a local gdb may show the other's registers twice, and in any order.
    assert set(local) <= set(found)
