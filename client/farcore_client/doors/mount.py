"""Mount: a dump as a file of this machine, through FUSE: DIR/vmcore, and DIR/stored for what crash reads as it is stored.

The library is mfusepy over libfuse 3, whose threads call into this process; the kernel keeps what it has read, because the
ETag pins the bytes. Everything of a dump that cannot be had is EIO, with a sentence in the log.
"""

from __future__ import annotations

import calendar
import ctypes
import errno
import os
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np

from farcore.errors import FarcoreError
from farcore.source import Source
from farcore_client.remote import RemoteDump

Log = Callable[[str], object]

# KiB that the kernel reads ahead of a reader in sequence; its own default for FUSE is 128. Requests have 1 MiB at most.
READ_AHEAD: Final = 2048
# Seconds that names and sizes hold: they cannot change.
_FOREVER: Final = 86400.0
# For unshare(2), from linux/sched.h.
_CLONE_FS: Final = 0x200
_READY_WITHIN: Final = 20.0
_SONAME: Final = "libfuse3.so.3"
_PATH: Final = "FUSE_LIBRARY_PATH"
# Seconds until the same trouble is said again: a tool that gets EIO asks a hundred times.
_SAY_AGAIN: Final = 30.0


class MountError(FarcoreError, OSError):
    """A directory, or a machine, where nothing can be mounted."""


class _Content:
    """Bytes for mfusepy, which asks for their number and copies that many from where ctypes finds them: not twice."""

    def __init__(self, found: memoryview) -> None:
        self._found = np.frombuffer(found, np.uint8)
        self._as_parameter_ = self._found.ctypes.data

    def __len__(self) -> int:
        return len(self._found)


