"""Opens what may be a dump, and only that: a regular file that lies where it seems to lie."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from farcore.errors import BadDumpError
from farcore_server.search import Place

_KINDS: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)


def open_place(place: Place) -> tuple[int, os.stat_result]:
    """A descriptor to read ``place`` from, and its stat; BadDumpError (term "file") with the reason why there is none.

    The name is followed once, to a descriptor that opens nothing (O_PATH): what it leads to is looked at, and only then
    opened. So no FIFO is waited for and no device touched, and whoever swaps links meanwhile gains nothing.
    """
    try:
        anchor = os.open(place.path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise BadDumpError(_sentence(place, error), term="file") from error
    try:
        found = os.fstat(anchor)
        _demand_regular(place, found)
        itself = f"/proc/self/fd/{anchor}"
        if place.root is not None and not _inside(os.readlink(itself), place.root):
            raise BadDumpError(
                "a link that leads out of the served directory; name its target as a PATH to serve it", term="file"
            )
        if found.st_size == 0:
            raise BadDumpError("the file is empty: the dump was never written, or its disk was full", term="file")
        return os.open(itself, os.O_RDONLY | os.O_CLOEXEC), found
    except OSError as error:
        raise BadDumpError(_sentence(place, error), term="file") from error
    finally:
        os.close(anchor)


def _demand_regular(place: Place, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode) and not os.access(place.path, os.R_OK | os.X_OK):
        raise BadDumpError("no permission to search this directory; run farcored as a user who may", term="file")
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _KINDS if test(found.st_mode)), "no regular file")
        raise BadDumpError(f"{kind}, not a regular file; a dump is served from a file", term="file")


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _sentence(place: Place, error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "no permission to read it; run farcored as a user who may, or give it CAP_DAC_READ_SEARCH"
    if error.errno == errno.ENOENT:
        return "a link to nothing" if os.path.islink(place.path) else "no such file"
    return f"it cannot be opened: {os.strerror(error.errno or errno.EIO)}"
