"""Storage that a test can make slow, or fail, while a server reads from it: a folder seen through the kernel's FUSE.

    with disk(folder) as shown:
        shown.delay = 0.5               # from now on a read takes half a second
        shown.broken = range(4096, 8192)  # and one that touches these bytes of a file fails with EIO
        (shown.folder / "vmcore").read_bytes()

    with disk_filesystem(folder, room) as shown: ...   # the same below ext4, which can say what is in memory (RWF_NOWAIT)

Sans library: /dev/fuse is read and written here (include/uapi/linux/fuse.h, version 7.31). Needs root.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 17, 18, 25, 26
OPENDIR, READDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 27, 28, 29, 36, 38, 42
UNANSWERED = {FORGET, BATCH_FORGET, INTERRUPT}
ROOT = 1
MNT_FORCE, MNT_DETACH = 1, 2

_LIBC = ctypes.CDLL(None, use_errno=True)


def drop(path: Path) -> None:
    """Have the kernel forget what it has of a file, but for what somebody has mapped or is just sending."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


@dataclass(slots=True, eq=False)
class Disk:
    """Serves ``below``; a dump is to be found in ``folder``, and what the kernel remembers of it also by ``backing``.

    ``reads`` counts what reached it: what the kernel had not in memory.
    """

    below: Path
    folder: Path
    fuse: int
    delay: float = 0.0
    broken: range = range(0)
    reads: int = 0
    backing: Path = Path("/dev/null")
    _nodes: dict[int, int] = field(default_factory=dict)

    def forget(self) -> None:
        """Have the kernel forget the dumps: the next reads reach the disk."""
        for path in (*self.folder.glob("vmcore*"), self.backing):
            drop(path)

    def run(self) -> None:
        """Answer the kernel until the filesystem is unmounted."""
        self._nodes[ROOT] = os.open(self.below, os.O_PATH)
        with suppress(OSError):  # ENODEV
            while request := os.read(self.fuse, 1 << 18):
                self._take(request)
        for fd in self._nodes.values():
            os.close(fd)

    def _take(self, request: bytes) -> None:
        _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
        if opcode in UNANSWERED:
            return
        if opcode == READ:
            self.reads += 1
            if self.delay:
                threading.Timer(self.delay, self._answer, (opcode, unique, node, request[40:])).start()
                return
        self._answer(opcode, unique, node, request[40:])

    def _answer(self, opcode: int, unique: int, node: int, body: bytes) -> None:
        try:
            reply, error = self._do(opcode, node, body), 0
        except OSError as failed:
            reply, error = b"", failed.errno or errno.EIO
        with suppress(OSError):  # ENOENT: whoever asked was killed meanwhile
            os.write(self.fuse, struct.pack("<IiQ", 16 + len(reply), -error, unique) + reply)

    def _do(self, opcode: int, node: int, body: bytes) -> bytes:
        match opcode:
            case 26:  # INIT: no readahead, so that a read is for what was asked
                return struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 0, 16, 16, 1 << 17, 1, 32, 0, 0)
            case 1:
                return self._lookup(os.fsdecode(body.rstrip(b"\0")))
            case 3:
                return struct.pack("<QII", 0, 0, 0) + _attributes(os.fstat(self._nodes[node]))
            case 14:
                return struct.pack("<QII", os.open(f"/proc/self/fd/{self._nodes[node]}", os.O_RDONLY), 0, 0)
            case 15:
                return self._read(*struct.unpack_from("<QQI", body))
            case 18:
                os.close(struct.unpack_from("<Q", body)[0])
                return b""
            case 28:
                return self._list(struct.unpack_from("<QQ", body)[1])
            case 27:
                return bytes(16)
            case 17:
                return bytes(80)
            case 25 | 29 | 38:
                return b""
        raise OSError(errno.ENOSYS, "")

    def _lookup(self, name: str) -> bytes:
        path = self.below / name
        found = path.stat()
        if found.st_ino not in self._nodes:
            self._nodes[found.st_ino] = os.open(path, os.O_PATH)
        return struct.pack("<QQQQII", found.st_ino, 0, 0, 0, 0, 0) + _attributes(found)

    def _read(self, fd: int, offset: int, length: int) -> bytes:
        if offset < self.broken.stop and self.broken.start < offset + length:
            raise OSError(errno.EIO, "as the test planned")
        return os.pread(fd, length, offset)

    def _list(self, offset: int) -> bytes:
        listed = b""
        for position, name in enumerate(sorted(os.listdir(self.below))[offset:], offset + 1):
            raw = os.fsencode(name)
            listed += struct.pack("<QQII", (self.below / name).stat().st_ino, position, len(raw), 0) + raw
            listed += bytes(-len(raw) % 8)
        return listed


