"""What every file of the repository owes the others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BANNED = {
    "a path of somebody's machine": r"(?<![\w.})-])/(?:work|root|home/\w+|Users/\w+|tmp/(?:dumps|parts))/",
    "a package index or mirror": r"(?:index-url|trusted-host|find-links)[ =]+\S*//|https?://[\w.-]+\.(?:internal|corp|lan|pkg\.dev)\b",
    "something left to be done": r"\b(?:TO(?:DO)|FIX(?:ME)|X(?:XX))\b",
}

# In backticks, after a prompt, indented as code, or alone on its line: not "make sure".
MAKE = re.compile(r"(?:`|\$ |^ {4,}|^(?=make \S+$))make ([a-z-]+)", re.MULTILINE)


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """The text files that git tracks or would, by path."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listing = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    contents = {name: (ROOT / name).read_bytes() for name in names if name and (ROOT / name).is_file()}
    return {name: content.decode() for name, content in contents.items() if b"\0" not in content}


@pytest.mark.parametrize("what", BANNED)
def test_no_file_holds(texts: dict[str, str], what: str) -> None:
    found = {name: match[0] for name, text in texts.items() if (match := re.search(BANNED[what], text))}
    assert found == {}


def test_readers_are_only_told_of_targets_that_the_makefile_has(texts: dict[str, str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", texts["Makefile"], re.MULTILINE))
    told = {name: set(MAKE.findall(text)) for name, text in texts.items() if name.endswith(".md")}
    assert {"demo", "test"} <= told["README.md"]
    assert {name: sorted(some - targets) for name, some in told.items() if some - targets} == {}


def test_farcored_help_loads_neither_the_server_nor_numpy() -> None:
    command = [str(Path(sys.executable).with_name("farcored")), "--help"]
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "serve" in done.stdout
    assert loaded & {"farcore_server", "aiohttp", "uvloop", "jinja2", "numpy"} == {"farcore_server"}
