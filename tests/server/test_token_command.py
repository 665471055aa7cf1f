"""farcored as a shell sees it: exit status, the two outputs, and what `farcored token` leaves in the file."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import click
import pytest

from farcore_server.commands import COMMANDS
from farcore_server.tokens import TokenFile

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("FARCORE_")}
FARCORED = Path(sys.executable).with_name("farcored")


def farcored(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FARCORED, *arguments],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | environment,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def test_add_prints_the_token_alone_and_a_server_then_accepts_it(path: Path) -> None:
    done = farcored("token", "add", "alice", "--token-file", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert TokenFile(path).verify(done.stdout.removesuffix("\n")) == "alice"


def test_list_shows_names_and_dates_and_never_a_digest(path: Path) -> None:
    path.write_text(f"alice 2026-01-31 {'a' * 64}\nbob 2026-02-01 {'b' * 64}\n")
    plain = farcored("token", "list", FARCORE_TOKEN_FILE=str(path))
    assert plain.stdout == "2026-01-31  alice\n2026-02-01  bob\n"
    as_json = farcored("token", "list", "--json", "--token-file", path)
    assert json.loads(as_json.stdout) == [{"name": "alice", "created": "2026-01-31"}, {"name": "bob", "created": "2026-02-01"}]


def test_revoke_drops_one_token_and_says_nothing(path: Path) -> None:
    path.write_text(f"alice 2026-01-31 {'a' * 64}\nbob 2026-02-01 {'b' * 64}\n")
    done = farcored("token", "revoke", "alice", "--token-file", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert path.read_text() == f"bob 2026-02-01 {'b' * 64}\n"


def test_the_flag_wins_over_the_variable(path: Path, tmp_path: Path) -> None:
    farcored("token", "add", "alice", "--token-file", path, FARCORE_TOKEN_FILE=str(tmp_path / "other"))
    assert path.exists()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["token", "add", "alice"], 1, "already has a token named alice"),
        (["token", "revoke", "bob"], 1, "no token named bob"),
        (["token", "add", "two words"], 2, "is not a token's name"),
        (["token", "add"], 2, "Missing argument 'NAME'; `farcored token add --help`"),
        (["token"], 2, "Missing command; `farcored token --help`"),
        ([], 2, "Missing command; `farcored --help`"),
        (["tokens"], 2, "No such command 'tokens'"),
        (["token", "list", "--josn"], 2, "--josn"),
    ],
)
def test_a_failure_is_a_sentence_on_stderr_and_a_status(path: Path, arguments: list[str], status: int, sentence: str) -> None:
    path.write_text(f"alice 2026-01-31 {'a' * 64}\n")
    done = farcored(*arguments, FARCORE_TOKEN_FILE=str(path))
    assert (done.returncode, done.stdout) == (status, "")
    assert re.fullmatch(r"farcored: .+\n", done.stderr)
    assert sentence in done.stderr


def test_a_file_that_is_not_named_missing_or_malformed_is_a_usage_error(path: Path) -> None:
    unnamed = farcored("token", "list")
    assert (unnamed.returncode, unnamed.stdout) == (2, "")
    assert "--token-file FILE" in unnamed.stderr
    assert "FARCORE_TOKEN_FILE" in unnamed.stderr
    assert f"{path}: there is no such token file" in farcored("token", "list", "--token-file", path).stderr
    path.write_text("# ok\nrubbish\n")
    for command in (["list"], ["add", "bob"], ["revoke", "bob"]):
        wrong = farcored("token", *command, "--token-file", path)
        assert (wrong.returncode, wrong.stderr.startswith(f"farcored: {path}: line 2: ")) == (2, True)
    assert path.read_text() == "# ok\nrubbish\n"


def test_an_interrupt_ends_with_130(path: Path) -> None:
    # The interrupt comes while it waits for another writer.
    path.write_text("")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        command: list[str | Path] = [FARCORED, "token", "add", "alice", "--token-file", path]
        waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        while f"{path}" not in open_files(waiting.pid):
            time.sleep(0.01)
        time.sleep(0.1)
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert "Traceback" not in said
    assert path.read_text() == ""


def open_files(pid: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(entry))
        except FileNotFoundError:
            continue
    return found


def commands(command: click.Command, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    found = {words: command} if words else {}
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            found |= commands(below, (*words, name))
    return found


def every_command() -> dict[tuple[str, ...], click.Command]:
    return commands(import_module("farcore_server.main").farcored)


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_has_a_help_with_an_example_of_itself(words: tuple[str, ...]) -> None:
    done = farcored(*words, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Example: farcored {' '.join(words)} " in done.stdout


def test_the_list_of_commands_is_the_table() -> None:
    shown = re.findall(r"^  ([a-z]+)  +\S", farcored("--help").stdout.partition("Commands:")[2], re.MULTILINE)
    assert shown == list(COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], ["token", "list"]])
def test_what_needs_no_server_imports_none(arguments: list[str]) -> None:
    program = "import sys; from farcore_server.main import main; main(sys.argv[1:]); print('|', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    loaded = done.stdout.rpartition("|")[2].split()
    assert "click" in loaded
    assert not {"aiohttp", "numpy", "asyncio", "ssl", "uvloop"} & set(loaded)
