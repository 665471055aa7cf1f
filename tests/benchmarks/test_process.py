from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks import process

BURN = """
import mmap, sys, time
while time.process_time() < 0.3:
    pass
block = mmap.mmap(-1, 32 << 20)
for at in range(0, len(block), 4096):
    block[at] = 1
print(time.process_time(), flush=True)
sys.stdin.read()
"""


@contextmanager
def _child(*command: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        yield child
        child.communicate()


def test_cpu_time_is_what_the_process_says_of_itself() -> None:
    with _child(sys.executable, "-c", BURN) as child:
        assert child.stdout is not None
        own = float(child.stdout.readline())
        assert process.cpu_seconds([child.pid]) == pytest.approx(own, abs=0.05)
        assert process.cpu_seconds([child.pid, child.pid]) == pytest.approx(2 * own, abs=0.1)


def test_private_memory_grows_by_what_the_process_writes_to() -> None:
    with _child(sys.executable, "-c", BURN) as child, _child(sys.executable, "-c", BURN.replace("32", "4")) as smaller:
        for one in (child, smaller):
            assert one.stdout is not None
            one.stdout.readline()
        difference = process.private_bytes([child.pid]) - process.private_bytes([smaller.pid])
        assert difference == pytest.approx(28 << 20, rel=0.05)


def test_the_family_is_the_process_and_the_children_of_its_children() -> None:
    with _child("sh", "-c", "sh -c 'sleep 60 & echo $!; wait'; true") as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        family = process.family(child.pid)
        os.kill(grandchild, signal.SIGTERM)
    assert family[0] == child.pid
    assert grandchild in family
    assert os.getpid() not in family
    assert len(family) == 3


def test_the_machine_s_time_holds_that_of_a_process() -> None:
    before = process.machine_seconds()
    with _child(sys.executable, "-c", BURN) as child:
        assert child.stdout is not None
        child.stdout.readline()
    assert process.machine_seconds() - before >= 0.25
