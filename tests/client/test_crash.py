"""farcore crash and farcore door crash before any crash runs: sentences, exit statuses, what is started."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.client.conftest import Farcore, Served


@pytest.fixture
def url(farcore: Farcore, served: Served) -> str:
    """The DUMPURL of a dump of x86_64."""
    lines = farcore("ls", served.url).text.splitlines()
    return next(word for line in lines if line.startswith("small.elf") for word in line.split() if "/v1/" in word)


def test_without_a_crash_a_sentence_says_what_to_install(
    farcore: Farcore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = farcore("crash", url)
    assert done.status == 1
    assert "there is no crash on this machine" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_a_vmlinux_crash_is_not_started(
    farcore: Farcore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = tmp_path / "crash"
    crash.write_text(f"#!/bin/sh\n: > {tmp_path}/started\n")
    crash.chmod(crash.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("DEBUGINFOD_URLS", raising=False)
    done = farcore("crash", url)
    assert done.status == 1
    assert "no vmlinux of kernel 6.1.0-test" in done.stderr
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("listen", ["127.0.0.1", "127.0.0.1:x", ":1", "127.0.0.1:70000"])
def test_a_door_listens_on_a_host_and_a_port(farcore: Farcore, url: str, listen: str) -> None:
    assert farcore("door", "crash", url, "--listen", listen).status == 2


@pytest.mark.parametrize("tool", ["crash", "gdb", "drgn"])
def test_help_says_where_the_tools_own_options_go(farcore: Farcore, tool: str) -> None:
    assert f"[-- {tool.upper()} OPTIONS]" in farcore(tool, "--help").text


@pytest.mark.parametrize("listen", ["192.0.2.1:1", "nohost.invalid:1"])
def test_where_a_door_cannot_listen_a_sentence_says_so(farcore: Farcore, url: str, listen: str) -> None:
    done = farcore("door", "gdb", url, "--listen", listen)
    assert done.status == 2
    assert done.stderr.startswith(f"farcore: --listen {listen}: ")
    assert done.stderr.endswith("; give another address or port\n")
    assert "while" not in done.stderr


@pytest.mark.parametrize("tool", ["crash", "gdb"])
def test_a_door_is_told_of_a_vmlinux_and_refuses_what_is_none(farcore: Farcore, url: str, tool: str) -> None:
    done = farcore("door", tool, url, "/etc/passwd")
    assert (done.status, done.text) == (1, "")
    assert "/etc/passwd is no vmlinux" in done.stderr
