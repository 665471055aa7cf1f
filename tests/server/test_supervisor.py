"""The supervisor, with workers that do next to nothing: who is started, replaced, told and ended, by what they print."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

WITHIN = 20.0

# Each line is one write, so that those of two processes do not mix. The first argument says how the workers are.
PROGRAM = """
import logging, os, select, signal, sys, time
from farcore_server.metrics import Metrics, Rows
from farcore_server.supervisor import SIGNALS, Supervisor

how, workers = sys.argv[1], int(sys.argv[2])
rows = Rows(workers)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def work(number, life):
    if how == "broken" and number == 0:
        say("started", os.getpid(), time.monotonic(), number)
        raise ValueError("out of order")
    counts = Metrics(rows, number)
    counts.count("vmcore", 200, 0)
    counts.connections = 5
    counts.ready(3, 1)
    say("started", os.getpid(), time.monotonic(), number)
    if how == "fragile":
        time.sleep(0.2)  # so that it is seen to be ready
        os._exit(7)
    while not select.select([life], [], [], 0)[0]:
        caught = signal.sigtimedwait(SIGNALS, 0.02)
        if caught and caught.si_signo == signal.SIGTERM and how != "deaf":
            return
        if caught:
            say("told", os.getpid(), caught.si_signo)
    say("orphan", os.getpid())

class Server:
    def ready(self, worker):
        say("ready")

    def reload(self):
        say("reload")
        return how != "stubborn"

    def stop(self):
        first = Metrics(rows, 0)
        say("stop", first.requests.get(("vmcore", 200), 0), rows.total()[-6:].tolist())
        return 0.5

