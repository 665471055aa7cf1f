"""One machine from its crash to its end: what its crash kernel is told, who reads it meanwhile."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from farcore_server import tokens

from .analyst import Analyst
from .crashkernel import Crashed, crashed
from .kdump import Kdump
from .outdir import OutDir
from .packages import need, run

DUMP = "vmcore-822557f8"  # /proc/vmcore's id
MATTERS = re.compile(
    r"^(CRASHKERNEL|WITHOUT_CROSS|FARCORED_|farcore:|KDUMP|VMCORE).*|.*farcored: serving.*|.*(?:Out of memory).*",
    re.MULTILINE,
)


def folder() -> OutDir:
    """Packages, logs and disks: the folder that FARCORE_VM names."""
    return OutDir(Path(os.environ["FARCORE_VM"]).resolve())


@contextmanager
def rescue(
    out: OutDir, what: Kdump, home: Path, seconds: int, *devices: str, tls: bool = False, samples: Sequence[int] = ()
) -> Iterator[tuple[Crashed, Analyst]]:
    """The machine whose crash kernel serves already, and an analyst who may read it for ``seconds``."""
    need(out, "curl")
    token = tokens.add(home / "tokens", "analyst")
    (home / "token").touch(0o600)
    (home / "token").write_text(token)
    conf: dict[str, str | int | Path] = {"FARCORE_SECONDS": seconds, "FARCORE_TOKENS": home / "tokens"}
    if tls:
        conf |= _certificate(out, home)
    with crashed(out, what, conf, *devices, samples=samples) as machine:
        machine.machine.wait_for("farcored: serving", 300)
        yield machine, Analyst(home, machine.port, token, DUMP, home / "cert.pem" if tls else None)


def ended(machine: Crashed) -> str:
    """The whole console of a machine that has done its kdump action; the lines that matter are printed."""
    serial = machine.machine.wait(300)
    print(*(found[0] for found in MATTERS.finditer(serial)), sep="\n")
    return serial


def said(serial: str, pattern: str) -> str:
    """The console line that matches, "" without one; of groups the first."""
    found = re.search(pattern, serial, re.MULTILINE)
    return found[found.re.groups and 1] if found else ""


def refused_by(analyst: Analyst) -> str:
    """What curl says without the certificate that was made for the server."""
    done = subprocess.run(["curl", "-sS", analyst.url], capture_output=True, text=True, timeout=60)
    assert done.returncode
    return done.stderr


def _certificate(out: OutDir, home: Path) -> dict[str, str | int | Path]:
    need(out, "openssl")
    files = ("-keyout", home / "key.pem", "-out", home / "cert.pem", "-addext", "subjectAltName=IP:127.0.0.1")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=crashed")
    run(out, "openssl", "openssl", "req", "-x509", *new, *files)
    return {"FARCORE_TLS_CERT": home / "cert.pem", "FARCORE_TLS_KEY": home / "key.pem"}
