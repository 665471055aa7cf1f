"""Machines without a kernel, dumped by QEMU just after reset: both classes, both byte orders, in less than a second each."""

from __future__ import annotations

from .outdir import OutDir
from .packages import need
from .qemu import Machine

MACHINES = {
    "aarch64": "qemu-system-aarch64 -M virt -cpu cortex-a57 -m 8",
    "arm": "qemu-system-arm -M virt -m 8",
    "i386-microvm": "qemu-system-x86_64 -M microvm -m 8",
    "i386-pc": "qemu-system-x86_64 -m 8",
    "ppc": "qemu-system-ppc -M ref405ep -m 8",
    "ppc64": "qemu-system-ppc64 -M pseries -m 256",
    "riscv32": "qemu-system-riscv32 -M virt -bios none -m 8",
    "riscv64": "qemu-system-riscv64 -M virt -bios none -m 8",
    "s390x": "qemu-system-s390x -m 8",
}


def make(out: OutDir) -> None:
    """OUT/bare/ARCH.elf of every machine."""
    for name, line in MACHINES.items():
        argv = [*line.split(), "-accel", "tcg", "-nodefaults", "-S"]
        need(out, argv[0])
        if not (out.path / "bare" / f"{name}.elf").exists():
            with Machine(argv, out.log(f"bare-{name}.serial")) as machine:
                out.once(f"bare/{name}.elf", machine.dump)
