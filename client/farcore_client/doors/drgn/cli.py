"""drgn's own command line over a dump on a server: its options, its scripts, its prompt."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from farcore.errors import FarcoreError
from farcore_client.doors.drgn import plugin
from farcore_client.doors.drgn.program import core, demand_drgn
from farcore_client.target import Target

_PLUGINS: Final = "DRGN_PLUGINS"


def run(target: Target, vmlinux: Path | None, options: Sequence[str]) -> int:
    """What `drgn -c DUMP -s VMLINUX OPTIONS` would do with a local copy; its exit status. A FarcoreError passes through."""
    demand_drgn()
    fd = core(target)
    path = f"/proc/{os.getpid()}/fd/{fd}"
    symbols = ["-s", str(vmlinux)] if vmlinux else []
    try:
        # drgn calls it by what the link leads to.
        with _plugged_in(os.readlink(path), target), _arguments(["drgn", "-c", path, *symbols, *options]):
            runpy.run_module("drgn", run_name="__main__")
    except SystemExit as leaving:
        return _status(leaving.code)
    except FarcoreError:
        raise
    except Exception:
        # A script's own error, which python would print, without the frames from here, and end with 1.
        kind, error, frames = sys.exc_info()
        traceback.print_exception(kind, error, frames and frames.tb_next)
        return 1
    finally:
        os.close(fd)
    return 0


def _status(code: str | int | None) -> int:
    if isinstance(code, str):
        print(code, file=sys.stderr)
        return 1
    return code or 0


@contextmanager
def _plugged_in(path: str, target: Target) -> Iterator[None]:
    before = os.environ.get(_PLUGINS)
    os.environ[_PLUGINS] = ",".join(filter(None, (before, plugin.NAME)))
    plugin.targets[path] = target
    try:
        yield
    finally:
        del plugin.targets[path]
        if before is None:
            del os.environ[_PLUGINS]
        else:
            os.environ[_PLUGINS] = before


@contextmanager
def _arguments(arguments: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, arguments
    try:
        yield
    finally:
        sys.argv = before
