"""How a target is run: by libFuzzer, from seeds made in code, in a corpus that is gone afterwards, within bounds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

# An input that takes longer, or makes the process larger, is a finding: both are bounded by named limits.
BOUNDS = ("-timeout=10", "-rss_limit_mb=512")


def fuzz(one: Callable[[bytes], None], seeds: Iterable[bytes]) -> None:
    """Run ``one`` on inputs that grow from ``seeds``, until sys.argv's -max_total_time or an invariant does not hold."""
    with TemporaryDirectory(prefix="corpus-") as corpus:
        for number, seed in enumerate(seeds):
            (Path(corpus) / f"seed-{number}").write_bytes(seed)
        atheris.Setup([sys.argv[0], *BOUNDS, *sys.argv[1:], corpus], one)
        atheris.Fuzz()
