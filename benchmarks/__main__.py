"""python -m benchmarks: farcore and nginx side by side, on this machine, now."""

from __future__ import annotations

import argparse
import fnmatch
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NoReturn

from benchmarks import BenchmarkError, beside, dump, headers, network, pages, ranges, report, stalled
from benchmarks.lab import Lab
from benchmarks.programs import Programs
from benchmarks.servers import Certificate
from benchmarks.table import Table

ROWS: Final = (*(row.name for row in ranges.ROWS), *pages.ROWS, *beside.ROWS, *stalled.ROWS, *headers.ROWS)


def main() -> int:
    """Measure what the arguments ask for; 0 done, 1 it cannot be measured here, 2 usage, 130 interrupted."""
    parser = _parser()
    arguments = parser.parse_args()
    for pattern in arguments.rows:
        if not fnmatch.filter(ROWS, pattern):
            parser.error(f"there is no row {pattern}; the rows are {', '.join(ROWS)}")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with _lab(arguments) as lab:
            tables = [table for table in _tables(lab, arguments) if table is not None]
        if arguments.write:
            report.write(tables, lab, arguments.size)
    except (BenchmarkError, OSError, subprocess.CalledProcessError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="farcore and nginx side by side on loopback, in turns. The dumps are made in $BENCH_DIR, or else $TMPDIR.",
        epilog=f"Rows: {', '.join(ROWS)}. Example: python -m benchmarks --rows '4k*,whole-c1' --workers 1 --network cubic",
    )
    parser.add_argument(
        "--rows", type=_patterns, default=("*",), help="which rows, by their names or patterns, separated by commas"
    )
    parser.add_argument("--rounds", type=int, default=5, help="samples of each server (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.8, help="length of a sample (default %(default)s)")
    parser.add_argument("--workers", type=int, choices=(1, 2), action="append", help="may be repeated (default: 1 and 2)")
    parser.add_argument(
        "--network", choices=("cubic", "default"), action="append", help="congestion control; may be repeated (default: both)"
    )
    parser.add_argument(
        "--size", type=int, default=1024, help="MiB of a dump (default %(default)s); must fit into memory twice"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    return parser


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(pattern.strip() for pattern in text.split(","))


@contextmanager
def _lab(arguments: argparse.Namespace) -> Iterator[Lab]:
    with TemporaryDirectory(prefix="farcore-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        directory = Path(name)
        programs = Programs.build(directory)
        root = directory / "dumps"
        root.mkdir()
        certificate = Certificate.make(directory)
        lab = Lab(root, programs, certificate, arguments.rows, arguments.rounds, arguments.seconds)
        dump.write(lab.hot, arguments.size << 20)
        if lab.wants("cold"):
            dump.write(lab.cold, arguments.size << 20)
        yield lab


def _tables(lab: Lab, arguments: argparse.Namespace) -> Iterator[Table | None]:
    if not lab.programs.tls:
        _skipped("TLS", "ranger was built without it (apt-get install libssl-dev)")
    for name in _networks(arguments.network or ("cubic", "default")):
        with network.cubic() if name == "cubic" else nullcontext():
            here = lab.under("cubic" if name == "cubic" else network.default())
            for workers in sorted(set(arguments.workers or (1, 2))):
                yield ranges.measure(here, workers, tls=False)
            yield ranges.measure(here, 1, tls=True) if lab.programs.tls else None
            yield pages.measure(here)
            yield beside.measure(here)
            yield stalled.measure(here)
    if os.geteuid():
        _skipped("pages-far", "only root can make a line between two network namespaces")
    else:
        yield pages.measure_far(lab)
    yield headers.measure(lab)


def _networks(asked: Sequence[str]) -> list[str]:
    """Those that can be had here, each once."""
    if network.default() == "cubic":
        return ["default"]
    if "cubic" in asked and os.geteuid():
        _skipped("cubic", "only root can have a network namespace of its own")
        return [name for name in asked if name != "cubic"]
    return list(dict.fromkeys(asked))


def _skipped(what: str, why: str) -> None:
    print(f"benchmarks: {what} is skipped: {why}", file=sys.stderr)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
