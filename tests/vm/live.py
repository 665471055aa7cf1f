"""Dumps that QEMU makes of a Linux guest's memory (dump-guest-memory): panicked, idle, by its page tables, other arches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .guests import AMD64, AMD64_LATER, ARM64, INITS, S390X, Guest, kernel
from .initramfs import Content
from .outdir import OutDir, say
from .packages import need, run
from .qemu import Machine

PANICKED, IDLE, MAPPED = "end Kernel panic", "READY", "READY manymaps"
XNUM_PAGES = 66_000  # each a range of its own in a paging dump, with the kernel's more than 65,535: e_phnum 0xffff


@dataclass(frozen=True, slots=True)
class Live:
    """A guest, the line it says when it is to be dumped, and the dumps: file name, QEMU's form, by page tables or not."""

    guest: Guest
    ready: str
    dumps: tuple[tuple[str, str, bool], ...]
    append: str = ""
    memory: int = 96  # MiB; the amd64 kernel starts with 80
    cpus: int = 2
    files: Mapping[str, Content] = field(default_factory=dict)


PANIC = Live(AMD64, PANICKED, (("qemu-x86_64-panic.elf", "elf", False),), "mode=panic")
LATER = Live(AMD64_LATER, PANICKED, (("qemu-x86_64-la57-panic.elf", "elf", False),), "mode=panic", memory=160)
LARGE = Live(AMD64, PANICKED, (("qemu-x86_64-panic-2g.elf", "elf", False),), "mode=panic", memory=2048)
NOKASLR = Live(AMD64, PANICKED, (("qemu-x86_64-panic-nokaslr.elf", "elf", False),), "mode=panic nokaslr")
IDLING = Live(
    AMD64,
    IDLE,
    (
        ("qemu-x86_64-idle.elf", "elf", False),
        ("qemu-x86_64-idle-paging.elf", "elf", True),
        ("qemu-x86_64-idle-flat.kdump", "kdump-zlib", False),
    ),
)
AARCH64 = Live(ARM64, IDLE, (("qemu-aarch64.elf", "elf", False),), memory=192)
S390 = Live(S390X, IDLE, (("qemu-s390x.elf", "elf", False),), memory=192)


def make(out: OutDir, what: Live) -> None:
    """Boots the guest and dumps it, unless all its dumps are there."""
    if all((out.path / name).exists() for name, _, _ in what.dumps):
        say(f"{' '.join(name for name, _, _ in what.dumps)}: there")
        return
    need(out, what.guest.program)
    guest = kernel(out, what.guest)
    image = out.scratch(f"{what.dumps[0][0]}.initramfs")
    image.write_bytes(guest.initramfs("init-live.sh", {**guest.modules("qemu_fw_cfg"), **what.files}))
    argv = [
        *(*what.guest.qemu, "-m", str(what.memory), "-smp", str(what.cpus)),
        *("-kernel", str(guest.image), "-initrd", str(image)),
        *("-append", f"console={what.guest.console} init_on_free=1 {what.append}"),
    ]
    with Machine(argv, out.log(f"{what.dumps[0][0]}.serial")) as machine:
        machine.wait_for(what.ready, 180)
        for name, form, paging in what.dumps:
            out.once(name, partial(machine.dump, form=form, paging=paging))


def idle(out: OutDir) -> None:
    """The idle guest in every form, and its kdump-compressed form put together by makedumpfile."""
    make(out, IDLING)
    need(out, "makedumpfile")
    flat = out.path / "qemu-x86_64-idle-flat.kdump"

    def restore(part: Path) -> None:
        run(out, "makedumpfile", "sh", "-c", 'makedumpfile -R "$1" <"$2"', "sh", part, flat)

    out.once("qemu-x86_64-idle.kdump", restore)


def xnum(out: OutDir) -> None:
    """A dump of more program headers than e_phnum can say."""
    need(out, "gcc")
    program = out.scratch("manymaps")
    run(out, "gcc", "gcc", "-O1", "-static", "-D_GNU_SOURCE", "-o", program, INITS / "manymaps.c")
    dumps = (("qemu-x86_64-xnum.elf", "elf", True),)
    append, files = f"maps={XNUM_PAGES} nokaslr", {"bin/manymaps": program}
    make(out, Live(AMD64, MAPPED, dumps, append, cpus=1, files=files))
