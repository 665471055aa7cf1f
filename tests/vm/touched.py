"""Which bytes of a file a program reads, by strace."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

Read = tuple[int, int]  # file offset, length


def touched(argv: Sequence[str | Path], commands: str, dump: Path, trace: Path) -> tuple[list[Read], str]:
    """Every read of `dump` while a program obeys these commands, and what the program printed."""
    calls = "trace=read,pread64,readv,preadv,preadv2,lseek,mmap"
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-s", "0", "-e", calls, "-o", trace, *argv]
    done = subprocess.run(strace, input=commands.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = done.stdout.decode(errors="replace")
    if done.returncode:
        raise SystemExit(f"{argv[0]} under strace: exit {done.returncode}: {text[-400:]}")
    with trace.open(errors="replace") as lines:
        reads = list(_reads(lines, os.path.realpath(dump)))
    trace.unlink()
    return reads, text


def _reads(lines: Iterator[str], name: str) -> Iterator[Read]:
    """The reads of one file. Each descriptor has a position of its own that lseek and read move."""
    of = rf"\((\d+)<{re.escape(name)}>"
    seek = re.compile(rf"lseek{of}, .*\) += (\d+)$")
    read = re.compile(rf" readv?{of}, .*\) += (\d+)$")
    pread = re.compile(rf"pread64{of}, .*, (\d+)\) += (\d+)$")
    other = re.compile(rf"(preadv2?|mmap)\(.*<{re.escape(name)}>")
    position: dict[str, int] = {}
    for line in lines:
        if found := seek.search(line):
            position[found[1]] = int(found[2])
        elif found := read.search(line):
            at = position.get(found[1], 0)
            position[found[1]] = at + int(found[2])
            yield at, int(found[2])
        elif found := pread.search(line):
            yield int(found[2]), int(found[3])
        elif other.search(line):
            raise SystemExit(f"a kind of read that this tracer does not follow: {line.strip()}")
