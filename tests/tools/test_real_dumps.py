"""The real dumps that other tests compare tools on are of the kernel whose vmlinux stands beside them."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.realdumps import RealDumps
from tests.requires import requires
from tests.vm import coreelf


@requires("readelf")
@pytest.mark.parametrize(
    ("dump", "vmlinux"),
    [("panic", "vmlinux"), ("kdump", "vmlinux"), ("cross", "vmlinux"), ("kdump-aarch64", "vmlinux-aarch64")],
)
def test_a_dump_and_its_vmlinux_have_one_build_id(real_dumps: RealDumps, dump: str, vmlinux: str) -> None:
    shown = subprocess.run(["readelf", "-n", real_dumps(vmlinux)], capture_output=True, text=True).stdout
    build_id = re.search(r"Build ID: ([0-9a-f]+)", shown)
    assert build_id is not None
    assert coreelf.vmcoreinfo(coreelf.read(real_dumps(dump)))["BUILD-ID"] == build_id[1]
