"""Child: the program ends with who runs it, at whatever moment that is told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import Any

import pytest

from farcore_client.child import child, status, tidily

SLEEPS = ["sleep", "60"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_program(number: signal.Signals) -> None:
    with tidily(), child(SLEEPS) as program:
        os.kill(os.getpid(), number)
    assert status(program) == 128 + number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["before", "behind"])
def test_a_signal_while_the_program_is_being_started_ends_it_as_well(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, moment: str
) -> None:
    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            if moment == "before":
                os.kill(os.getpid(), number)
            super().__init__(*arguments, **more)
            if moment == "behind":
                os.kill(os.getpid(), number)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with tidily(), child(SLEEPS) as program:
        pass
    assert status(program) == 128 + number


def test_a_signal_that_another_thread_was_given_ends_it_as_well() -> None:
    with tidily(), child(SLEEPS) as program:
        threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)).start()
    assert status(program) == 128 + signal.SIGTERM


def test_ctrl_c_is_the_programs_own_affair() -> None:
    with child(["sleep", "0.2"]) as program:
        os.kill(os.getpid(), signal.SIGINT)
    assert status(program) == 0


def test_an_error_beside_the_program_ends_it() -> None:
    with pytest.raises(ZeroDivisionError), child(SLEEPS) as program:
        raise ZeroDivisionError
    assert status(program) == 128 + signal.SIGTERM
