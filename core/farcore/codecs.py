"""How the pages of a kdump-compressed dump are compressed. Each codec is a library, imported when its first page is read.

No page costs more than its block: zlib, snappy and zstd are told the most that may come out; LZO grows 255-fold at most, of
what is never longer than a block.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from farcore.arrays import Array
from farcore.errors import BadDumpError

# diskdump_mod.h (makedumpfile 1.7.2): DUMP_DH_COMPRESSED_*, in a page descriptor's flags.
ZLIB: Final = 0x1
LZO: Final = 0x2
SNAPPY: Final = 0x4
ZSTD: Final = 0x20
COMPRESSED: Final = ZLIB | LZO | SNAPPY | ZSTD

# Names, and what brings them, where it is not Python itself.
NAMES: Final = {ZLIB: "zlib", LZO: "LZO", SNAPPY: "snappy", ZSTD: "zstd"}
_PACKAGES: Final = {ZLIB: "deflate", LZO: "lzallright", SNAPPY: "cramjam", ZSTD: "backports.zstd"}

# zstd allocates what a frame says its window is: twice the largest block there is.
_WINDOW_LOG: Final = 19

# What a page of zeros has at most when it is compressed: the share of a block, and so many bytes more. Measured of blocks of
# 512 bytes to 256 KiB at several levels: zlib 1/98 of it, LZO 1/151, snappy 1/20, zstd 19 bytes and more.
_SHARE: Final = np.full(COMPRESSED + 1, 1 << 20, np.uint32)
_SHARE[[0, ZLIB, LZO, SNAPPY, ZSTD]] = 1, 32, 32, 8, 32
_MORE: Final = 32

# The block from what is stored of it and its size; None where it is not such a block.
Page = bytes | bytearray
Decompress = Callable[[bytes, int], Page | None]

_made: Final[dict[int, Decompress]] = {}


def most_of_zeros(flags: Array[np.uint32], block: int) -> Array[np.uint32]:
    """The most bytes that are stored of a block of zeros, for each of these pages' flags."""
    most: Array[np.uint32] = np.uint32(block) // _SHARE[flags & np.uint32(COMPRESSED)] + np.uint32(_MORE)
    return most


def decompressor(flags: int) -> Decompress | None:
    """What reads a page of these flags; None where nothing needs to. BadDumpError (codec) where its library is missing."""
    kind = flags & COMPRESSED
    if not kind:
        return None
    if kind not in NAMES:
        return _unknown
    if kind not in _made:
        _made[kind] = _make(kind)
    return _made[kind]


def _make(kind: int) -> Decompress:
    package = _PACKAGES[kind]
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        if kind == ZLIB:
            return _zlib
        raise BadDumpError(
            f"the pages are compressed with {NAMES[kind]}, which needs the Python package {package}: pip install {package}",
            term="codec",
        ) from error
    return {ZLIB: _deflate, LZO: _lzo, SNAPPY: _snappy, ZSTD: _zstd}[kind](module)


def _unknown(stored: bytes, size: int) -> None:
    """No page is compressed in two ways."""


def _deflate(module: Any) -> Decompress:
    decompress, error = module.zlib_decompress, module.DeflateError

    def read(stored: bytes, size: int) -> bytearray | None:
        try:
            content: bytearray = decompress(stored, size)
        except error:
            return None
        return content

    return read


def _zlib(stored: bytes, size: int) -> bytes | None:
    """Python's own, twice as slow: where there is no wheel of libdeflate."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(stored, size + 1)
    except zlib.error:
        return None
    return content if stream.eof else None


def _lzo(module: Any) -> Decompress:
    decompress, error = module.LZOCompressor.decompress, module.LZOError

    def read(stored: bytes, size: int) -> bytes | None:
        try:
            content: bytes = decompress(stored, size)
        except error:
            return None
        return content

    return read


def _snappy(module: Any) -> Decompress:
    snappy, error = module.snappy, module.DecompressionError

    def read(stored: bytes, size: int) -> bytearray | None:
        content = bytearray(size)
        try:
            if snappy.decompress_raw_len(stored) != size or snappy.decompress_raw_into(stored, content) != size:
                return None
        except error:
            return None
        return content

    return read


def _zstd(module: Any) -> Decompress:
    options = {module.DecompressionParameter.window_log_max: _WINDOW_LOG}
    decompressor, error = module.ZstdDecompressor, module.ZstdError

    def read(stored: bytes, size: int) -> bytes | None:
        stream = decompressor(options=options)
        try:
            content: bytes = stream.decompress(stored, size + 1)
        except error:
            return None
        return content if stream.eof else None

    return read
