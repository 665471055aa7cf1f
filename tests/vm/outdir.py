"""Where the recipe puts things: finished files on top, downloads, logs and half-made files under `cache`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

STARTED = time.monotonic()


def say(text: str) -> None:
    """One line with the seconds since the start."""
    print(f"{time.monotonic() - STARTED:6.1f}s {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class OutDir:
    """A folder of dumps. What stands in it is finished: files are made beside it and renamed into place."""

    path: Path

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    def scratch(self, name: str) -> Path:
        """A path for a work file; its folder exists."""
        path = self.cache / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def log(self, name: str) -> Path:
        """A path for the log of a step (serial line, apt, makedumpfile); its folder exists."""
        path = self.cache / "log" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """Path of the file `name`, made by `make(part)` unless it is there already."""
        done = self.path / name
        if done.exists():
            say(f"{name} is there")
            return done
        part = self.scratch(f"{name}.part")
        part.unlink(missing_ok=True)
        make(part)
        part.chmod(0o644)
        done.parent.mkdir(parents=True, exist_ok=True)
        part.rename(done)
        say(name)
        return done
