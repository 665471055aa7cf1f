"""The Linux guests: Debian kernels, and the machine that QEMU gives each of them."""

from __future__ import annotations

import lzma
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .initramfs import Content, initramfs
from .outdir import OutDir
from .packages import LATER, Apt

INITS = Path(__file__).parent / "guest"
VIRTIO_PCI = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk")
TCG = ("-accel", "tcg,thread=multi", "-nodefaults")


@dataclass(frozen=True, slots=True)
class Guest:
    """A kind of guest: what Debian calls its architecture and its kernel, what QEMU runs it on."""

    architecture: str
    kernel: str
    qemu: tuple[str, ...]
    console: str
    fw_cfg: bool  # has a module that hands VMCOREINFO to QEMU's -device vmcoreinfo
    disk: tuple[str, ...]  # modules for a disk, in the order of loading
    release: str = ""  # of Debian, if not this machine's

    @property
    def program(self) -> str:
        return self.qemu[0]


# la57=off: with five levels of page tables the dumps would be of a kind that few machines make; one guest has them.
PC = ("qemu-system-x86_64", "-M", "q35", "-cpu", "max,la57=off", *TCG, "-device", "vmcoreinfo")
PC_OF_FIVE_LEVELS = tuple(word.replace("la57=off", "la57=on") for word in PC)
VIRT = ("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57", *TCG, "-device", "vmcoreinfo")
MAINFRAME = (
    *("qemu-system-s390x", "-M", "s390-ccw-virtio", "-cpu", "max", *TCG),
    *("-device", "sclpconsole,chardev=line"),
)
AMD64 = Guest("amd64", "linux-image-cloud-amd64", PC, "ttyS0", fw_cfg=True, disk=VIRTIO_PCI)
AMD64_LATER = Guest("amd64", "linux-image-cloud-amd64", PC_OF_FIVE_LEVELS, "ttyS0", fw_cfg=True, disk=VIRTIO_PCI, release=LATER)
I386 = Guest("i386", "linux-image-686-pae", PC, "ttyS0", fw_cfg=True, disk=VIRTIO_PCI)
ARM64 = Guest("arm64", "linux-image-cloud-arm64", VIRT, "ttyAMA0", fw_cfg=True, disk=VIRTIO_PCI)
S390X = Guest("s390x", "linux-image-s390x", MAINFRAME, "ttysclp0", fw_cfg=False, disk=())


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked Debian kernel with the busybox of its architecture."""

    guest: Guest
    apt: Apt
    root: Path
    release: str

    @property
    def image(self) -> Path:
        return self.root / "boot" / f"vmlinuz-{self.release}"

    @property
    def busybox(self) -> Path:
        return next(p for p in (self.root / "bin/busybox", self.root / "usr/bin/busybox") if p.exists())

    def modules(self, *names: str) -> dict[str, Content]:
        """The modules by their path in an initramfs; those built into the kernel are left out."""
        found = {p.name.partition(".")[0]: p for p in self.root.glob(f"**/lib/modules/{self.release}/**/*.ko*")}
        there = {f"mod/{name}.ko": found[name] for name in names if name in found}
        return {name: lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path for name, path in there.items()}

    def initramfs(self, init: str, files: Mapping[str, Content]) -> bytes:
        """An initramfs with the named init script of this folder's `guest`."""
        return initramfs(INITS / init, self.busybox, files)


def kernel(out: OutDir, guest: Guest, release: str = "") -> Kernel:
    """The newest kernel of Debian for a guest, or the one named; the same one ever after for the same folder."""
    apt = Apt(out, guest.architecture, guest.release)
    chosen = apt.home / "kernel"
    if not chosen.exists():
        name = f"linux-image-{release}" if release else apt.depends(guest.kernel, "linux-image-")
        apt.deb(name)
        chosen.write_text(name)
    name = re.sub(r":.*", "", chosen.read_text())
    if release and name != f"linux-image-{release}":
        raise SystemExit(f"the dumps in {out.path} are of {name}: take another folder for {release}")
    root = apt.unpack(apt.deb(name), apt.deb("busybox-static"))
    return Kernel(guest, apt, root, name.removeprefix("linux-image-"))
