"""A real ``farcored serve`` in a process of its own, on a port of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

READY = re.compile(r"^farcored: serving .* on (https?://\S+)$", re.MULTILINE)
STARTS_WITHIN = 30.0  # seconds; a busy machine takes several for the imports alone
STOPS_WITHIN = 40.0  # running streams get 30


@dataclass(frozen=True, slots=True)
class Live:
    """A server that listens: its base URL without a slash at the end, its process, what it has written to stderr."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def stderr(self) -> str:
        """What it has said until now."""
        return self.log.read_text(errors="replace")

    @property
    def workers(self) -> list[int]:
        """The process ids of its workers."""
        pid = self.process.pid
        return [int(worker) for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


Serve = Callable[..., Live]


@contextmanager
def farcored(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, listen: str = "127.0.0.1:0"
) -> Iterator[Live]:
    """``farcored serve ARGUMENTS --listen LISTEN`` for the time of the body, then SIGTERM; it must end with 0.

    The body may stop or kill it first. What it remembers goes with it, unless ``environment`` has a STATE_DIRECTORY. What the
    server wrote to stderr becomes the test's own, which pytest shows if it fails.
    """
    script = Path(sys.executable).with_name("farcored")
    with TemporaryDirectory(prefix="farcored-") as state, NamedTemporaryFile(prefix="farcored-", suffix=".stderr") as log:
        process = subprocess.Popen(
            [script, "serve", *arguments, "--listen", listen],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "STATE_DIRECTORY": state, **(environment or {})},
        )
        live = Live("", process, Path(log.name))
        try:
            yield Live(_url(live), process, live.log)
            process.terminate()
            process.wait(STOPS_WITHIN)
            assert process.returncode in (0, -signal.SIGKILL), f"farcored ended with {process.returncode}"
        finally:
            process.kill()
            process.wait()
            sys.stderr.write(live.stderr)


def _url(live: Live) -> str:
    """The base URL, from the line that says that it listens."""
    give_up = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < give_up:
        if found := READY.search(live.stderr):
            return found[1].rstrip("/")
        assert live.process.poll() is None, f"farcored ended with {live.process.returncode} before it listened:\n{live.stderr}"
        time.sleep(0.02)
    raise AssertionError(f"farcored did not listen within {STARTS_WITHIN:.0f} s:\n{live.stderr}")