def _attributes(found: os.stat_result) -> bytes:
    times = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
    seconds, rest = zip(*(divmod(time, 10**9) for time in times), strict=True)
    inode = ROOT if stat.S_ISDIR(found.st_mode) else found.st_ino
    numbers = (found.st_mode, found.st_nlink, found.st_uid, found.st_gid, 0, 4096, 0)
    return struct.pack("<6Q10I", inode, found.st_size, found.st_blocks, *seconds, *rest, *numbers)


def _demand_root() -> None:
    if os.geteuid() or not Path("/dev/fuse").exists():
        pytest.skip("only root can mount, and /dev/fuse must be there")


def _unmount(folder: Path) -> None:
    # Forced first, which ends FUSE whoever has files of it open, and then for good.
    for flag in (MNT_FORCE, MNT_DETACH):
        _LIBC.umount2(os.fsencode(folder), flag)


@contextmanager
def disk(below: Path) -> Iterator[Disk]:
    """The files of ``below``, a flat folder, at another place: what is done to them there is seen at once."""
    _demand_root()
    folder = below.with_name(below.name + "-shown")
    folder.mkdir()
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if _LIBC.mount(b"farcore-test", os.fsencode(folder), b"fuse", 0, options) != 0:
        os.close(fuse)
        pytest.skip(f"FUSE cannot be mounted here: {os.strerror(ctypes.get_errno())}")
    shown = Disk(below, folder, fuse)
    thread = threading.Thread(target=shown.run, name="disk")
    thread.start()
    try:
        yield shown
    finally:
        shown.delay = 0
        _unmount(folder)
        thread.join(20)
        os.close(fuse)


@contextmanager
def disk_filesystem(below: Path, room: Path) -> Iterator[Disk]:
    """The files of ``below`` in an ext4 of their own, read-only, whose disk is in ``room`` and the test's to slow or break.

    ``folder`` is where they are; ``broken`` counts bytes of the disk and not of a file.
    """
    _demand_root()
    if not all(shutil.which(tool) for tool in ("mkfs.ext4", "losetup", "mount")):
        pytest.skip("mkfs.ext4, losetup and mount are needed")
    with ExitStack() as stack:
        (room / "disk").mkdir()
        image = room / "disk" / "image"
        size = sum(path.stat().st_size for path in below.iterdir()) + (16 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-d", below, image, f"{size >> 10}k"], check=True)
        shown = stack.enter_context(disk(room / "disk"))
        looped = subprocess.run(
            ["losetup", "--find", "--show", "--read-only", shown.folder / "image"], capture_output=True, text=True
        )
        if looped.returncode:
            pytest.skip(f"no loop device: {looped.stderr.strip()}")
        device = looped.stdout.strip()
        stack.callback(subprocess.run, ["losetup", "--detach", device], check=True)
        mounted = room / "mounted"
        mounted.mkdir()
        subprocess.run(["mount", "-o", "ro", device, mounted], check=True)
        stack.callback(_unmount, mounted)
        shown.folder, shown.backing = mounted, shown.folder / "image"
        yield shown
        shown.delay, shown.broken = 0, range(0)
