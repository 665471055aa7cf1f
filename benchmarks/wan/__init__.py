"""Wan: two machines with a long, narrow line between them, on this one; needs root, iproute2 and a C compiler.

with wan("pull", rtt=0.040, mbit=100) as line:
    subprocess.run([*line.server, "program"])     # runs where the dump is, reached at line.address
    subprocess.run([*line.client, "program"])     # runs where the analyst is
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import BenchmarkError
from benchmarks.network import setns

_SOURCE: Final = Path(__file__).with_name("link.c")
# What a router of such a line holds back: 80 ms at 100 Mbit/s.
QUEUE: Final = 1 << 20
# TEST-NET-2 of RFC 5737: nobody's address.
_SERVER, _CLIENT = "198.51.100.1", "198.51.100.2"


@dataclass(frozen=True, slots=True)
class Wan:
    """The command prefixes of both ends, and the address of the server's."""

    server: tuple[str, ...]
    client: tuple[str, ...]
    address: str
    name: str

    @contextmanager
    def at_client(self) -> Iterator[None]:
        """This thread, and what it starts, are at the client's end for the time of the body."""
        with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{self.name}-wan-c") as there:
            setns(there.fileno())
            try:
                yield
            finally:
                setns(before.fileno())

    def received(self) -> int:
        """Bytes that have come to the client's end so far, every header included."""
        done = _run(*self.client, "cat", "/sys/class/net/wan/statistics/rx_bytes")
        return int(done)


@contextmanager
def wan(name: str, *, rtt: float = 0.040, mbit: float = 100, queue: int = QUEUE) -> Iterator[Wan]:
    """The line for the time of the body; ``name`` tells several at a time apart, ``rtt`` is in seconds.

    Both ends run cubic and remember nothing of earlier connections, so that every transfer starts cold.
    """
    if os.geteuid():
        raise BenchmarkError("a line between two network namespaces needs root")
    ends = f"{name}-wan-s", f"{name}-wan-c"
    with TemporaryDirectory(prefix="farcore-wan-") as folder:
        program = Path(folder) / "link"
        _run("cc", "-O2", "-Wall", "-o", str(program), str(_SOURCE))
        try:
            for end in ends:
                _run("ip", "netns", "add", end)
            command = [str(program), *ends, str(round(rtt / 2 * 1e6)), str(mbit), str(queue)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as link:
                try:
                    _demand_ready(link)
                    for end, address in zip(ends, (_SERVER, _CLIENT), strict=True):
                        _configure(end, address)
                    server, client = (("ip", "netns", "exec", end) for end in ends)
                    yield Wan(server, client, _SERVER, name)
                finally:
                    link.terminate()
        finally:
            for end in ends:
                subprocess.run(["ip", "netns", "delete", end], stderr=subprocess.DEVNULL)


def _configure(end: str, address: str) -> None:
    inside = ("ip", "netns", "exec", end)
    _run("ip", "-n", end, "link", "set", "lo", "up")
    _run("ip", "-n", end, "address", "add", f"{address}/24", "dev", "wan")
    _run("ip", "-n", end, "link", "set", "wan", "up", "txqueuelen", "5000")
    _run("ip", "-n", end, "route", "change", "198.51.100.0/24", "dev", "wan", "src", address, "congctl", "cubic")
    _run(*inside, "sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1")


def _demand_ready(link: subprocess.Popen[bytes]) -> None:
    assert link.stdout is not None
    if link.stdout.readline() != b"ready\n":
        raise BenchmarkError("the line between the namespaces could not be made: is there /dev/net/tun?")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
