"""Credentials: where a token comes from, and who may have read it."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from farcore.errors import SettingsError
from farcore_client.credentials import Credentials, token

TOKEN = "farcore_Ab0-._~+/=="


def written(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "token"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [TOKEN, f"{TOKEN}\n", f"  {TOKEN}\r\nnotes\n", f"{TOKEN}\n" + "x" * 10_000])
def test_the_token_is_the_first_line_of_its_file(tmp_path: Path, content: str) -> None:
    assert token(written(tmp_path, content.encode()), {"FARCORE_TOKEN": "other"}) == TOKEN


def test_without_a_file_the_environment_has_it_and_an_empty_variable_counts_as_unset() -> None:
    assert token(None, {"FARCORE_TOKEN": f"{TOKEN}\n"}) == TOKEN
    assert token(None, {"FARCORE_TOKEN": ""}) is None
    assert token(None, {}) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o610])
def test_a_file_of_ones_own_that_others_may_use_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, TOKEN.encode(), mode)
    with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
        token(path, {})


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else_is_read_as_ssh_reads_such_a_key(tmp_path: Path) -> None:
    path = written(tmp_path, TOKEN.encode(), 0o644)
    os.chown(path, 12345, 12345)
    assert token(path, {}) == TOKEN


def test_a_token_comes_through_a_pipe_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for letter in f"{TOKEN}\n".encode():
                pipe.write(bytes([letter]))

    thread = threading.Thread(target=write)
    thread.start()
    assert token(path, {}) == TOKEN
    thread.join()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the first line is empty"),
        (b"\ns3cret", "the first line is empty"),
        (b"s3cret s3cret", "this is no token"),
        (b"s3cret\0", "this is no token"),
        (b"s3cret\xff", "this is no token"),
        (b"=s3cret", "this is no token"),
        (b"s3cret" * 1000, "this is no token"),
        (f"s3cret 2026-01-31 {hashlib.sha256(b's3cret').hexdigest()}\n".encode(), "this is a server's file of digests"),
    ],
)
def test_what_is_no_token_is_refused_and_not_repeated(tmp_path: Path, content: bytes, said: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(SettingsError, match=f"^{path}: {said}") as caught:
        token(path, {})
    assert "s3cret" not in str(caught.value)
    if text := content.partition(b"\n")[0].decode("latin-1"):
        with pytest.raises(SettingsError, match=f"^FARCORE_TOKEN: {said}"):
            token(None, {"FARCORE_TOKEN": text})


def test_a_token_of_4096_bytes_is_the_longest(tmp_path: Path) -> None:
    assert token(written(tmp_path, b"t" * 4096), {}) == "t" * 4096
    with pytest.raises(SettingsError, match="no token"):
        token(written(tmp_path, b"t" * 4097), {})


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file or directory"):
        token(tmp_path / "none", {})
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        token(tmp_path, {})
    with pytest.raises(SettingsError, match="this file for TLS cannot be read"):
        Credentials(cacert=tmp_path / "none").ssl_context()


def test_a_key_without_a_certificate_is_refused() -> None:
    with pytest.raises(SettingsError, match="give the certificate as well"):
        Credentials(key=Path("key.pem"))


def test_files_that_are_no_pem_are_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, b"no PEM")
    with pytest.raises(SettingsError, match=f"{path}: no certificates of CAs"):
        Credentials(cacert=path).ssl_context()
    with pytest.raises(SettingsError, match=f"{path} is no certificate with its key: give --key FILE"):
        Credentials(cert=path).ssl_context()


def test_a_token_is_not_in_what_python_shows() -> None:
    assert TOKEN not in repr(Credentials(TOKEN)) + str(Credentials(TOKEN))
