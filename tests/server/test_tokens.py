"""The token file, against sha256sum, file attributes and real processes that write at the same time."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from farcore.errors import SettingsError
from farcore_server import tokens
from farcore_server.tokens import MAX_SIZE, TokenError, TokenFile

GOOD = "alice 2026-01-31 " + hashlib.sha256(b"one").hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def sha256sum(token: str) -> str:
    done = subprocess.run(["sha256sum"], input=token.encode(), capture_output=True, check=True)
    return done.stdout.decode().split()[0]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def test_a_line_has_the_name_today_and_the_digest_that_sha256sum_gives(path: Path) -> None:
    before = datetime.now(UTC).date()
    token = tokens.add(path, "alice")
    name, created, digest = path.read_text().split()
    assert (name, digest) == ("alice", sha256sum(token))
    assert created in (str(before), str(datetime.now(UTC).date()))
    assert token not in path.read_text()


def test_a_token_says_what_it_is_and_has_256_random_bits(path: Path) -> None:
    one, two = tokens.add(path, "one"), tokens.add(path, "two")
    assert re.fullmatch(r"farcore_[A-Za-z0-9_-]{43}", one)  # 43 digits of base64 are 258 bits
    assert one != two


def test_a_line_written_by_hand_counts(path: Path) -> None:
    path.write_text(f"# ours\n\n  bob\t2026-01-31   {sha256sum('his own secret')}")
    assert TokenFile(path).verify("his own secret") == "bob"


def test_a_new_file_is_for_its_owner_alone_whatever_the_umask(path: Path) -> None:
    with umask(0):
        tokens.add(path, "alice")
    assert path.stat().st_mode & 0o7777 == 0o600


def test_an_existing_file_keeps_mode_and_owner(path: Path) -> None:
    path.write_text("")
    path.chmod(0o640)
    group = 4242 if os.geteuid() == 0 else os.getegid()
    os.chown(path, -1, group)
    tokens.add(path, "alice")
    tokens.add(path, "bob")
    tokens.revoke(path, "alice")
    assert (path.stat().st_mode & 0o7777, path.stat().st_gid) == (0o640, group)


def test_a_link_to_the_file_stays_a_link(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    path.symlink_to(target / "tokens")
    tokens.add(path, "alice")
    assert path.is_symlink()
    assert (target / "tokens").read_text().startswith("alice ")


def test_who_reads_while_it_is_written_has_the_old_file_whole(path: Path) -> None:
    tokens.add(path, "alice")
    before = path.read_text()
    with path.open() as reader:
        tokens.add(path, "bob")
        assert reader.read() == before


def test_nothing_but_the_file_is_left_behind(path: Path) -> None:
    tokens.add(path, "alice")
    tokens.revoke(path, "alice")
    assert os.listdir(path.parent) == ["tokens"]


@pytest.mark.parametrize("name", ["a", "alice@example.org", "ci-runner_7", "9", "x" * 64])
def test_a_name_may_be(path: Path, name: str) -> None:
    tokens.add(path, name)
    assert [entry.name for entry in tokens.listed(path)] == [name]


@pytest.mark.parametrize("name", ["", "x" * 65, "two words", "-flag", "#note", "é", "a\nb 2026-01-31", "a\0", "../x", "a/b"])
def test_a_name_may_not_be(path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="is not a token's name"):
        tokens.add(path, name)
    assert not path.exists()


def test_a_name_that_is_taken_is_refused_and_the_file_stays_as_it_is(path: Path) -> None:
    tokens.add(path, "alice")
    before = path.read_bytes()
    with pytest.raises(TokenError, match="already has a token named alice"):
        tokens.add(path, "alice")
    assert path.read_bytes() == before


def test_a_name_that_is_not_there_cannot_be_revoked(path: Path) -> None:
    tokens.add(path, "alice")
    with pytest.raises(TokenError, match="no token named ali:"):
        tokens.revoke(path, "ali")
    assert [entry.name for entry in tokens.listed(path)] == ["alice"]


def test_revoking_drops_one_line_and_leaves_every_other_byte(path: Path) -> None:
    one, two, three = (sha256sum(text) for text in ("1", "2", "3"))
    before = f"# team A, é\n\nbob  2026-01-31 {one}\n# alice has left\n"
    after = f"\nalice2 2026-01-31 {three}\n# end"
    path.write_text(f"{before}alice 2026-01-31 {two}\n{after}")
    tokens.revoke(path, "alice")
    assert path.read_text() == before + after


def test_a_last_line_without_an_end_is_ended_before_another_follows(path: Path) -> None:
    path.write_text(GOOD)
    tokens.add(path, "bob")
    assert [entry.name for entry in tokens.listed(path)] == ["alice", "bob"]


WRONG = {
    "bob": "found 1 words",
    "bob 2026-01-31": "found 2 words",
    GOOD.replace("alice", "bob") + " x": "found 4 words",
    GOOD.replace("alice", "-bob"): "'-bob' is not a token's name",
    GOOD.replace("alice", "bob").replace("2026-01-31", "2026-02-30"): "'2026-02-30' is not a date",
    GOOD.replace("alice", "bob").replace("2026-01-31", "20260131"): "'20260131' is not a date",
    "bob 2026-01-31 farcore_secret": "the third word must be a SHA-256",
    GOOD.replace("alice", "bob").upper(): "the third word must be a SHA-256",
    GOOD.replace("alice", "bob")[:-1]: "the third word must be a SHA-256",
    "alice 2026-01-31 " + "0" * 64: "the name alice is already on line 2",
    GOOD.replace("alice", "bob"): "this token is already on line 2",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_line_is_named_by_its_number(path: Path, line: str) -> None:
    path.write_text(f"# header\n{GOOD}\n\n{line}\n")
    with pytest.raises(SettingsError) as caught:
        TokenFile(path)
    assert str(caught.value).startswith(f"{path}: line 4: ")
    assert WRONG[line] in str(caught.value)
    assert "farcore_secret" not in str(caught.value)


def test_what_is_no_token_file_is_refused_in_a_sentence(path: Path, tmp_path: Path) -> None:
    fifo, binary = tmp_path / "fifo", tmp_path / "binary"
    os.mkfifo(fifo)
    binary.write_bytes(b"\x7fELF\xff")
    for wrong, why in ((path, "no such token file"), (tmp_path, "plain file"), (fifo, "plain file"), (binary, "UTF-8")):
        with pytest.raises(SettingsError, match=why):
            TokenFile(wrong)
    with pytest.raises(SettingsError, match="directory does not exist"):
        tokens.add(tmp_path / "none" / "tokens", "alice")
    with pytest.raises(SettingsError, match="plain file"):
        tokens.add(fifo, "alice")


def test_a_file_at_the_size_limit_is_read_and_one_past_it_is_not(path: Path) -> None:
    path.write_text(GOOD + "\n" + "#" * (MAX_SIZE - len(GOOD) - 1))
    assert TokenFile(path).verify("one") == "alice"
    path.write_text(path.read_text() + "#")
    with pytest.raises(SettingsError, match="more than 1,000,000 bytes"):
        TokenFile(path)


@pytest.mark.parametrize("guess", ["", "one ", "On", "two", hashlib.sha256(b"one").hexdigest(), "\ud800", "x" * 100_000])
def test_only_the_token_itself_is_accepted(path: Path, guess: str) -> None:
    path.write_text(GOOD)
    assert TokenFile(path).verify("one") == "alice"
    assert TokenFile(path).verify(guess) is None


def test_a_revoked_token_is_refused_and_a_new_one_accepted_at_the_next_look(path: Path) -> None:
    old = tokens.add(path, "alice")
    file = TokenFile(path)
    assert file.verify(old) == "alice"
    tokens.revoke(path, "alice")
    assert file.verify(old) is None
    new = tokens.add(path, "alice")
    assert (file.verify(old), file.verify(new)) == (None, "alice")


def test_the_version_grows_with_every_change_and_with_nothing_else(path: Path) -> None:
    tokens.add(path, "alice")
    file = TokenFile(path)
    versions = [file.version]
    file.verify("x")
    assert file.version == versions[0]
    for change in (lambda: tokens.add(path, "bob"), lambda: tokens.revoke(path, "bob"), path.unlink):
        change()
        versions.append(file.version)
        assert file.version == versions[-1]
    assert versions == sorted(set(versions))


def test_a_file_that_goes_wrong_lets_nobody_in_says_so_once_and_recovers(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    token = tokens.add(path, "alice")
    sound = path.read_text()
    file = TokenFile(path)
    path.write_text(sound + "nonsense\n")
    assert [file.verify(token) for _ in range(3)] == [None] * 3
    path.unlink()
    assert [file.verify(token) for _ in range(3)] == [None] * 3
    path.mkdir()
    assert [file.verify(token) for _ in range(3)] == [None] * 3
    path.rmdir()
    path.write_text(sound)
    assert file.verify(token) == "alice"
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == 3
    assert all("no token is accepted" in sentence and str(path) in sentence for sentence in said)
    assert "line 2" in said[0]


def test_a_file_without_a_token_lets_nobody_in(path: Path) -> None:
    path.write_text("# all revoked\n")
    assert TokenFile(path).verify("") is None


ADD_AND_REVOKE = """
import sys
from pathlib import Path
from farcore_server import tokens

path, worker = Path(sys.argv[1]), sys.argv[2]
sys.stdin.readline()
for number in range(8):
    token = tokens.add(path, f"{worker}-{number}")
    if number % 2:
        tokens.revoke(path, f"{worker}-{number}")
    else:
        print(f"{worker}-{number}", token)
"""


def test_processes_that_add_and_revoke_at_once_lose_nothing(path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", ADD_AND_REVOKE, path, f"w{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(4)
    ]
    torn: list[SettingsError] = []
    done = threading.Event()

    def read_all_along() -> None:
        while not done.is_set():
            if path.exists():
                try:
                    tokens.listed(path)
                except SettingsError as error:
                    torn.append(error)

    reader = threading.Thread(target=read_all_along)
    reader.start()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    kept = dict(line.split() for worker in workers for line in worker.communicate(timeout=60)[0].splitlines())
    done.set()
    reader.join()
    assert [worker.returncode for worker in workers] == [0] * 4
    assert not torn
    file = TokenFile(path)
    assert {name: file.verify(token) for name, token in kept.items()} == {name: name for name in kept}
    assert {entry.name for entry in tokens.listed(path)} == kept.keys()
    assert len(kept) == 16
