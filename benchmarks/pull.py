"""python -m benchmarks.pull DUMP|--gib N: a whole dump to another machine, by farcore and by what one would use instead.

In turns, over a line of 40 ms and 100 Mbit/s (benchmarks.wan) and over loopback: seconds until the file is there, bytes that
came to the client's end, CPU seconds of both ends per GiB of the dump. Needs root, curl, aria2c, rsync, zstd and nc.
--gib makes a dump in which starting a program does not count; --way NAME, again and again, leaves out what is slow there.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from benchmarks import BenchmarkError
from benchmarks.dump import write
from benchmarks.process import cpu_seconds, family
from benchmarks.rounds import in_turns, middle, ratio
from benchmarks.table import Table
from benchmarks.wan import wan

BIN: Final = Path(sys.executable).parent
PORT: Final = 8787
# What farcore is measured against: as much of it as a shell gives.
PEER: Final = "zstd -3 | nc"
PLAIN: Final = "curl"


class Sample(NamedTuple):
    """Of one transfer: seconds, bytes received, CPU seconds of the server's and of the client's processes."""

    seconds: float
    wire: int
    server: float
    client: float


@dataclass(frozen=True, slots=True)
class Link:
    """Where the two ends run, and how the client's end counts what it receives."""

    name: str
    server: tuple[str, ...]
    client: tuple[str, ...]
    address: str
    received: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Way:
    """Commands of a server and of a client; {file}, {folder}, {address}, {url} and {out} are filled in."""

    name: str
    server: str
    client: str


WAYS: Final = (
    Way("farcore pull", "", f"{BIN}/farcore pull {{url}} -o {{out}}"),
    Way(PLAIN, "", "curl -s -o {out} {url}/vmcore"),
    Way("aria2c -x16", "", "aria2c -q -x16 -s16 -k1M -d / -o {out} {url}/vmcore"),
    Way(
        "rsync -z",
        "rsync --daemon --no-detach --config={folder}/rsyncd.conf",
        "rsync -z rsync://{address}:8730/dump/{name} {out}",
    ),
    Way(PEER, "zstd -3 -q -c {file} | nc -N -l {address} 8731", "nc -d {address} 8731 | zstd -d -q -o {out}"),
)


def main() -> int:
    """Print a table for each link."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pull", description=__doc__)
    parser.add_argument("dump", type=Path, nargs="?")
    parser.add_argument("--gib", type=float, default=2.0, help="without DUMP: the size of one that is made")
    parser.add_argument("--way", choices=[way.name for way in WAYS], action="append", help=f"besides {PLAIN} and {PEER}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--link", choices=("wan", "loopback"), action="append")
    arguments = parser.parse_args()
    missing = [name for name in ("curl", "aria2c", "rsync", "zstd", "nc") if shutil.which(name) is None]
    if missing or os.geteuid():
        raise BenchmarkError(f"needs root, and {', '.join(missing) or 'nothing else'}")
    # An installed farcore is not compiled anew by each command.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    ways = [way for way in WAYS if arguments.way is None or way.name in (PLAIN, PEER, *arguments.way)]
    for name in arguments.link or ("wan", "loopback"):
        with _link(name) as link, TemporaryDirectory(prefix="farcore-bench-") as folder:
            dump = arguments.dump or write(Path(folder, "large.elf"), int(arguments.gib * (1 << 30)))
            _measure(link, dump.resolve(), Path(folder), arguments.rounds, ways)
    return 0


@contextmanager
def _link(name: str) -> Iterator[Link]:
    if name == "loopback":
        counter = Path("/sys/class/net/lo/statistics/rx_bytes")
        yield Link(name, (), (), "127.0.0.1", lambda: int(counter.read_text()))
        return
    with wan("farcore-bench") as line:
        yield Link("40 ms, 100 Mbit/s", line.server, line.client, line.address, line.received)


def _measure(link: Link, dump: Path, folder: Path, rounds: int, ways: Sequence[Way]) -> None:
    (folder / "rsyncd.conf").write_text(
        f"port = 8730\naddress = {link.address}\nuse chroot = false\nuid = root\ngid = root\n[dump]\npath = {dump.parent}\n"
    )
    size = dump.stat().st_size
    dump.read_bytes()
    with _farcored(link, dump, folder) as (url, pid):
        fields = {"file": dump, "name": dump.name, "folder": folder, "address": link.address, "url": url, "out": folder / "out"}
        samples = in_turns(ways, rounds, lambda way: _once(way, link, fields, pid))
    table = Table(
        f"Pull of {size / 1e6:.0f} MB, {link.name}",
        ("way", "seconds", f"x {PEER}", f"x {PLAIN}", "MB", "CPU s/GiB, server", "client"),
    )
    for way in ways:
        mine = samples[way.name]
        cpu = (f"{middle(mine, figure) / size * (1 << 30):.2f}" for figure in (_server, _client))
        beside = (str(ratio(mine, samples[other], _seconds)) for other in (PEER, PLAIN))
        table.add(way.name, f"{middle(mine, _seconds):.2f}", *beside, f"{middle(mine, _wire) / 1e6:.1f}", *cpu)


def _once(way: Way, link: Link, fields: dict[str, object], farcored: int) -> Sample:
    out = Path(str(fields["out"]))
    for left in out.parent.glob("out*"):
        left.unlink()
    server = _start(link, way.server.format(**fields)) if way.server else None
    before, busy, received = _children(), cpu_seconds(family(farcored)), link.received()
    began = time.monotonic()
    subprocess.run([*link.client, "sh", "-c", way.client.format(**fields)], check=True, stdout=subprocess.DEVNULL)
    seconds, wire = time.monotonic() - began, link.received() - received
    client, served = _children() - before, cpu_seconds(family(farcored)) - busy
    if server is not None:
        os.kill(server.pid, signal.SIGTERM)  # not its own way, which would bury it before its time is known
        _, _, used = os.wait4(server.pid, 0)
        server.returncode = 0
        served = used.ru_utime + used.ru_stime
    if out.stat().st_size != Path(str(fields["file"])).stat().st_size:
        raise BenchmarkError(f"{way.name} did not bring all of the dump")
    return Sample(seconds, wire, served, client)


def _start(link: Link, command: str) -> subprocess.Popen[bytes]:
    server = subprocess.Popen([*link.server, "sh", "-c", command], stderr=subprocess.DEVNULL)
    time.sleep(0.5)  # neither nc nor rsync says when it listens
    return server


@contextmanager
def _farcored(link: Link, dump: Path, folder: Path) -> Iterator[tuple[str, int]]:
    command = [*link.server, str(BIN / "farcored"), "serve", str(dump), "--listen", f"{link.address}:{PORT}", "--insecure"]
    environment = {**os.environ, "STATE_DIRECTORY": str(folder / "state")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True) as server:
        assert server.stderr is not None
        try:
            if "serving" not in server.stderr.readline():
                raise BenchmarkError(f"farcored does not listen on {link.address}:{PORT}")
            listed = [*link.client, str(BIN / "farcore"), "ls", f"http://{link.address}:{PORT}"]
            said = subprocess.run(listed, check=True, capture_output=True, text=True).stdout
            yield next(word for word in said.split() if "/v1/dumps/" in word), server.pid
        finally:
            server.terminate()


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _seconds(sample: Sample) -> float:
    return sample.seconds


def _wire(sample: Sample) -> float:
    return sample.wire


def _server(sample: Sample) -> float:
    return sample.server


def _client(sample: Sample) -> float:
    return sample.client


if __name__ == "__main__":
    sys.exit(main())
