"""Peers: other ways to a dump over a long line, as shell words, and the ssh server that some of them need at its far end."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import BenchmarkError
from benchmarks.wan import Wan

PORT: Final = 8722
_LOCAL: Final = "{crash} -s {vmlinux}"
# Each needs a free directory {tmp}/m, and leaves it unmounted.
_MOUNTED: Final = "mkdir {tmp}/m && %s && {crash} -s {vmlinux} {tmp}/m/%s; s=$?; fusermount3 -u {tmp}/m; exit $s"
_NBD: Final = (
    "nbdfuse {tmp}/m --command nbdkit -s curl url={url}/stored %s >&2 & until test -s {tmp}/m/nbd; do sleep 0.01; done"
)


class Peer(NamedTuple):
    """A way by other programs than farcore's: its shell words, and the programs without which it is left out."""

    name: str
    command: str
    needs: tuple[str, ...]


PEERS: Final = (
    Peer("crash there, over ssh", "ssh -F {ssh} there {crash} -s {vmlinux} {dump}", ("ssh", "sshd")),
    Peer(
        "zstd -3 over ssh, then local",
        f"ssh -nF {{ssh}} there zstd -3 -qc {{dump}} | zstd -qd -o {{tmp}}/vmcore && {_LOCAL} {{tmp}}/vmcore",
        ("ssh", "sshd", "zstd"),
    ),
    Peer(
        "makedumpfile -c -d 31 over ssh, then local",
        "ssh -nF {ssh} there 'makedumpfile -F -c -d 31 {dump} 2>/dev/null' | makedumpfile -R {tmp}/vmcore >&2 &&"
        f" {_LOCAL} {{tmp}}/vmcore",
        ("ssh", "sshd", "makedumpfile"),
    ),
    Peer("sshfs", _MOUNTED % ("sshfs -F {ssh} there:{folder} {tmp}/m", "{name}"), ("sshfs", "sshd", "fusermount3")),
    Peer("nbdkit curl, nbdfuse", _MOUNTED % (_NBD % "", "nbd"), ("nbdkit", "nbdfuse", "fusermount3")),
    Peer(
        "the same, cow-on-read 256 KiB",
        _MOUNTED % (_NBD % "--filter=cow cow-on-read=true cow-block-size=256k", "nbd"),
        ("nbdkit", "nbdfuse", "fusermount3"),
    ),
    Peer(
        "nbdcopy from nbdkit curl, then local",
        f"nbdcopy -- [ nbdkit curl url={{url}}/stored ] {{tmp}}/vmcore && {_LOCAL} {{tmp}}/vmcore",
        ("nbdkit", "nbdcopy"),
    ),
    # Not httpdirfs: version 1.2.5 of Debian 12 answered no more in the midst of a session, and so would hang the run.
)


def missing(needs: tuple[str, ...]) -> list[str]:
    """Those that are not installed."""
    return [name for name in needs if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]


@contextmanager
def sshd(line: Wan, folder: Path) -> Iterator[Path]:
    """An ssh server at the far end for the time of the body; the client's configuration, whose host is ``there``."""
    config = folder / "ssh_config"
    if missing(("ssh", "sshd", "ssh-keygen")):
        yield config
        return
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    server = folder / "sshd_config"
    server.write_text(
        f"ListenAddress {line.address}:{PORT}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\nLogLevel ERROR\n"
    )
    config.write_text(
        f"Host there\nHostName {line.address}\nPort {PORT}\nUser root\nIdentityFile {folder}/user\nLogLevel ERROR\n"
        "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with subprocess.Popen([*line.server, "/usr/sbin/sshd", "-D", "-e", "-f", str(server)]) as running:
        try:
            _await(line, config)
            yield config
        finally:
            running.terminate()


def _await(line: Wan, config: Path) -> None:
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        with suppress(subprocess.CalledProcessError):
            subprocess.run([*line.client, "ssh", "-F", str(config), "there", "true"], check=True, stderr=subprocess.DEVNULL)
            return
        time.sleep(0.1)
    raise BenchmarkError("sshd does not answer at the far end")
