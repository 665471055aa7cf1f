"""Real kdumps: a kernel panics, the crash kernel that kexec loaded copies its /proc/vmcore to a disk, byte for byte."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from .guests import AMD64, ARM64, I386, Guest, Kernel, kernel
from .initramfs import Content
from .outdir import OutDir
from .packages import need
from .qemu import Machine

DISK = 1 << 30


@dataclass(frozen=True, slots=True)
class Kdump:
    """A kdump to make: who crashes, whose kernel exports the memory, and the room that one is given."""

    name: str
    first: Guest
    crash: Guest
    memory: int = 320  # MiB
    room: str = "128M"
    headers: str = ""  # kexec's option for the ELF headers that it prepares
    append: str = "init_on_free=1"  # to the command line of the kernel that crashes

    @property
    def command_line(self) -> str:
        """Of the kernel that crashes."""
        return f"console={self.first.console} crashkernel={self.room} {self.append}"


NATIVE = Kdump("kdump-x86_64.elf", AMD64, AMD64)
VIA_I386 = Kdump("kdump-x86_64-via-i386.elf", AMD64, I386)
ON_I386 = Kdump("kdump-i386.elf", I386, I386, headers="--elf32-core-headers")
ON_I386_WIDE = Kdump("kdump-i386-elf64.elf", I386, I386)  # kexec's choice for a kernel with PAE
ON_ARM64 = Kdump("kdump-aarch64.elf", ARM64, ARM64, memory=448)


def make(out: OutDir, what: Kdump) -> Path:
    """The file OUT/NAME: /proc/vmcore of the crash kernel."""
    return out.once(what.name, lambda part: _run(out, what, part))


def _run(out: OutDir, what: Kdump, part: Path) -> None:
    need(out, what.first.program)
    first, crash = kernel(out, what.first), kernel(out, what.crash)
    image = out.scratch(f"{what.name}.initramfs")
    image.write_bytes(first_initramfs(what, first, _crash_initramfs(crash), crash.image))
    with part.open("wb") as disk:
        disk.truncate(DISK)
    argv = [
        *(*what.first.qemu, "-m", str(what.memory), "-smp", "2"),
        *("-kernel", str(first.image), "-initrd", str(image)),
        *("-append", what.command_line),
        *("-drive", f"file={part},format=raw,if=none,id=d0,cache=unsafe", "-device", "virtio-blk-pci,drive=d0"),
    ]
    with Machine(argv, out.log(f"{what.name}.serial")) as machine:
        said = machine.wait(300)
    size, digest = (re.search(rf"^VMCORE_{x}=(\w+)$", said, re.MULTILINE) for x in ("SIZE", "SHA256"))
    if not size or not digest:
        raise SystemExit(f"{what.name}: no /proc/vmcore was copied, see {machine.serial}")
    with part.open("r+b") as disk:
        disk.truncate(int(size[1]))
        if hashlib.file_digest(disk, "sha256").hexdigest() != digest[1]:
            raise SystemExit(f"{what.name}: the copy differs from /proc/vmcore")


def _crash_initramfs(crash: Kernel) -> bytes:
    modules = crash.modules(*crash.guest.disk)
    order = [name for name in crash.guest.disk if f"mod/{name}.ko" in modules]
    return crash.initramfs("init-kdump.sh", modules | {"mod/order": " ".join(order).encode()})


def first_initramfs(what: Kdump, first: Kernel, crash_initramfs: bytes, crash_image: Path) -> bytes:
    """What the kernel boots that is to crash: it loads the crash kernel and panics."""
    files: dict[str, Content] = {
        "boot/vmlinuz": crash_image,
        "boot/crash.img": crash_initramfs,
        "boot/cmdline": f"console={what.crash.console} reset_devices irqpoll nr_cpus=1".encode(),
        "boot/headers": what.headers.encode(),
    }
    return first.initramfs("init-kdump.sh", files | first.modules("qemu_fw_cfg") | _kexec(first))


def _kexec(first: Kernel) -> dict[str, Content]:
    """kexec and every library that its package depends on, where its own loader finds them."""
    root = first.apt.unpack(*first.apt.download("kexec-tools"), into=first.apt.home / "kexec")
    program = root / "sbin/kexec"
    return {"sbin/kexec": program} | _libraries(root, _sonames(program))


def _sonames(binary: Path) -> set[str]:
    """Whatever in a binary reads like the name of a shared library: its DT_NEEDED, and what it may dlopen."""
    return {x.decode() for x in re.findall(rb"[\w.+-]+\.so\.[\d.]*\d", binary.read_bytes())}


def _libraries(root: Path, names: set[str]) -> dict[str, Content]:
    """The libraries of these names and, in turn, those that they name; the loader goes to its own place too."""
    places = {p.name: p for p in root.glob("**/*.so*") if p.is_file()}
    files: dict[str, Content] = {}
    while names:
        name = names.pop()
        if name not in places or f"lib/{name}" in files:
            continue
        files[f"lib/{name}"] = places[name]
        if name.startswith("ld-linux-x86-64"):
            files[f"lib64/{name}"] = places[name]
        names |= _sonames(places[name])
    return files
