"""What farcore sets for itself: one thread where numpy would start many, and nothing for the programs that it starts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from farcore_client import environment
from farcore_client.child import child

NAME = "OPENBLAS_NUM_THREADS"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_set", set())
    monkeypatch.delenv(NAME, raising=False)


def test_numpy_starts_no_threads() -> None:
    count = "import os, numpy; print(len(os.listdir('/proc/self/task')))"
    program = f"from farcore_client import environment; environment.prepare(); {count}"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "1\n"


def test_what_somebody_has_set_is_left_and_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "7")
    environment.prepare()
    assert os.environ[NAME] == environment.passed_on()[NAME] == "7"


def test_a_program_that_is_started_does_not_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARCORE_SEEN", "yes")
    environment.prepare()
    assert os.environ[NAME] == "1"
    with child(["sh", "-c", f'test -z "${NAME}" && test "$FARCORE_SEEN" = yes']) as program:
        pass
    assert program.returncode == 0
    os.environ.pop(NAME)
