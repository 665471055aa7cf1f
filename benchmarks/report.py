"""Report: docs/performance.md, the tables of one run and what they need to be true."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks import plot
from benchmarks.lab import Lab
from benchmarks.load import ATTEMPTS, QUIET
from benchmarks.servers import nginx_program
from benchmarks.table import Table

DOCS: Final = Path(__file__).parent.parent / "docs"
_PICTURE: Final = "performance.svg"

_TEXT: Final = """# Performance

`make bench` measures all this on another machine, `.venv/bin/python -m benchmarks --rows '4k*'` a part of it; this page is what
`--write` made of one run.

{machine}

What a figure needs to be true:

- Server and client share the machine's {cores} cores, over loopback. No network is part of it, and no client that would do
  anything with the bytes: they are discarded in the kernel, and compared with the file once, before.
- The dump ({size}) is in the page cache, except where it says cold. A third of its pages are zero, the others are those of a
  real kernel's dump.
- A ratio is the median over {rounds} rounds of {seconds:g} s of farcore's figure over nginx's in the same round; in brackets
  the least and the greatest. Absolute figures are this machine's; ratios travel better.
- Congestion control decides about large ranges, even over loopback: each table says which was in force. cubic is measured in
  a network namespace of its own.
- CPU is what the server's processes spent, by the kernel's clock. It includes the network's work that their sends do, and
  suffers less from a busy machine than rates do. `CPU s/GiB` and `CPU µs/request` are nginx : farcore.
- nginx has sendfile, tcp_nopush and an open-file cache, and no access log (benchmarks/servers.py). *nginx copying* is the same
  with `sendfile off`, which suits single pages and nothing larger. *C epoll* answers with one writev and checks nothing: the
  floor. Both are given as their rate over nginx's.
- A sample during which other processes took more than {quiet:.0%} of the machine is taken again, {attempts} times in all at
  most.
- Pages: *to the batch* is a way's time over that of farcore's batch in the same round; 8 is what the project wants
  ([0008](decisions/0008-batch-to-multi-range.md) says where it cannot be had). *c16*: that many connections. *8k*: as many
  ranges in a request as the header that nginx takes by default has room for; *64k*: all in one, with
  `large_client_header_buffers` raised to that. The requests were ready to be sent. Over loopback connections are warm, and no
  round trip, which a batch saves, and no line's rate, which zstd saves, is part of it. Over the line they are new; there
  `nginx single c1` would take 80 s of round trips. *one such range*: as many bytes side by side in the file, the floor of any
  server.
- Beside others: *rate* is the hot readers', *theirs* the other readers'. *from disk* is what the disk read for each byte sent,
  read-ahead included; the cold dump's pages are dropped from memory five times a second.
- Stalled: *private* is the server's memory, *kernel* the socket buffers of both ends.
- *wanted* is what the project asks of itself: the least ratio of the rates, and of the CPU time at most 1.1.

![farcore's rate over nginx's]({picture})

{tables}
"""


def write(tables: Sequence[Table], lab: Lab, size: int) -> None:
    """Replace docs/performance.md and its picture; ``size`` is the dump's, in MiB."""
    if any(table.ratios for table in tables):
        (DOCS / _PICTURE).write_text(plot.draw(tables))
    (DOCS / "performance.md").write_text(
        _TEXT.format(
            machine=_machine(),
            cores=os.cpu_count(),
            size=f"{size:,} MiB",
            rounds=lab.rounds,
            quiet=QUIET,
            attempts=ATTEMPTS,
            seconds=lab.seconds,
            picture=_PICTURE,
            tables="\n\n".join(table.markdown() for table in tables),
        )
    )


def _machine() -> str:
    """The machine, the day, and the versions of all that took part."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    parts = [
        f"{datetime.now(UTC):%Y-%m-%d}",
        f"{model}, {os.cpu_count()} cores, {memory} GiB",
        f"Linux {platform.release()}",
        subprocess.run([nginx_program(), "-v"], capture_output=True, text=True).stderr.rpartition(": ")[2].strip(),
        f"Python {'.'.join(map(str, sys.version_info[:3]))}, aiohttp {version('aiohttp')}, uvloop {version('uvloop')}",
        f"farcore {version('farcore')}",
    ]
    return ". ".join(parts) + "."
