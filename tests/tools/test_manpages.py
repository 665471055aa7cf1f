"""`make man`: real man formats a page of every command, without a warning, with its options and its examples."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from farcore_client.commands import COMMANDS
from tests.requires import requires

SCRIPT = Path(__file__).parents[2] / "docs/manpages.py"
BIN = Path(sys.executable).parent
pytestmark = requires("man")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, SCRIPT, folder], check=True)
    return folder


def shown(page: Path) -> str:
    """What man shows; it must have nothing to complain of."""
    environment = {**os.environ, "MANWIDTH": "200", "MANROFFOPT": "-ww", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["man", "--warnings", "-l", page], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return re.sub(r".\x08|\x1b\[[0-9;]*m", "", done.stdout)


def test_every_command_has_a_page_that_man_shows_without_a_warning(folder: Path) -> None:
    names = {path.stem for path in folder.iterdir()}
    assert {"farcore", "farcored", "farcored-serve", "farcored-token-add"} | {f"farcore-{name}" for name in COMMANDS} <= names
    for path in folder.iterdir():
        text = shown(path)
        assert re.search(rf"^NAME\n +{path.stem} - \S", text, re.MULTILINE), path
        assert "\nEXAMPLES\n" in text or path.stem.startswith(("farcored-token-", "farcore-profile-")), path


def test_a_page_has_every_option_and_example_of_the_help(folder: Path) -> None:
    said = subprocess.run([BIN / "farcore", "pull", "--help"], capture_output=True, text=True, check=True).stdout
    text = shown(folder / "farcore-pull.1")
    for option in re.findall(r"^  (?:-\w, )?(--[a-z-]+)", said, re.MULTILINE):
        assert option in text
    for example in re.findall(r"farcore pull http\S+.*", said):
        assert example in text
