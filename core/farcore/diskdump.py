"""The headers of a kdump-compressed dump, as makedumpfile, QEMU and diskdump write them.

struct disk_dump_header and kdump_sub_header (makedumpfile 1.7.2, diskdump_mod.h) are C structures of the dumped machine:
32 or 64 bits, either byte order, and of 32 bits with off_t aligned to 4 (i386) or to 8. The file says none of it; what
makes sense of the first block does. Then follow two bitmaps (RAM there is, pages that were dumped) and the descriptors of
the dumped pages, in the order of their page frame numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from farcore.elf import Bits, Data
from farcore.errors import BadDumpError, FaultError
from farcore.hosts import EM_ARM, HOSTS, Host
from farcore.notes import printable
from farcore.source import Extent, Source

# The headers and descriptors start in the second block; the largest kernel page there is has 256 KiB (ppc44x).
MIN_BLOCK: Final = 512
MAX_BLOCK: Final = 256 << 10
MAX_VERSION: Final = 6
# DUMP_DH_COMPRESSED_INCOMPLETE: makedumpfile ran out of space.
INCOMPLETE: Final = 0x8

_ORDER: Final[dict[Data, str]] = {"LE": "<", "BE": ">"}
_HEADER_SIZE: Final = 512
_UTSNAME: Final = ("sysname", "nodename", "release", "version", "machine", "domainname")
_COUNTS: Final = (
    ("status", "u4"),
    ("block_size", "u4"),
    ("sub_hdr_size", "u4"),
    ("bitmap_blocks", "u4"),
    ("max_mapnr", "u4"),
    ("total_ram_blocks", "u4"),
    ("device_blocks", "u4"),
    ("written_blocks", "u4"),
    ("current_cpu", "u4"),
    ("nr_cpus", "u4"),
)
# kdump_sub_header: each field and the header version that brought it; "long" is the machine's, off_t always 64 bits.
_SUB: Final = (
    ("phys_base", "long", 0),
    ("dump_level", "u4", 1),
    ("split", "u4", 2),
    ("start_pfn", "long", 2),
    ("end_pfn", "long", 2),
    ("offset_vmcoreinfo", "u8", 3),
    ("size_vmcoreinfo", "long", 3),
    ("offset_note", "u8", 4),
    ("size_note", "long", 4),
    ("offset_eraseinfo", "u8", 5),
    ("size_eraseinfo", "long", 5),
    ("start_pfn_64", "u8", 6),
    ("end_pfn_64", "u8", 6),
    ("max_mapnr_64", "u8", 6),
)


@dataclass(frozen=True, slots=True)
class Diskdump:
    """What the headers say. Frames are page frame numbers; ``split`` is [start, end) of the frames a part of a set has.

    Addresses and sizes are checked against the file, but for what page descriptors say.
    """

    version: int
    bits: Bits
    data: Data
    machine: str
    release: str
    status: int
    block: int
    max_frame: int
    cpus: int
    # Of each of the bitmaps, in bytes; ``ram_at`` is None where there is only one.
    bitmap_size: int
    ram_at: int | None
    dumped_at: int
    descriptors_at: int
    phys_base: int = 0
    split: tuple[int, int] | None = None
    vmcoreinfo: Extent | None = None
    notes: Extent | None = None
    eraseinfo: Extent | None = None

    @property
    def host(self) -> Host | None:
        """The architecture that utsname.machine names, if it is one that is known."""
        found = next((host for host in HOSTS if self.machine in (host.name, *host.aliases)), None)
        if found is None or found.data == self.data:
            return found
        same = (each for each in HOSTS if (each.bits, each.elf32, each.elf64) == (found.bits, found.elf32, found.elf64))
        return next((each for each in same if each.data == self.data), found)

    @property
    def base(self) -> int:
        """The physical address of frame 0: arm counts frames from the start of its RAM (ARCH_PFN_OFFSET)."""
        host = self.host
        return self.phys_base if host is not None and EM_ARM in host.elf32 else 0

    @classmethod
    def read(cls, below: Source) -> Diskdump:
        """The headers; BadDumpError (diskdump) for what is none or does not fit the file; FaultError if the storage fails."""
        try:
            return _read(below)
        except FaultError as error:
            if error.kind == "unreadable":
                raise  # the storage fails, which says nothing of the dump and may end
            raise _bad(f"the headers cannot be read: {error}") from error


def _bad(why: str) -> BadDumpError:
    return BadDumpError(f"the kdump-compressed dump cannot be followed: {why}", term="diskdump")


def _aligned(fields: list[tuple[str, str]], grain: int) -> np.dtype[np.void]:
    """The C structure: fields of 8 bytes start at multiples of ``grain``, others at multiples of their size."""
    offsets, at = [], 0
    for _, kind in fields:
        size = np.dtype(kind).itemsize
        align = 1 if kind.startswith("S") else min(size, grain)
        at = -(-at // align) * align
        offsets.append(at)
        at += size
    names, kinds = zip(*fields, strict=True)
    return np.dtype({"names": names, "formats": kinds, "offsets": offsets, "itemsize": at})


def _header_type(bits: int, data: Data) -> np.dtype[np.void]:
    order, long = _ORDER[data], f"u{bits // 8}"
    fields = [("signature", "S8"), ("header_version", f"{order}u4"), *((name, "S65") for name in _UTSNAME)]
    fields += [("seconds", order + long), ("microseconds", order + long)]
    return _aligned(fields + [(name, order + kind) for name, kind in _COUNTS], bits // 8)


def _sub_type(bits: int, data: Data, grain: int, version: int) -> np.dtype[np.void]:
    order, long = _ORDER[data], f"u{bits // 8}"
    fields = [(name, order + (long if kind == "long" else kind)) for name, kind, since in _SUB if since <= version]
    return _aligned(fields, grain)


# 32 bits first: what a 64-bit header has there (the high half of tv_usec) never looks like a count of blocks.
_TYPES: Final[tuple[tuple[Bits, Data, np.dtype[np.void]], ...]] = (
    (32, "LE", _header_type(32, "LE")),
    (32, "BE", _header_type(32, "BE")),
    (64, "LE", _header_type(64, "LE")),
    (64, "BE", _header_type(64, "BE")),
)


def _read(below: Source) -> Diskdump:
    raw = bytes(below.pread(0, min(below.size, _HEADER_SIZE))).ljust(_HEADER_SIZE, b"\0")
    found = next(((bits, data, header) for bits, data, kind in _TYPES if _sane(header := np.frombuffer(raw, kind, 1)[0])), None)
    if found is None:
        raise _bad("no word size and byte order make sense of its header: it is damaged, copy it again")
    bits, data, header = found
    block, version = int(header["block_size"]), int(header["header_version"])
    machine = printable(bytes(header["machine"]).split(b"\0", 1)[0])
    is_kdump = raw.startswith(b"KDUMP   ")
    # i386 (and m68k) alone align 64 bits to 4 bytes.
    grain = 4 if bits == 32 and data == "LE" and not machine.startswith(("arm", "mips")) else 8
    sub: dict[str, int] = {}
    if is_kdump:
        kind = _sub_type(bits, data, grain, version)
        fields = np.frombuffer(below.pread(block, kind.itemsize), kind, 1)[0]
        sub = {name: int(fields[name]) for name in kind.names or ()}
    max_frame = sub.get("max_mapnr_64", int(header["max_mapnr"]))
    bitmaps_at = block * (1 + int(header["sub_hdr_size"]))
    bitmaps = block * int(header["bitmap_blocks"])
    one = -(-max_frame // 8)
    both = 2 * -(-one // block) * block <= bitmaps
    dumped_at = bitmaps_at + bitmaps // 2 if both else bitmaps_at
    if one > bitmaps:
        raise _bad(f"{max_frame:,} page frames do not fit its bitmaps of {bitmaps:,} bytes")
    # Not up to the end of their last block: makedumpfile ends the part of a set that has no page before it.
    if dumped_at + one > below.size:
        raise _bad(f"its bitmaps end at byte {dumped_at + one:,}, and the file has {below.size:,}: copy it again")
    return Diskdump(
        version=version,
        bits=bits,
        data=data,
        machine=machine,
        release=printable(bytes(header["release"]).split(b"\0", 1)[0]),
        status=int(header["status"]),
        block=block,
        max_frame=max_frame,
        cpus=int(header["nr_cpus"]),
        bitmap_size=one,
        ram_at=bitmaps_at if both else None,
        dumped_at=dumped_at,
        descriptors_at=bitmaps_at + bitmaps,
        phys_base=sub.get("phys_base", 0),
        split=_split(sub, max_frame),
        vmcoreinfo=_extent(sub, "vmcoreinfo", below.size),
        notes=_extent(sub, "note", below.size),
        eraseinfo=_extent(sub, "eraseinfo", below.size),
    )


def _sane(header: np.void) -> bool:
    block = int(header["block_size"])
    return (
        0 <= int(header["header_version"]) <= MAX_VERSION
        and MIN_BLOCK <= block <= MAX_BLOCK
        and block & (block - 1) == 0
        and 0 < int(header["sub_hdr_size"]) < 1 << 24
        and 0 < int(header["bitmap_blocks"]) < 1 << 31
    )


def _split(sub: dict[str, int], max_frame: int) -> tuple[int, int] | None:
    if not sub.get("split"):
        return None
    start, end = (sub.get(f"{name}_64", sub[name]) for name in ("start_pfn", "end_pfn"))
    if not start <= end <= max_frame:
        raise _bad(f"it is the part of a set from page frame {start:,} to {end:,}, of {max_frame:,} in all")
    return start, end


def _extent(sub: dict[str, int], name: str, size: int) -> Extent | None:
    offset, length = sub.get(f"offset_{name}", 0), sub.get(f"size_{name}", 0)
    if not (offset and length) or offset >= size:
        return None
    return Extent(offset, min(length, size - offset))
