"""Which crash is started for a dump, and with what."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence

from farcore_client.doors.crash.machine import Machine
from farcore_client.errors import MissingToolError
from farcore_client.target import Target

# What uname -m calls the machines that crash is built for.
_HOSTS = {"x86_64": "X86_64", "aarch64": "ARM64", "i686": "X86", "s390x": "S390X", "riscv64": "RISCV64", "ppc64le": "PPC64"}


def program(target: Target, host: str = platform.machine()) -> str:
    """The path of crash; MissingToolError says what to install."""
    if found := shutil.which("crash"):
        return found
    machine = Machine.of(target)
    own = machine is not None and _HOSTS.get(host) == machine.name
    which = "" if own or machine is None else f" built for {machine.name} dumps (make target={machine.name} in its sources)"
    install = "" if which else ": install your system's package crash"
    raise MissingToolError(f"there is no crash on this machine; this dump needs one{which}{install}")


def options(target: Target) -> list[str]:
    """What crash cannot learn through the remote door: where KASLR put the kernel (VMCOREINFO)."""
    known = target.vmcoreinfo
    machine = Machine.of(target)
    if known is None or machine is None:
        return []
    found = [f"--kaslr={known.kernel_offset:#x}"] if known.kernel_offset else []
    if machine.name == "X86_64" and known.phys_base is not None:
        found += ["-m", f"phys_base={known.phys_base:#x}" if known.phys_base >= 0 else f"phys_base={known.phys_base}"]
    return found


def remote(target: Target, place: str, vmlinux: str, more: Sequence[str] = ()) -> list[str]:
    """The arguments for the remote door at ``place`` (HOST:PORT)."""
    return [*more, *options(target), vmlinux, f"{place},/farcore"]
