"""deploy/systemd as a real systemd runs it: booted in a container on an overlay of this machine's own root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import farcore
from tests.elfwriter import Dump, load
from tests.requires import requires

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy/systemd"
# Installed as a package would: where in the image, from where in deploy/systemd.
INSTALLED = {
    "etc/systemd/system/farcored.service": "farcored.service",
    "etc/systemd/system/farcored.socket": "farcored.socket",
    "etc/farcore/farcored.toml": "farcored.toml",
    "etc/default/farcored": "farcored.default",
    "usr/lib/sysusers.d/farcored.conf": "farcored.sysusers",
    "usr/lib/tmpfiles.d/farcored.conf": "farcored.tmpfiles",
}
MEMORY = os.urandom(1 << 16)
# The service sees neither this checkout nor a home directory, so both are bound to a place of the image.
FARCORED = """#!/usr/bin/python3
import sys
sys.path[:0] = ["/opt/farcore/core", "/opt/farcore/server", "/opt/farcore/site"]
from farcore_server.main import main
sys.exit(main())
"""
CHECK = """[Unit]
Requires=farcored.socket
After=farcored.socket basic.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
ExecStart=/bin/bash /opt/result/check
StandardOutput=file:/opt/result/out
StandardError=inherit
TimeoutStartSec=90
"""
# Each answer in a file of its own.
SCRIPT = """
cd /opt/result
ask() { curl -sS --max-time 30 "http://127.0.0.1:8787$1" "${@:2}"; }
ask /v1/dumps >dumps
ask $(grep -o '/v1/dumps/[a-z0-9-]*/vmcore' dumps) -o whole
pid=$(systemctl show -P MainPID farcored)
for worker in $(cat /proc/$pid/task/$pid/children); do cat /proc/$worker/status; break; done >status
readlink /proc/$pid/ns/net /proc/self/ns/net >networks
systemctl show -p ActiveState,StatusText,Result farcored >shown
systemctl reload farcored && ask /readyz >reloaded
kill -9 $pid; sleep 3; ask /readyz >restarted
ls -A /var/lib/private/farcored >state
systemctl stop farcored.service; systemctl show -p ActiveState,Result farcored >stopped
journalctl -u farcored --no-pager >journal
exit 0
"""


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """An overlay of this machine, with farcored installed and a dump that only root may read."""
    layers = tmp_path / "layers"
    layers.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", layers], check=True)
    try:
        for name in ("upper", "work", "root"):
            (layers / name).mkdir()
        options = f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, layers / "root"], check=True)
        try:
            _install(layers / "root")
            yield layers / "root"
        finally:
            subprocess.run(["umount", layers / "root"], check=True)
    finally:
        subprocess.run(["umount", layers], check=True)


def _install(image: Path) -> None:
    for place, name in INSTALLED.items():
        path = image / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((UNITS / name).read_bytes())
    farcored = image / "usr/bin/farcored"
    farcored.write_text(FARCORED)
    farcored.chmod(0o755)
    (image / "etc/systemd/system/check.service").write_text(CHECK)
    (image / "var/crash/203.0.113.7").mkdir(parents=True, exist_ok=True)
    dump = Dump([load(MEMORY)], machine=62 if os.uname().machine == "x86_64" else 183).write(
        image / "var/crash/203.0.113.7/vmcore"
    )
    dump.chmod(0o600)


@requires("systemd-nspawn", "curl")
def test_the_service_reads_what_only_root_may_read_and_can_do_little_else(image: Path, tmp_path: Path) -> None:
    result = tmp_path / "result"
    result.mkdir()
    (result / "check").write_text(SCRIPT)
    site = Path(sys.prefix) / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    binds = {Path(farcore.__file__).parents[1]: "core", ROOT / "server": "server", site: "site"}
    command = ["systemd-nspawn", "--quiet", f"--directory={image}", "--private-network", "--register=no", "--keep-unit"]
    command += [f"--bind-ro={place}:/opt/farcore/{name}" for place, name in binds.items()]
    command += [f"--bind={result}:/opt/result", f"--machine=farcored-{os.getpid()}", "-b", "systemd.unit=check.service"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110)
    said = {path.name: path.read_bytes() for path in result.iterdir()}
    print(done.stdout[-2000:], said.get("journal", b"").decode(), said["out"].decode())
    assert said["whole"].endswith(MEMORY)
    status = dict(line.split(":\t", 1) for line in said["status"].decode().splitlines() if ":\t" in line)
    assert set(status["Uid"].split()) - {"0"} != set()
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 1 << 2  # CAP_DAC_READ_SEARCH
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    own, container = said["networks"].split()
    assert own != container
    shown = said["shown"].decode()
    assert "ActiveState=active" in shown
    assert "StatusText=serving 1 dump on http://127.0.0.1:8787" in shown
    assert said["reloaded"] == said["restarted"] == b"ready\n"
    assert said["stopped"].decode().split() == ["Result=success", "ActiveState=inactive"]


@requires("systemd-analyze")
def test_the_units_exposure_is_little() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(UNITS / "farcored.service")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-500:]
    assert "Overall exposure level for farcored.service: 1." in done.stdout
