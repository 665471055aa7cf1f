"""How the pages of a kdump-compressed dump are compressed. Each codec is a library, imported when its first page is read.

No page costs more than its block: zlib, snappy and zstd are told the most that may come out; LZO grows 255-fold at most, of
what is never longer than a block.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from typing import Any, Final

from farcore.errors import BadDumpError

# diskdump_mod.h (makedumpfile 1.7.2): DUMP_DH_COMPRESSED_*, in a page descriptor's flags.
ZLIB: Final = 0x1
LZO: Final = 0x2
SNAPPY: Final = 0x4
ZSTD: Final = 0x20
COMPRESSED: Final = ZLIB | LZO | SNAPPY | ZSTD

# Names, and what brings them, where it is not Python itself.
NAMES: Final = {ZLIB: "zlib", LZO: "LZO", SNAPPY: "snappy", ZSTD: "zstd"}
_PACKAGES: Final = {LZO: "lzallright", SNAPPY: "cramjam", ZSTD: "backports.zstd"}

# zstd allocates what a frame says its window is: twice the largest block there is.
_WINDOW_LOG: Final = 19

# The block from what is stored of it and its size; None where it is not such a block.
Decompress = Callable[[memoryview, int], bytes | memoryview | None]

_made: Final[dict[int, Decompress]] = {}


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
    if kind == ZLIB:
        return _zlib
    package = _PACKAGES[kind]
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise BadDumpError(
            f"the pages are compressed with {NAMES[kind]}, which needs the Python package {package}: pip install {package}",
            term="codec",
        ) from error
    return {LZO: _lzo, SNAPPY: _snappy, ZSTD: _zstd}[kind](module)


def _unknown(stored: memoryview, size: int) -> None:
    """No page is compressed in two ways."""


def _zlib(stored: memoryview, size: int) -> bytes | None:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(stored, size + 1)
    except zlib.error:
        return None
    return content if stream.eof else None


def _lzo(module: Any) -> Decompress:
    decompress, error = module.LZOCompressor.decompress, module.LZOError

    def read(stored: memoryview, size: int) -> bytes | None:
        try:
            content: bytes = decompress(bytes(stored), size)
        except error:
            return None
        return content

    return read


def _snappy(module: Any) -> Decompress:
    snappy, error = module.snappy, module.DecompressionError

    def read(stored: memoryview, size: int) -> memoryview | None:
        content = bytearray(size)
        try:
            if snappy.decompress_raw_len(stored) != size or snappy.decompress_raw_into(stored, content) != size:
                return None
        except error:
            return None
        return memoryview(content)

    return read


def _zstd(module: Any) -> Decompress:
    options = {module.DecompressionParameter.window_log_max: _WINDOW_LOG}
    decompressor, error = module.ZstdDecompressor, module.ZstdError

    def read(stored: memoryview, size: int) -> bytes | None:
        stream = decompressor(options=options)
        try:
            content: bytes = stream.decompress(stored, size + 1)
        except error:
            return None
        return content if stream.eof else None

    return read