logging.basicConfig(stream=sys.stdout, format="%(message)s")
if how == "childless":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
sys.exit(Supervisor(rows, work, Server()).run())
"""


class Supervised:
    """A supervisor of such workers."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    def said(self, word: str) -> list[str]:
        """What came after ``word``, in the lines that begin with it."""
        lines = self.log.read_text().splitlines()
        return [line.removeprefix(word).strip() for line in lines if line.split(" ")[0] == word]

    def alive(self) -> list[int]:
        """Its workers."""
        pid = self.process.pid
        return [int(worker) for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for it."""
        give_up = time.monotonic() + WITHIN
        while not holds():
            assert time.monotonic() < give_up, self.log.read_text()
            time.sleep(0.01)

    def started(self) -> list[int]:
        """The ids of all workers there ever were."""
        return [int(words.split()[0]) for words in self.said("started")]


@contextmanager
def supervised(tmp_path: Path, how: str = "sound", workers: int = 2) -> Iterator[Supervised]:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, how, str(workers)], stdout=output, stderr=output)
    found = Supervised(process, log)
    try:
        yield found
    finally:
        process.kill()
        process.wait(WITHIN)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Supervised]:
    with supervised(tmp_path) as found:
        found.until(lambda: len(found.said("started")) == 2 and found.said("ready") != [])
        yield found


def gone(pid: int) -> bool:
    """Whether it has ended; a zombie that nobody has buried yet counts."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_there_are_as_many_workers_as_were_asked_for_and_readiness_is_said_once(tmp_path: Path) -> None:
    with supervised(tmp_path, workers=3) as three:
        three.until(lambda: len(three.said("started")) == 3 and three.said("ready") != [])
        time.sleep(0.3)
        assert three.said("ready") == [""]
        assert sorted(three.alive()) == sorted(three.started())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_workers_and_then_the_supervisor_with_0(two: Supervised, number: signal.Signals) -> None:
    two.process.send_signal(number)
    assert two.process.wait(WITHIN) == 0
    assert len(two.said("stop")) == 1
    assert all(gone(pid) for pid in two.started())


def test_a_killed_worker_is_replaced_and_goes_on_counting_in_its_row(two: Supervised) -> None:
    # By their numbers: which of the two starts first is the system's choice, and "stop" tells the row of number 0.
    numbered = {words.split()[2]: int(words.split()[0]) for words in two.said("started")}
    victim, other = numbered["0"], numbered["1"]
    os.kill(victim, signal.SIGKILL)
    two.until(lambda: len(two.started()) == 3)
    new = two.started()[2]
    assert sorted(two.alive()) == sorted([other, new])
    assert f"(pid {victim}) was killed by SIGKILL; another takes its place in 0.1 s" in two.log.read_text()
    two.until(lambda: not gone(new))
    time.sleep(0.2)
    two.process.send_signal(signal.SIGTERM)
    assert two.process.wait(WITHIN) == 0
    # Counted by the victim and by its successor; ended once; 5 connections each of the two that are left; both ready.
    counted, _, rest = two.said("stop")[0].partition(" ")
    ended, _, connections, ready, *_ = map(int, rest.strip("[]").split(", "))
    assert (int(counted), ended, connections, ready) == (2, 1, 10, 2)
    assert two.said("ready") == [""]


def test_a_worker_that_dies_again_and_again_is_started_after_longer_and_longer_pauses(tmp_path: Path) -> None:
    with supervised(tmp_path, "fragile", workers=1) as one:
        one.until(lambda: len(one.said("started")) == 5)
        times = [float(words.split()[1]) for words in one.said("started")]
        lived = 0.2
        pauses = [later - earlier - lived for earlier, later in pairwise(times)]
        assert all(pause >= least for pause, least in zip(pauses, (0.1, 0.2, 0.4, 0.8), strict=True)), pauses
        assert one.log.read_text().count("ended with status 7; another takes its place in 0.2 s\n") == 1
        one.process.terminate()
        assert one.process.wait(WITHIN) == 0, "a pause does not keep it"


def test_a_worker_that_fails_before_any_was_ready_ends_all_with_1(tmp_path: Path) -> None:
    with supervised(tmp_path, "broken", workers=1) as one:
        assert one.process.wait(WITHIN) == 1
        text = one.log.read_text()
        assert "ValueError: out of order" in text
        assert "ended with status 1 before any worker answered" in text
        assert (len(one.started()), one.said("ready"), len(one.said("stop"))) == (1, [], 1)


def test_a_worker_that_does_not_end_in_time_is_killed_and_that_is_a_failure(tmp_path: Path) -> None:
    with supervised(tmp_path, "deaf") as deaf:
        deaf.until(lambda: len(deaf.said("started")) == 2 and deaf.said("ready") != [])
        deaf.process.terminate()
        begun = time.monotonic()
        assert deaf.process.wait(WITHIN) == 1
        assert time.monotonic() - begun >= 5.5, "the half second that they were given, and the grace"
        assert [int(line.split()[1]) for line in deaf.said("told")] == [signal.SIGTERM] * 2
        assert all(gone(pid) for pid in deaf.started())
        assert "workers that had not ended in time were killed" in deaf.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_everything_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with supervised(tmp_path, "deaf") as deaf:
        deaf.until(lambda: len(deaf.said("started")) == 2 and deaf.said("ready") != [])
        deaf.process.terminate()
        deaf.until(lambda: len(deaf.said("told")) == 2)
        begun = time.monotonic()
        deaf.process.send_signal(number)
        assert deaf.process.wait(WITHIN) == -number, "as whoever sent it expects"
        assert time.monotonic() - begun < 5
        assert all(gone(pid) for pid in deaf.started())


def test_a_hangup_is_passed_on_to_every_worker_once_the_settings_are_read(two: Supervised) -> None:
    two.process.send_signal(signal.SIGHUP)
    two.until(lambda: len(two.said("told")) == 2)
    assert two.said("reload") == [""]
    assert sorted(two.said("told")) == sorted(f"{pid} {signal.SIGHUP:d}" for pid in two.started())
    assert sorted(two.alive()) == sorted(two.started()), "nobody is replaced"


def test_a_hangup_whose_settings_cannot_be_used_reaches_no_worker(tmp_path: Path) -> None:
    with supervised(tmp_path, "stubborn") as stubborn:
        stubborn.until(lambda: len(stubborn.said("started")) == 2 and stubborn.said("ready") != [])
        stubborn.process.send_signal(signal.SIGHUP)
        stubborn.until(lambda: stubborn.said("reload") != [])
        time.sleep(0.3)
        assert stubborn.said("told") == []


def test_workers_end_when_their_supervisor_is_killed(two: Supervised) -> None:
    two.process.kill()
    two.until(lambda: len(two.said("orphan")) == 2)
    two.until(lambda: all(gone(pid) for pid in two.started()))


def test_a_worker_started_later_ends_with_the_supervisor_as_well(two: Supervised) -> None:
    os.kill(two.started()[0], signal.SIGKILL)
    two.until(lambda: len(two.started()) == 3)
    two.process.kill()
    two.until(lambda: len(two.said("orphan")) == 2)


def test_deaths_are_noticed_although_whoever_started_the_supervisor_ignored_them(tmp_path: Path) -> None:
    with supervised(tmp_path, "childless") as found:
        found.until(lambda: len(found.said("started")) == 2 and found.said("ready") != [])
        os.kill(found.started()[1], signal.SIGKILL)
        found.until(lambda: len(found.started()) == 3)
        found.process.terminate()
        assert found.process.wait(WITHIN) == 0
