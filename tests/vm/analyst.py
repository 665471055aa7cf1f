"""An analyst far from a crashed machine: curl, farcore and crash on what its crash kernel serves."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FARCORE = Path(sys.executable).with_name("farcore")
WITHIN = 180  # seconds for one command
KILLED_AFTER = 16 << 20  # bytes that a copy has on the disk when it is killed in the midst
FLOOD = 200  # connections
COMMANDS = "sys\nbt\nps\nlog\nquit\n"
# What crash says of the way in which it got at the dump, and nothing about the dump.
OWN = re.compile(r"^\s*DUMPFILE: .*\n|^NOTE: setting phys_base to: .*\n|^crash: cannot read vmcoreinfo_data\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Analyst:
    """Whom a token and perhaps a certificate let read one dump; what is copied goes into ``home``."""

    home: Path
    port: int
    token: str
    dump: str  # id
    cacert: Path | None = None

    @property
    def url(self) -> str:
        """The dump's."""
        return f"{'https' if self.cacert else 'http'}://127.0.0.1:{self.port}/v1/dumps/{self.dump}"

    def curl(self, path: str = "", *arguments: str) -> bytes:
        """The answer to a request for the dump's URL and ``path``."""
        done = subprocess.run(self._curl(path, *arguments), input=self._header(), capture_output=True, timeout=WITHIN)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def copy(self) -> Path:
        """The dump, whole, by curl."""
        copy = self.home / "by-curl"
        self.curl("/vmcore", "-o", str(copy))
        return copy

    def copy_killed(self) -> None:
        """curl, killed in the midst of the dump."""
        with subprocess.Popen(
            self._curl("/vmcore", "-o", "/dev/stdout"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as curl:
            assert curl.stdin
            assert curl.stdout
            curl.stdin.write(self._header())
            curl.stdin.close()
            assert len(curl.stdout.read(KILLED_AFTER)) == KILLED_AFTER
            curl.kill()

    def pull(self) -> Path:
        """The dump by farcore pull."""
        copy, started = self.home / "by-pull", time.monotonic()
        done = subprocess.run(self.farcore("pull", "-o", str(copy)), capture_output=True, text=True, timeout=WITHIN)
        assert done.returncode == 0, done.stderr
        print(f"farcore pull: {copy.stat().st_size >> 20} MiB in {time.monotonic() - started:.0f} s; {done.stderr.strip()}")
        return copy

    def pull_killed(self) -> None:
        """farcore pull to the same file, killed in the midst."""
        part, give_up = self.home / "by-pull.part", time.monotonic() + WITHIN
        with subprocess.Popen(self.farcore("pull", "-o", str(self.home / "by-pull"))) as pull:
            while not part.exists() or part.stat().st_blocks * 512 < KILLED_AFTER:
                assert pull.poll() is None
                assert time.monotonic() < give_up
                time.sleep(0.05)
            pull.kill()
        assert pull.returncode == -signal.SIGKILL

    def crash(self, crash: Path, vmlinux: Path, *options: str) -> str:
        """What crash prints through farcore crash."""
        return shown(self.farcore("crash", str(vmlinux), *options, "--", "-s"), crash)

    def farcore(self, verb: str, *arguments: str) -> list[str | Path]:
        """The command line of farcore VERB DUMPURL ARGUMENTS."""
        trust = ("--cacert", str(self.cacert)) if self.cacert else ()
        return [FARCORE, verb, self.url, *("--token-file", str(self.home / "token")), *trust, *arguments]

    @contextlib.contextmanager
    def flood(self) -> Iterator[None]:
        """Clients that ask for everything and read nothing, and some that never finish a request."""
        asks = f"GET /v1/dumps/{self.dump}/vmcore HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n".encode()
        with contextlib.ExitStack() as stack:
            for number in range(FLOOD):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=30))
                client.sendall(asks + b"\r\n" * (number % 4 != 0))
            yield

    def _curl(self, path: str, *arguments: str) -> list[str]:
        trust = ("--cacert", str(self.cacert)) if self.cacert else ()
        return ["curl", "-sS", "--fail", "--config", "-", *trust, f"{self.url}{path}", *arguments]

    def _header(self) -> bytes:
        return f'header = "Authorization: Bearer {self.token}"'.encode()


def shown(argv: list[str | Path], crash: Path) -> str:
    """What a crash session prints, less OWN and empty lines; the crash of ``argv`` is ``crash``."""
    environment = os.environ | {"PATH": f"{crash.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        argv, input=COMMANDS, capture_output=True, text=True, errors="replace", env=environment, timeout=WITHIN
    )
    assert done.returncode == 0, done.stdout[-400:] + done.stderr[-400:]
    return re.sub(r"\n{2,}", "\n", OWN.sub("", done.stdout)).strip()
