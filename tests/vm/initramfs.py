"""An initramfs: a newc cpio archive (kernel Documentation/driver-api/early-userspace/buffer-format.rst), gzipped.

Made the same, byte for byte, from the same files: no time stamps, no inode numbers of this machine.
"""

from __future__ import annotations

import gzip
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

BUSYBOX = "ip udhcpc mkdir rm sh mount insmod sleep cat echo ls dd poweroff sync uname stat grep sed tr head setsid sha256sum"
FOLDERS = ("dev", "proc", "sys", "tmp", "mod")


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


Content = Path | bytes | Link


def initramfs(init: Path, busybox: Path, files: Mapping[str, Content]) -> bytes:
    """The archive of an init script, busybox under its usual names and more files by their path inside."""
    tree: dict[str, Content] = {f"bin/{name}": Link("busybox") for name in BUSYBOX.split()}
    tree |= {"init": init, "bin/busybox": busybox}
    return gzip.compress(b"".join(_newc(tree | dict(files))), compresslevel=1, mtime=0)


def _newc(tree: Mapping[str, Content]) -> Iterator[bytes]:
    folders = {str(p) for name in tree for p in PurePosixPath(name).parents} | set(FOLDERS)
    for number, name in enumerate(sorted(folders - {"."}), 1):
        yield _entry(number, name, stat.S_IFDIR | 0o755, b"")
    for number, name in enumerate(sorted(tree), 1 + len(folders)):
        match tree[name]:
            case Link(target):
                yield _entry(number, name, stat.S_IFLNK | 0o777, target.encode())
            case Path() as path:
                yield _entry(number, name, stat.S_IFREG | 0o755, path.read_bytes())
            case bytes() as body:
                yield _entry(number, name, stat.S_IFREG | 0o755, body)
    yield _entry(0, "TRAILER!!!", 0, b"")


def _entry(number: int, name: str, mode: int, body: bytes) -> bytes:
    """Header, name and body, the latter two padded to 4 bytes."""
    links, dev, path = 1, 0, name.encode() + b"\0"
    fields = (number, mode, 0, 0, links, 0, len(body), dev, dev, dev, dev, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % x for x in fields) + path
    return head + bytes(-len(head) % 4) + body + bytes(-len(body) % 4)