class Files:
    """The files of a mount, as mfusepy asks for them; the root has nothing else. Called by many threads."""

    use_ns = True

    def __init__(self, sources: Mapping[str, Source], modified: int, log: Log) -> None:
        self._sources = {f"/{name}": source for name, source in sources.items()}
        self._modified, self._log = modified, log
        self._said: tuple[str, float] = ("", 0.0)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """stat(2): a dump is a machine's memory, so only its user may read it."""
        times = {"st_atime": self._modified, "st_mtime": self._modified, "st_ctime": self._modified}
        owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o500, "st_nlink": 2, **owner, **times}
        size = self._source(path).size
        return {
            "st_mode": stat.S_IFREG | 0o400,
            "st_nlink": 1,
            "st_size": size,
            "st_blocks": -(-size // 512),
            **owner,
            **times,
        }

    def readdir(self, path: str, fh: int) -> list[str]:
        """The names."""
        return [".", "..", *(name[1:] for name in self._sources)]

    def open(self, path: str, flags: int) -> int:
        """A handle, of no meaning; EROFS for who wants to write."""
        self._source(path)
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> _Content:
        """At most ``size`` bytes: fewer at the end; EIO for what cannot be had."""
        source = self._source(path)
        length = min(size, max(0, source.size - offset))
        try:
            found = source.pread(offset, length)
        except FarcoreError as error:
            self._say(f"{path[1:]}: {length:,} bytes from {offset:,} on are EIO: {error}")
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error
        return _Content(found)

    def _source(self, path: str) -> Source:
        source = self._sources.get(path)
        if source is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return source

    def _say(self, sentence: str) -> None:
        why, at = sentence.rpartition("EIO: ")[2], time.monotonic()
        if why.partition(" (tried")[0] != self._said[0] or at > self._said[1] + _SAY_AGAIN:
            self._said = (why.partition(" (tried")[0], at)
            self._log(sentence)


@contextmanager
def mounted(
    remote: RemoteDump, directory: Path, log: Log = lambda sentence: None, *, read_ahead: int = READ_AHEAD
) -> Iterator[threading.Event]:
    """The dump mounted on ``directory`` for the time of the body; MountError where that cannot be.

    ``read_ahead``: KiB that the kernel reads ahead of a reader in sequence, where root asks for it. Gives an event that is set
    when somebody else has unmounted it (fusermount3 -u). ``log`` gets a sentence for each EIO.
    """
    fuse = _library()
    directory = _directory(directory)
    sources = {"vmcore": remote.vmcore}
    if remote.dump.text("stored_format") == "kdump-compressed":
        sources["stored"] = remote.stored
    files = Files(sources, _nanoseconds(remote.dump.text("modified")), log)
    heard = _overheard(fuse, log)
    ended = threading.Event()
    said: list[BaseException] = []

    def serve(keep: object = heard) -> None:
        # libfuse goes to "/", for which a thread needs a directory of its own: others have files that were named from here.
        ctypes.CDLL(None).unshare(_CLONE_FS)
        try:
            fuse.FUSE(
                files,
                str(directory),
                foreground=True,
                ro=True,
                nodev=True,
                nosuid=True,
                # By a process of fusermount3's, even where this one is killed.
                auto_unmount=shutil.which("fusermount3") is not None,
                fsname=str(remote.url),
                subtype="farcore",
                kernel_cache=True,
                entry_timeout=_FOREVER,
                attr_timeout=_FOREVER,
                negative_timeout=_FOREVER,
            )
        except BaseException as error:  # of whatever kind: it ends the mount
            said.append(error)
        finally:
            ended.set()
            del keep

    thread = threading.Thread(target=serve, name="farcore mount", daemon=True)
    thread.start()
    try:
        _await(directory, ended, said)
        _set_read_ahead(directory, read_ahead)
        yield ended
    finally:
        _unmount(directory, ended)
        thread.join(5)


def _overheard(fuse: ModuleType, log: Log) -> object:
    """Have libfuse say what it has to say to ``log``, not to stderr; what is returned must be kept as long as it talks."""
    libc = ctypes.CDLL(None)

    def hear(level: int, text: bytes, arguments: int) -> None:
        said = ctypes.create_string_buffer(512)
        libc.vsnprintf(said, ctypes.c_size_t(512), ctypes.c_char_p(text), ctypes.c_void_p(arguments))
        # libfuse 3.12 and later of a default that mfusepy's own symbol version gives them.
        if b"max threads" not in said.value:
            log(f"libfuse: {said.value.decode(errors='replace').strip()}")

    heard = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(hear)
    fuse._libfuse.fuse_set_log_func(heard)
    return heard


def _library() -> ModuleType:
    if not os.path.exists("/dev/fuse"):
        raise MountError("this machine has no FUSE (/dev/fuse): `modprobe fuse`, or read the dump through another door")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise MountError("/dev/fuse may not be used here: run as a user who may, or read the dump through another door")
    try:
        with _named():
            import mfusepy
    except ImportError as error:
        raise MountError("mounting needs the Python package mfusepy: `pip install 'farcore[client]'`") from error
    except OSError as error:
        raise MountError("mounting needs libfuse 3: install your system's package fuse3") from error
    module: ModuleType = mfusepy
    return module


@contextmanager
def _named() -> Iterator[None]:
    """Name libfuse 3 to mfusepy by its soname, where the linker finds it: mfusepy's own search runs a compiler."""
    try:
        ctypes.CDLL(_SONAME)
    except OSError:
        yield
        return
    chosen = os.environ.get(_PATH)
    os.environ[_PATH] = chosen or _SONAME
    try:
        yield
    finally:
        if chosen is None:
            del os.environ[_PATH]


def _directory(directory: Path) -> Path:
    directory = directory.absolute()
    try:
        there = directory.is_dir()
    except OSError as error:
        why = "what was mounted there has ended" if error.errno == errno.ENOTCONN else error.strerror
        raise MountError(f"{directory} cannot be looked at: {why}; `fusermount3 -u {directory}`, or take another") from error
    if not there:
        raise MountError(f"{directory} is no directory: make it first (`mkdir {directory}`)")
    if os.path.ismount(directory):
        raise MountError(f"something is mounted on {directory} already: `fusermount3 -u {directory}`, or take another")
    return directory


def _await(directory: Path, ended: threading.Event, said: list[BaseException]) -> None:
    """Return when the mount answers."""
    give_up = time.monotonic() + _READY_WITHIN
    while time.monotonic() < give_up and not ended.wait(0.002):
        with suppress(OSError):
            if os.path.ismount(directory) and (directory / "vmcore").stat().st_size >= 0:
                return
    why = f" ({said[0]})" if said else ""
    raise MountError(f"{directory} could not be mounted{why}: is it yours, and is fusermount3 (package fuse3) installed?")


def _set_read_ahead(directory: Path, kib: int) -> None:
    device = os.stat(directory).st_dev
    # Only root may; without it they are 128.
    with suppress(OSError):
        Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").write_text(f"{kib}\n")


def _unmount(directory: Path, ended: threading.Event) -> None:
    if ended.is_set():
        return
    # Without fusermount3 it was root who mounted. Busy: whoever has the file open keeps it, and nobody else finds it.
    helped = shutil.which("fusermount3") is not None
    for command in (["fusermount3", "-u"], ["fusermount3", "-uz"]) if helped else (["umount"], ["umount", "-l"]):
        with suppress(OSError):
            done = subprocess.run([*command, str(directory)], capture_output=True)
            if done.returncode == 0 and ended.wait(2):
                return


def _nanoseconds(modified: str) -> int:
    try:
        return calendar.timegm(time.strptime(modified, "%Y-%m-%dT%H:%M:%SZ")) * 1_000_000_000
    except ValueError:
        return 0
