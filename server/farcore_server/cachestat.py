"""How much of a file is in the page cache: cachestat(2), of Linux 6.5, by ctypes, since neither libc nor Python has it.

One call for as many bytes as one likes, and 1.4 us for 2 MiB here. It counts pages that are being read as well, and tells only
those who own the file or may write it: where it cannot be asked, a byte must be read (Residency).
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

_NUMBER: Final = 451  # on every architecture but alpha


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Counts(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("cached", "dirty", "written", "evicted", "recently_evicted"))


# PyDLL: nobody else should have the interpreter meanwhile, it takes longer to get back.
_syscall = ctypes.PyDLL(None).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long)
_syscall.restype = ctypes.c_long
_range, _counts = _Range(), _Counts()
_where, _what = ctypes.byref(_range), ctypes.byref(_counts)


def cached(fd: int, offset: int, length: int) -> bool | None:
    """Whether every page of the range is in memory, or on its way there; None where nobody says. For one thread alone."""
    _range.offset, _range.length = offset, length
    if _syscall(_NUMBER, fd, _where, _what, 0):
        return None
    pages: int = _counts.cached
    return pages > (offset + length - 1) // mmap.PAGESIZE - offset // mmap.PAGESIZE
