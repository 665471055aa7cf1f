from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NEEDED = [name for name in ("nginx", "cc", "openssl", "setpriv") if not shutil.which(name, path="/usr/sbin:/usr/bin:/bin")]

pytestmark = pytest.mark.skipif(bool(NEEDED), reason=f"not installed: {', '.join(NEEDED)}")


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "--size", "32", "--network", "default", "--workers", "1", *arguments]
    environment = {"BENCH_DIR": str(folder), "PATH": "/usr/sbin:/usr/bin:/bin"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)


def test_a_row_is_measured_on_both_and_nothing_is_left_behind(tmp_path: Path) -> None:
    done = _run(tmp_path, "--rows", "4k-c1,pages", "--rounds", "1", "--seconds", "0.1")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert rows["4k-c1"].count("k/s") == 2
    assert "farcore batch" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    done = _run(tmp_path, "--rows", "5k-c1")
    assert done.returncode == 2
    assert "5k-c1" in done.stderr
