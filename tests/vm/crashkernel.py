"""A crash kernel that serves /proc/vmcore over a network, as deploy/kdump has it done: QEMU's, forwarded to a loopback port."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .guests import AMD64, I386, INITS, Guest, Kernel, kernel
from .initramfs import Content
from .kdump import DISK, Kdump, first_initramfs
from .outdir import OutDir
from .packages import Apt, need, run
from .qemu import Machine

TOP = Path(__file__).parents[2]
DEPLOY = TOP / "deploy/kdump"
NETWORK = ("failover", "net_failover", "virtio_net")
# What farcored imports, as Debian has it; python3 itself comes with them.
PACKAGES = ("numpy", "aiohttp", "click", "jinja2", "prometheus-client", "xxhash")
TRIPLETS = {"amd64": "x86_64-linux-gnu", "i386": "i386-linux-gnu"}


# Who crashes, and which kernel with the userland of its architecture serves the memory. 640 MiB: wherever KASLR puts the
# kernel, one gap of 256 MiB is left beside it and the initramfs.
NATIVE = Kdump("serve-x86_64", AMD64, AMD64, memory=640, room="256M")
VIA_I386 = Kdump("serve-x86_64-via-i386", AMD64, I386, memory=640, room="256M")


@dataclass(frozen=True, slots=True)
class Crashed:
    """A machine that has crashed: where its memory is served, and the disk that the kdump action writes to."""

    machine: Machine
    port: int
    disk: Path


@contextmanager
def crashed(out: OutDir, what: Kdump, tokens: Path, seconds: int) -> Iterator[Crashed]:
    """Boots, crashes, and returns while the crash kernel starts."""
    need(out, what.first.program)
    first, crash = kernel(out, what.first), kernel(out, what.crash)
    image = out.scratch(f"{what.name}.initramfs")
    image.write_bytes(first_initramfs(what, first, crash_initramfs(out, crash, tokens, seconds), crash.image))
    disk = out.scratch(f"{what.name}.disk")
    with disk.open("wb") as file:
        file.truncate(DISK)
    port = free_port()
    argv = [
        *(*what.first.qemu, "-m", str(what.memory), "-smp", "2"),
        *("-kernel", str(first.image), "-initrd", str(image)),
        *("-append", f"console={what.first.console} crashkernel={what.room} init_on_free=1"),
        *("-drive", f"file={disk},format=raw,if=none,id=d0,cache=unsafe", "-device", "virtio-blk-pci,drive=d0"),
        *("-netdev", f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:8787"),
        *("-device", "virtio-net-pci,netdev=n0,romfile="),
    ]
    with Machine(argv, out.log(f"{what.name}.serial")) as machine:
        yield Crashed(machine, port, disk)


def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def crash_initramfs(out: OutDir, crash: Kernel, tokens: Path, seconds: int) -> bytes:
    """The crash kernel's archive: farcored's folder, the script that serves, the digests of the tokens."""
    names = (*crash.guest.disk, *NETWORK)
    modules = crash.modules(*names)
    order = [name for name in names if f"mod/{name}.ko" in modules]
    files: dict[str, Content] = {
        "mod/order": " ".join(order).encode(),
        "usr/lib/farcore-kdump/serve-vmcore": DEPLOY / "serve-vmcore",
        "etc/before_2007.py": INITS / "before_2007.py",
        "etc/udhcpc": INITS / "udhcpc.sh",
        "etc/farcore/tokens": tokens.read_bytes(),
        "etc/farcore/kdump.conf": f"FARCORE_SECONDS={seconds}\n".encode(),
    }
    return crash.initramfs("init-serve.sh", files | modules | collected(out, crash.guest))


def collected(out: OutDir, guest: Guest) -> dict[str, Content]:
    """deploy/kdump/collect.py's folder by path in the archive, made by Debian's Python of that architecture."""
    folder = out.scratch(f"farcore-{guest.architecture}")
    if folder.exists():
        run(out, f"collect-{guest.architecture}", "rm", "-r", folder)
    python(out, guest, DEPLOY / "collect.py", folder)
    files: dict[str, Content] = {"usr/lib/farcore/lib/python3.11/lib-dynload/.keep": b""}
    return files | {f"usr/lib/farcore/{path.relative_to(folder)}": path for path in folder.rglob("*") if path.is_file()}


def python(out: OutDir, guest: Guest, *arguments: str | Path) -> str:
    """Output of Debian's own Python of the guest's architecture, with its packages and this tree's farcore: no emulation."""
    apt = Apt(out, guest.architecture)
    home = apt.home / "server"
    for name in PACKAGES:
        apt.unpack(*apt.download(f"python3-{name}"), into=home)
    triplet = TRIPLETS[guest.architecture]
    folders = [f"{home}{place}" for place in (f"/lib/{triplet}", f"/usr/lib/{triplet}")]
    libraries = ":".join([*folders, f"{folders[1]}/blas", f"{folders[1]}/lapack"])
    loader = next(path for path in Path(folders[0]).glob("ld-linux*"))
    packages = (home / "usr/lib/python3/dist-packages", TOP / "core", TOP / "server")
    environment = os.environ | {
        "PYTHONHOME": f"{home}/usr",
        "PYTHONPATH": ":".join(map(str, packages)),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    argv = [loader, "--library-path", libraries, home / "usr/bin/python3.11", "-P", *arguments]
    return run(out, f"python-{guest.architecture}", *argv, env=environment)
