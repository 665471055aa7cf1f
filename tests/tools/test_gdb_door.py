"""The real gdb on a dump that a farcored serves, through `farcore door gdb`: it must see what it sees on the local file."""

from __future__ import annotations

import os
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
from tests.realdumps import SYMBOLS, RealDumps
from tests.requires import requires
from tests.samples import SAMPLES
from tests.tools import oncore
from tests.vm import coreelf

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


def output(*argv: str | Path) -> list[str]:
    """What a program prints, line by line."""
    done = subprocess.run(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100, stdin=subprocess.DEVNULL
    )
    return done.stdout.splitlines()


def gdb(program: str, *commands: str) -> list[str]:
    """What a gdb prints to these."""
    return output(program, "-nx", "-q", "-batch", *(word for command in commands for word in ("-ex", command)))


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


ASKS = [
    "info threads",
    *(ask for cpu in (1, 2) for ask in (f"thread {cpu}", "bt", "info registers", "up", "info frame", "info locals")),
    "p init_task.comm",
    "x/16gx &init_task",
    "x/s linux_banner",
    "x/8i schedule",
    "p jiffies",
    "p __per_cpu_offset",
    "x/x 0",
    "info symbol panic",
]
# What may differ. A thread is "LWP 1" of a file, and "Thread 1" with its CPU's name of the door; the panicked one comes first
# there, and `info threads` stars it; and of a source file that is not there gdb says so once, at its first line.
THREAD = re.compile(r"^[* ] (?=\d)|LWP \d+|Thread \d+( \(CPU \d+( \(panicked\))?\))?")
SOURCE = re.compile(r"(warning: )?\d+\t")


def shown(lines: list[str]) -> list[str]:
    """What follows the attachment, without what may differ."""
    lines = lines[lines.index("BEGIN") + 1 :]
    kept = [line for line in lines if not line.startswith("  Id ") and not SOURCE.match(line)]
    return [re.sub(r" +", " ", THREAD.sub("", line)) for line in kept]


@requires("drgn", "readelf", "gdb", "gdb-multiarch")
@pytest.mark.parametrize(("name", "later"), [*((name, False) for name in SYMBOLS), ("kdump", True), ("panic", True)])
def test_a_session_shows_what_it_shows_on_a_local_core(
    name: str, later: bool, real_dumps: RealDumps, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, vmlinux = real_dumps(name), real_dumps(SYMBOLS[name])
    if later:
        monkeypatch.setenv("PATH", f"{real_dumps('gdb').parent}:{os.environ['PATH']}")
    live = serve(path, "--allow-arch", "any")
    core = oncore.write(path, vmlinux, tmp_path / "core")
    argv = ["-nx", "-batch", *(word for ask in ("echo BEGIN\\n", *ASKS) for word in ("-ex", ask))]
    offset = int(coreelf.vmcoreinfo(coreelf.read(path))["KERNELOFFSET"], 16)
    program = "gdb-multiarch" if "aarch64" in name else "gdb"
    local = output(program, "-q", "-ex", f"symbol-file {vmlinux} -o {offset:#x}", "-ex", f"core-file {core}", *argv)
    found = output(FARCORE, "gdb", str(dump_url(live.url, path.name)), vmlinux, "--", *argv)
    assert shown(found) == shown(local)
    assert sum(" panic (" in line for line in found) == 1
    assert sum("(panicked)" in line for line in found) >= 1
    assert not [line for line in found if "warning" in line and not SOURCE.match(line)]
