"""Programs: the load clients and the floor, in C, compiled for this run."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import BenchmarkError

_SOURCES: Final = Path(__file__).with_name("c")


@dataclass(frozen=True, slots=True)
class Programs:
    """ranger asks for ranges, batch for a list of pages; responder serves ranges with as little as that takes."""

    ranger: Path
    batch: Path
    responder: Path
    tls: bool  # whether ranger speaks TLS

    @classmethod
    def build(cls, directory: Path) -> Programs:
        """Compile them with cc; without OpenSSL's headers there is no TLS, and that is all that is lost."""
        tls = _compile("ranger", directory, "-DTLS", "-lssl", "-lcrypto") is None
        for name in ("batch", "responder") if tls else ("ranger", "batch", "responder"):
            if said := _compile(name, directory):
                raise BenchmarkError(f"{name}.c cannot be compiled (apt-get install gcc libc6-dev): {said}")
        return cls(directory / "ranger", directory / "batch", directory / "responder", tls)


def _compile(name: str, directory: Path, *flags: str) -> str | None:
    """What the compiler said, None when all is well."""
    command = ["cc", "-O2", "-Wall", "-o", str(directory / name), str(_SOURCES / f"{name}.c"), *flags]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return "there is no cc"
    return done.stderr if done.returncode else None
