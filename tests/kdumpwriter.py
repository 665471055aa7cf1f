"""Kdump-compressed and flattened files written with struct alone, right or wrong on purpose; knows nothing of farcore.

    Kdump({5: page, 6: page}, excluded={7}, bits=32, data="BE", machine="ppc", compress="zlib").tobytes()

Layout as makedumpfile writes it: header block, sub header (with vmcoreinfo, notes and eraseinfo), both bitmaps, descriptors,
pages. Pages of zeros share one descriptor's bytes, which come first.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import cramjam
from backports import zstd
from lzallright import LZOCompressor

UTSNAME = ("sysname", "nodename", "release", "version", "machine", "domainname")
COUNTS = (
    *("status", "block_size", "sub_hdr_size", "bitmap_blocks", "max_mapnr", "total_ram_blocks", "device_blocks"),
    *("written_blocks", "current_cpu", "nr_cpus"),
)
SUB = (
    *("phys_base", "dump_level", "split", "start_pfn", "end_pfn", "offset_vmcoreinfo", "size_vmcoreinfo", "offset_note"),
    *("size_note", "offset_eraseinfo", "size_eraseinfo", "start_pfn_64", "end_pfn_64", "max_mapnr_64"),
)
SUB_FORMAT = {"64": "QIIQQQQQQQQQQQ", "i386": "IIIIIQIQIQIQQQ", "32": "IIIII4xQI4xQI4xQI4xQQQ"}
# How many fields of the sub header a version has.
SUB_FIELDS = {0: 1, 1: 2, 2: 5, 3: 7, 4: 9, 5: 11, 6: 14}

COMPRESS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "raw": (0, bytes),
    "zlib": (1, lambda page: zlib.compress(page, 1)),
    "lzo": (2, lambda page: LZOCompressor().compress(page)),
    "snappy": (4, lambda page: bytes(cramjam.snappy.compress_raw(page))),
    "zstd": (0x20, lambda page: zstd.compress(page, 1)),
}
ORDER = {"LE": "<", "BE": ">"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kdump:
    """``pages`` by frame; ``ram`` has more frames (excluded ones). ``header``, ``sub`` and ``descriptors`` replace fields."""

    pages: Mapping[int, bytes]
    excluded: Collection[int] = ()
    version: int = 6
    bits: int = 64
    data: str = "LE"
    machine: str = "x86_64"
    block: int = 4096
    compress: str = "zlib"
    max_frame: int | None = None
    split: tuple[int, int] | None = None
    vmcoreinfo: bytes = b""
    notes: bytes = b""
    eraseinfo: bytes = b""
    signature: bytes = b"KDUMP   "
    header: Mapping[str, int] = field(default_factory=dict)
    sub: Mapping[str, int] = field(default_factory=dict)
    descriptors: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    size: int | None = None  # cuts the file
    # Of the time of the crash: read as a 32-bit header's, the default is a block size that makes sense.
    microseconds: int = 4096

    @property
    def frames(self) -> int:
        """max_mapnr."""
        return max([*self.pages, *self.excluded], default=-1) + 1 if self.max_frame is None else self.max_frame

    def tobytes(self) -> bytes:
        """The file."""
        extras = b"".join((self.vmcoreinfo, self.notes, self.eraseinfo))
        extras_at = self.block + 200
        sub_blocks = -(-(200 + len(extras)) // self.block)
        bitmap = -(-self.frames // 8 // self.block) * self.block or self.block
        bitmaps_at = self.block * (1 + sub_blocks)
        start, end = self.split or (0, self.frames)
        mine = sorted(frame for frame in self.pages if start <= frame < end)
        descriptors_at = bitmaps_at + 2 * bitmap
        table, stored = self._pages(mine, descriptors_at + 24 * len(mine))
        content = bytearray(descriptors_at)
        content[: self.block] = self._header(sub_blocks, 2 * bitmap // self.block).ljust(self.block, b"\xee")
        content[self.block : self.block + 200] = self._sub(extras_at).ljust(200, b"\xee")
        content[extras_at : extras_at + len(extras)] = extras
        content[bitmaps_at : bitmaps_at + bitmap] = bits({*self.pages, *self.excluded}, bitmap)
        content[bitmaps_at + bitmap : descriptors_at] = bits(self.pages, bitmap)
        whole = bytes(content) + table + stored
        return whole if self.size is None else whole[: self.size]

    def _header(self, sub_blocks: int, bitmap_blocks: int) -> bytes:
        flag = COMPRESS[self.compress][0]
        values = dict.fromkeys(COUNTS, 0) | {
            "status": flag,
            "block_size": self.block,
            "sub_hdr_size": sub_blocks,
            "bitmap_blocks": bitmap_blocks,
            "max_mapnr": self.frames & 0xFFFFFFFF,
            "nr_cpus": 1,
        }
        values |= self.header
        words = {"machine": self.machine, "release": "6.1.0-test", "sysname": "Linux"}
        names = [words.get(name, "(none)").encode() for name in UTSNAME]
        clock = "6xQQ" if self.bits == 64 else "2xII"
        form = f"{ORDER[self.data]}8sI" + "65s" * 6 + clock + "I" * len(COUNTS)
        return struct.pack(
            form, self.signature, self.version, *names, 1700000000, self.microseconds, *(values[name] for name in COUNTS)
        )

    def _sub(self, at: int) -> bytes:
        start, end = self.split or (0, 0)
        values = dict.fromkeys(SUB, 0) | {"dump_level": 31, "split": int(self.split is not None), "max_mapnr_64": self.frames}
        values |= {"start_pfn": start, "end_pfn": end, "start_pfn_64": start, "end_pfn_64": end}
        for name, content in (("vmcoreinfo", self.vmcoreinfo), ("note", self.notes), ("eraseinfo", self.eraseinfo)):
            values |= {f"offset_{name}": at if content else 0, f"size_{name}": len(content)}
            at += len(content)
        values |= self.sub
        shape = "64" if self.bits == 64 else "i386" if self.machine in ("i386", "i686") else "32"
        packed = struct.pack(ORDER[self.data] + SUB_FORMAT[shape], *(values[name] for name in SUB))
        # An older version has fewer fields; what stands behind them is not theirs.
        form, count, kept = SUB_FORMAT[shape], 0, ""
        while form and count < SUB_FIELDS[self.version]:
            token = form[:2] if form[0].isdigit() else form[0]
            kept, form, count = kept + token, form[len(token) :], count + (not token[0].isdigit())
        return packed[: struct.calcsize(ORDER[self.data] + kept)]

    def _pages(self, frames: Sequence[int], at: int) -> tuple[bytes, bytes]:
        """Descriptors and what they lead to; ``at`` is where the latter starts."""
        flag, compress = COMPRESS[self.compress]
        stored = [bytes(self.block)]
        rows, end = [], at + self.block
        for frame in frames:
            page = self.pages[frame]
            row = (at, self.block, 0)
            if any(page):
                packed = compress(page)
                row = (end, len(packed), flag) if len(packed) < self.block else (end, self.block, 0)
                stored.append(packed if row[2] else page)
                end += row[1]
            rows.append(self.descriptors.get(frame, row))
        return b"".join(struct.pack(f"{ORDER[self.data]}QIIQ", *row, 0) for row in rows), b"".join(stored)


def fragment(number: int) -> bytes:
    """What the ``number``th page of fragments() holds: of every eighth of a thousand zeros."""
    number %= 1000
    return bytes([number % 251]) * 2048 + hashlib.sha256(str(number).encode()).digest() * 64 if number % 8 else bytes(4096)


def fragments(count: int, compress: str = "lzo") -> bytes:
    """A dump of which every second frame was kept: ``count`` of them, with a thousand different pages among them."""
    flag, pack = COMPRESS[compress]
    frames = 2 * count
    whole = Kdump(pages={}, max_frame=frames, compress=compress, vmcoreinfo=b"OSRELEASE=6.1.0\n")
    bitmap = -(-frames // 8 // whole.block) * whole.block
    head = whole.tobytes()[: -whole.block - 2 * bitmap]
    ram, kept = (bytes([byte]) * (frames // 8) for byte in (0xFF, 0x55))
    at = len(head) + 2 * bitmap + 24 * count
    rows, stored = [], []
    for i in range(1000):
        page = pack(fragment(i))
        rows.append(struct.pack("<QIIQ", at, len(page), flag, 0))
        stored.append(page)
        at += len(page)
    table = (b"".join(rows) * -(-count // len(rows)))[: 24 * count]
    return b"".join([head, ram.ljust(bitmap, b"\0"), kept.ljust(bitmap, b"\0"), table, *stored])


def bits(frames: Collection[int], size: int) -> bytes:
    """A bitmap of ``size`` bytes; frame 0 is the lowest bit of the first byte, in either byte order."""
    raw = bytearray(size)
    for frame in frames:
        raw[frame // 8] |= 1 << frame % 8
    return bytes(raw)


def flattened(records: Sequence[tuple[int, bytes]], *, end: bytes = struct.pack(">qq", -1, -1)) -> bytes:
    """A makedumpfile -F stream of these (offset, content) records, in this order."""
    head = struct.pack(">16sqq", b"makedumpfile", 1, 1).ljust(4096, b"\0")
    return head + b"".join(struct.pack(">qq", at, len(content)) + content for at, content in records) + end
