"""Completion: what a real bash offers when TAB is pressed, by the script that README tells to load."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from farcore_client.commands import COMMANDS
from tests.requires import requires

BIN = Path(sys.executable).parent
WITHIN = 60.0


def typed(text: str, until: str) -> str:
    """What an interactive bash with farcore's completion shows when this is typed, up to ``until``."""
    terminal, theirs = pty.openpty()
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "TERM": "dumb", "PS1": "> ", "HOME": "/nonexistent", "COLUMNS": "200"}
    command = ["bash", "--norc", "--noprofile", "-i"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True) as bash:
        os.close(theirs)
        try:
            os.write(terminal, b'eval "$(_FARCORE_COMPLETE=bash_source farcore)"; echo load""ed\n')
            _shown(terminal, "loaded\r\n")
            os.write(terminal, text.encode())
            return _shown(terminal, until)
        finally:
            bash.kill()
            os.close(terminal)


def _shown(terminal: int, until: str) -> str:
    shown, give_up = "", time.monotonic() + WITHIN
    while until not in shown:
        assert time.monotonic() < give_up, shown
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 4096).decode()
    return shown


@requires("bash")
@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("farcore ver\t", "farcore verify "),
        ("farcore pull --lim\t", "farcore pull --limit-rate "),
        ("farcore pull --format st\t", "farcore pull --format stored "),
        ("farcore door cr\t", "farcore door crash "),
    ],
)
def test_bash_completes_commands_options_and_choices(text: str, until: str) -> None:
    assert until in typed(text, until)


@requires("bash")
def test_bash_lists_every_command_and_files_where_a_file_is_wanted(tmp_path: Path) -> None:
    shown = typed("farcore \t\t", "verify")
    assert set(COMMANDS) <= set(shown.split())
    (tmp_path / "a-dump.vmcore").touch()
    assert "a-dump.vmcore" in typed(f"farcore verify URL {tmp_path}/a-\t", "a-dump.vmcore")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_there_is_a_script_for_other_shells(shell: str) -> None:
    environment = {**os.environ, "_FARCORE_COMPLETE": f"{shell}_source"}
    done = subprocess.run([BIN / "farcore"], env=environment, capture_output=True, text=True, check=True)
    assert "_FARCORE_COMPLETE" in done.stdout


def test_offering_the_commands_imports_none_of_them() -> None:
    environment = {**os.environ, "_FARCORE_COMPLETE": "zsh_complete", "COMP_WORDS": "farcore", "COMP_CWORD": "1"}
    command = [sys.executable, "-X", "importtime", str(BIN / "farcore")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1::3] == list(COMMANDS)
    assert "numpy" not in done.stderr
    assert "farcore_client.commands.pull" not in done.stderr
