"""python -m benchmarks.mounted DUMP: a whole dump read over loopback through `farcore mount` and by curl, in turns.

dd and curl throw away what they read; cp and curl make a file of it, in $TMPDIR, which should be in memory. Each round
mounts anew, so that the kernel has kept nothing. Prints bytes a second, the share of curl's, and the CPU seconds of the
mount. Needs curl, dd, cp and FUSE.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.rounds import in_turns, middle, ratio
from benchmarks.servers import farcored
from benchmarks.table import Table
from farcore_client.credentials import Credentials
from farcore_client.doors.mount import mounted
from farcore_client.dumpurl import DumpUrl
from farcore_client.remote import connect


class Sample(NamedTuple):
    """Bytes a second, and CPU seconds of this process meanwhile."""

    rate: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Way:
    """A way to read the dump at ``url``, with a folder to mount on, and the name of the one it is held against."""

    name: str
    beside: str
    read: Callable[[DumpUrl, Path], Sample]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mounted", description=__doc__)
    parser.add_argument("dump", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    dump = arguments.dump.resolve()
    with TemporaryDirectory(prefix="farcore-bench-") as name:
        root, folder = Path(name, "dumps"), Path(name, "mount")
        root.mkdir()
        folder.mkdir()
        shutil.copy(dump, root)
        with farcored(root) as server:
            url = DumpUrl.parse(f"http://{server.address}:{server.port}{server.paths[dump.name].removesuffix('/vmcore')}")
            samples = in_turns(WAYS, arguments.rounds, lambda way: way.read(url, folder))
    table = Table(f"{dump.stat().st_size / 1e6:.0f} MB over loopback", ("way", "MB/s", "x curl", "CPU s"))
    for way in WAYS:
        mine = samples[way.name]
        beside = str(ratio(mine, samples[way.beside], lambda each: each.rate))
        table.add(
            way.name, f"{middle(mine, lambda each: each.rate) / 1e6:.0f}", beside, f"{middle(mine, lambda each: each.cpu):.2f}"
        )
    return 0


def _curl(url: DumpUrl, folder: Path, to: str = "/dev/null") -> Sample:
    return _timed(["curl", "-s", "-o", to, "-w", "%{size_download}", f"{url}/vmcore"])


def _mounted(url: DumpUrl, folder: Path, *command: str) -> Sample:
    with connect(url, Credentials()) as remote, mounted(remote, folder):
        return _timed([word.replace("FILE", f"{folder}/vmcore") for word in command], remote.vmcore.size)


def _to_file(read: Callable[[str], Sample]) -> Sample:
    with TemporaryDirectory(prefix="farcore-bench-") as name:
        return read(f"{name}/copy")


def _timed(command: list[str], size: int = 0) -> Sample:
    began, cpu = time.monotonic(), time.process_time()
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Sample((size or int(said)) / (time.monotonic() - began), time.process_time() - cpu)


WAYS = (
    Way("curl", "curl", _curl),
    Way(
        "dd, farcore mount",
        "curl",
        lambda url, folder: _mounted(url, folder, "dd", "if=FILE", "of=/dev/null", "bs=1M", "status=none"),
    ),
    Way("curl, to a file", "curl, to a file", lambda url, folder: _to_file(lambda to: _curl(url, folder, to))),
    Way(
        "cp, farcore mount", "curl, to a file", lambda url, folder: _to_file(lambda to: _mounted(url, folder, "cp", "FILE", to))
    ),
)

if __name__ == "__main__":
    raise SystemExit(main())
