"""A real kernel's vmlinux: fetched from a real debuginfod, and its symbols as nm has them."""

from __future__ import annotations

import filecmp
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from farcore import notes, vmcoreinfo
from farcore.elf import Elf
from farcore.file import FileSource
from farcore_client import vmlinux
from farcore_client.symbols import Symbols
from farcore_client.vmlinux import VmlinuxError
from tests.realdumps import RealDumps
from tests.requires import requires

STARTS_WITHIN = 60.0  # seconds: it reads the whole vmlinux first


def opened(path: Path) -> FileSource:
    return FileSource(os.open(path, os.O_RDONLY), path.stat().st_size)


def known(path: Path) -> vmcoreinfo.Vmcoreinfo:
    source = opened(path)
    found = vmcoreinfo.of_linux(notes.read(source, Elf.open(source)).notes)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def debuginfod(real_dumps: RealDumps, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a debuginfod that has the x86_64 vmlinux."""
    folder = tmp_path_factory.mktemp("debuginfod")
    (folder / "vmlinux").symlink_to(real_dumps("vmlinux"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = ["debuginfod", "-p", str(port), "-L", "-F", "-d", str(folder / "index"), str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield _indexed(f"http://127.0.0.1:{port}", process, str(known(real_dumps("kdump")).build_id))
    finally:
        process.terminate()
        process.wait()


def _indexed(url: str, process: subprocess.Popen[bytes], build_id: str) -> str:
    give_up = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < give_up and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/buildid/{build_id}/debuginfo"):
                return url
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("debuginfod has not found the vmlinux")


@requires("debuginfod")
def test_a_vmlinux_comes_from_debuginfod_by_build_id(real_dumps: RealDumps, debuginfod: str, tmp_path: Path) -> None:
    environment = {"DEBUGINFOD_URLS": debuginfod, "XDG_CACHE_HOME": str(tmp_path)}
    kernel = known(real_dumps("kdump"))
    found = vmlinux.find(kernel, None, debug=tmp_path / "nothing", environment=environment)
    assert found == tmp_path / "debuginfod_client" / str(kernel.build_id) / "debuginfo"
    assert filecmp.cmp(found, real_dumps("vmlinux"), shallow=False)
    other = known(real_dumps("kdump-aarch64"))
    with pytest.raises(VmlinuxError, match=f"not at {debuginfod}"):
        vmlinux.find(other, None, debug=tmp_path / "nothing", environment=environment)


@pytest.mark.parametrize("given", [True, False])
def test_another_kernels_vmlinux_is_refused(real_dumps: RealDumps, given: bool, tmp_path: Path) -> None:
    kernel = known(real_dumps("kdump"))
    if not given:  # a kernel before 5.9 has no BUILD-ID: its release and the vmlinux' own banner tell
        kernel = vmcoreinfo.Vmcoreinfo({key: value for key, value in kernel.values.items() if key != "BUILD-ID"})
    with pytest.raises(VmlinuxError, match="another kernel's"):
        vmlinux.find(kernel, real_dumps("vmlinux-aarch64"))
    assert vmlinux.find(kernel, real_dumps("vmlinux")) == real_dumps("vmlinux")


@requires("readelf")
@pytest.mark.parametrize("name", ["vmlinux", "vmlinux-aarch64"])
def test_symbols_are_where_nm_has_them(real_dumps: RealDumps, name: str) -> None:
    shown = subprocess.run(["nm", "--defined-only", real_dumps(name)], capture_output=True, text=True, check=True).stdout
    lowest: dict[str, int] = {}
    for line in shown.splitlines():
        value, _, symbol = line.split(maxsplit=2)
        lowest[symbol] = min(int(value, 16), lowest.get(symbol, 1 << 64))
    every = list(lowest)[:: len(lowest) // 50]
    assert Symbols.read(opened(real_dumps(name))).addresses([*every, "no_such_symbol"]) == {one: lowest[one] for one in every}
