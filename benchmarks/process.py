"""What processes cost: CPU time, private memory; and how busy the whole machine was."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")


def family(pid: int) -> tuple[int, ...]:
    """``pid`` and all its living descendants."""
    parents = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it ended while we looked
                continue
    members = [pid]
    for member in members:
        members += [child for child, parent in parents.items() if parent == member]
    return tuple(members)


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of all their threads, those that ended included: /proc/PID/stat's sum, in nanoseconds.

    The clock is clock_getcpuclockid(3)'s, by the kernel's own arithmetic (include/linux/posix-timers_types.h, CPUCLOCK_SCHED).
    """
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def private_bytes(pids: Iterable[int]) -> int:
    """Memory that is theirs alone: Private_* of smaps_rollup (Documentation/filesystems/proc.rst)."""
    lines = (line for pid in pids for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines())
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def disk_bytes(pids: Iterable[int]) -> int:
    """What they had storage read for them: read_bytes of /proc/PID/io."""
    lines = (line for pid in pids for line in (_PROC / str(pid) / "io").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def socket_bytes() -> int:
    """What the kernel holds for all TCP sockets of the machine (/proc/net/sockstat)."""
    tcp = next(line.split() for line in (_PROC / "net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    return int(tcp[tcp.index("mem") + 1]) * os.sysconf("SC_PAGE_SIZE")


def machine_seconds() -> float:
    """CPU time that the whole machine has spent on anything but idling, stolen time included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, (_PROC / "stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
