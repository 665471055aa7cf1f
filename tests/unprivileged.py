"""Programs run as nobody, so that permissions count: root may read everything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

# The imports come first: nobody may be kept out of the folder that this checkout lies in.
_DROP = """
import os, sys
{imports}
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
{program}
"""


def as_nobody(imports: str, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``program`` with ``arguments`` as sys.argv[1:], after ``imports`` and without a privilege."""
    command = [sys.executable, "-c", _DROP.format(imports=imports, program=program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that everyone may enter; pytest's own are private."""
    with TemporaryDirectory(prefix="farcore-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        yield folder
