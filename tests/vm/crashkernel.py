"""A crash kernel that serves /proc/vmcore over a network, as deploy/kdump has it done: QEMU's, forwarded to a loopback port."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Iterator, Mapping, Sequence
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
# More than a 32-bit address space has. A PC's memory from 2 GiB on lies above 4 GiB. The i386 kernel starts below 896 MiB only,
# and nothing clears or moves what QEMU has put into this machine's memory.
LARGE_VIA_I386 = Kdump("serve-x86_64-6g-via-i386", AMD64, I386, memory=6144, room="256M@256M", append="nokaslr")
Conf = Mapping[str, str | int | Path]  # deploy/kdump's kdump.conf


@dataclass(frozen=True, slots=True)
class Crashed:
    """A machine that has crashed: where its memory is served, and the disk that the kdump action writes to."""

    machine: Machine
    port: int
    disk: Path


@contextmanager
def crashed(out: OutDir, what: Kdump, conf: Conf, *devices: str, samples: Sequence[int] = ()) -> Iterator[Crashed]:
    """Boots, crashes, and returns while the crash kernel starts.

    Its kdump action copies the whole dump, or says the digests of ``samples``, two blocks of 64 KiB from each number on.
    """
    need(out, what.first.program)
    first, crash = kernel(out, what.first), kernel(out, what.crash)
    image = out.scratch(f"{what.name}.initramfs")
    image.write_bytes(first_initramfs(what, first, crash_initramfs(out, crash, conf, samples), crash.image))
    disk = out.scratch(f"{what.name}.disk")
    with disk.open("wb") as file:
        file.truncate(DISK)
    port = free_port()
    argv = [
        *(*what.first.qemu, "-m", str(what.memory), "-smp", "2", *devices),
        *("-kernel", str(first.image), "-initrd", str(image), "-append", what.command_line),
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


def crash_initramfs(out: OutDir, crash: Kernel, conf: Conf, samples: Sequence[int]) -> bytes:
    """The crash kernel's archive: what deploy/kdump puts into one, and an init script that runs it."""
    names = (*crash.guest.disk, *NETWORK)
    modules = crash.modules(*names)
    order = [name for name in names if f"mod/{name}.ko" in modules]
    files: dict[str, Content] = {
        "mod/order": " ".join(order).encode(),
        "etc/before_2007.py": INITS / "before_2007.py",
        "etc/udhcpc": INITS / "udhcpc.sh",
        "etc/samples": " ".join(map(str, samples)).encode(),
    }
    return crash.initramfs("init-serve.sh", files | modules | deployed(out, crash.guest, conf))


def deployed(out: OutDir, guest: Guest, conf: Conf) -> dict[str, Content]:
    """What deploy/kdump/build makes of a kdump.conf, with Debian's Python of that architecture, by path in the archive."""
    folder, written = out.scratch(f"farcore-{guest.architecture}"), out.scratch("kdump.conf")
    if folder.exists():
        run(out, f"build-{guest.architecture}", "rm", "-r", folder)
    lines = {**conf, "FARCORE_PYTHON": python(out, guest)}
    written.write_text("".join(f"{key}={shlex.quote(str(value))}\n" for key, value in lines.items()))
    run(out, f"build-{guest.architecture}", DEPLOY / "build", folder, written)
    files: dict[str, Content] = {"usr/lib/farcore/lib/python3.11/lib-dynload/.keep": b""}
    return files | {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def python(out: OutDir, guest: Guest) -> Path:
    """A script: Debian's own Python of the guest's architecture with its packages and this tree's farcore, not emulated."""
    apt = Apt(out, guest.architecture)
    home = apt.home / "server"
    for name in PACKAGES:
        apt.unpack(*apt.download(f"python3-{name}"), into=home)
    triplet = TRIPLETS[guest.architecture]
    folders = [f"{home}{place}" for place in (f"/lib/{triplet}", f"/usr/lib/{triplet}")]
    libraries = ":".join([*folders, f"{folders[1]}/blas", f"{folders[1]}/lapack"])
    loader = next(path for path in Path(folders[0]).glob("ld-linux*"))
    packages = (home / "usr/lib/python3/dist-packages", TOP / "core", TOP / "server")
    argv = [loader, "--library-path", libraries, home / "usr/bin/python3.11", "-P"]
    script = out.scratch(f"python-{guest.architecture}")
    script.write_text(
        f"#!/bin/sh\nexport PYTHONHOME={home}/usr PYTHONPATH={':'.join(map(str, packages))} PYTHONDONTWRITEBYTECODE=1\n"
        f'exec {shlex.join(map(str, argv))} "$@"\n'
    )
    script.chmod(0o755)
    return script
