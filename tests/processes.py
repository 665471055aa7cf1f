"""What the kernel says of a live server's processes, be it one or a supervisor and its workers."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live import Live


def pids(live: Live) -> list[int]:
    """The process that was started, and its children."""
    first = live.process.pid
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return [first, *map(int, children)]


def serving(live: Live) -> list[int]:
    """Those of them that have connections."""
    return pids(live)[1:] or pids(live)


def descriptors(live: Live) -> int:
    """How many are open."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids(live))


def settled(live: Live, most: int, within: float = 10.0) -> int:
    """How many descriptors are open, once they are ``most`` or fewer or the seconds are over."""
    give_up = time.monotonic() + within
    while (found := descriptors(live)) > most and time.monotonic() < give_up:
        time.sleep(0.02)
    return found


def private(live: Live) -> int:
    """Bytes of memory that are theirs alone, without the pages of files that they have mapped."""
    rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids(live))
    return sum(int(found) << 10 for text in rollups for found in re.findall(r"^Private_Dirty:\s+(\d+) kB", text, re.MULTILINE))


def cpu(live: Live) -> float:
    """Seconds of CPU until now."""
    ticks = 0
    for pid in pids(live):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def state(pid: int) -> str:
    """R, S, T ... as proc(5) has it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def stopped(live: Live) -> Iterator[None]:
    """They stand still meanwhile: what clients do then, they all find at once."""
    frozen = serving(live)
    try:
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        while any(state(pid) != "T" for pid in frozen):
            time.sleep(0.001)
        yield
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)


def under_way(connection: socket.socket) -> int:
    """Bytes that the server's end of a connection over IPv4 has handed to the kernel and this end has not read yet."""
    ours, theirs = (f"{port:04X}" for port in (connection.getsockname()[1], connection.getpeername()[1]))
    total = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, _, queues = (field.rpartition(":")[2] if n < 2 else field for n, field in enumerate(line.split()[1:5]))
        sending, receiving = (int(queue, 16) for queue in queues.split(":"))
        total += sending * ((local, remote) == (theirs, ours)) + receiving * ((local, remote) == (ours, theirs))
    return total
