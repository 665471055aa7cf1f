"""The notes of a dump: who wrote each, its type, its bytes.

They are followed as fs/proc/vmcore.c does (update_note_header_size_elf64): name and desc are padded to 4 bytes in either
class, whatever p_align says (8 is only .note.gnu.property's), and n_namesz 0 ends a PT_NOTE, because the kernel leaves the
unused rest of a CPU's note buffer zeroed. What cannot be followed ends its PT_NOTE with a warning; what came before is kept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from farcore.elf import Data, Elf
from farcore.errors import BadDumpError, FaultError
from farcore.source import Extent, Source

# Limits on what a file's own words can cost. 4,096 CPUs have 1.5 MB of PRSTATUS, and on s390x ten notes each.
MAX_NOTES: Final = 1 << 16
# Read from the source in all: 4 KiB a CPU for 4,096 of them, three times what QEMU writes for one of s390x.
MAX_BYTES: Final = 16 << 20
# Kept of one desc: four times SME's ZA, the longest register note. A device dump (NT_VMCOREDD) is longer and comes
# before everything else in /proc/vmcore, so the rest of a long desc is stepped over, unread.
MAX_DESC: Final = 256 << 10
# Writers' names have 4 to 15 bytes: a longer one means that these are no notes.
MAX_NAME: Final = 256
# A file can have 65,536 broken PT_NOTEs: the first sentences tell the story.
MAX_WARNINGS: Final = 8

_HEADER: Final[dict[Data, struct.Struct]] = {"LE": struct.Struct("<3I"), "BE": struct.Struct(">3I")}
# One round trip's worth for a remote source, and all the notes of a few dozen CPUs.
_PIECE: Final = 64 << 10

NT_PRSTATUS: Final = 1
NT_FPREGSET: Final = 2
NT_PRPSINFO: Final = 3
NT_TASKSTRUCT: Final = 4
NT_VMCOREDD: Final = 0x700
XEN_ELFNOTE_CRASH_INFO: Final = 0x1000001
XEN_ELFNOTE_CRASH_REGS: Final = 0x1000002

# include/uapi/linux/elf.h. The numbers do not overlap between machines, and QEMU writes CORE where Linux writes LINUX.
_LINUX: Final = {
    NT_PRSTATUS: "NT_PRSTATUS",
    NT_FPREGSET: "NT_FPREGSET",
    NT_PRPSINFO: "NT_PRPSINFO",
    NT_TASKSTRUCT: "NT_TASKSTRUCT",
    6: "NT_AUXV",
    0x100: "NT_PPC_VMX",
    0x101: "NT_PPC_SPE",
    0x102: "NT_PPC_VSX",
    0x200: "NT_386_TLS",
    0x201: "NT_386_IOPERM",
    0x202: "NT_X86_XSTATE",
    0x300: "NT_S390_HIGH_GPRS",
    0x301: "NT_S390_TIMER",
    0x302: "NT_S390_TODCMP",
    0x303: "NT_S390_TODPREG",
    0x304: "NT_S390_CTRS",
    0x305: "NT_S390_PREFIX",
    0x306: "NT_S390_LAST_BREAK",
    0x307: "NT_S390_SYSTEM_CALL",
    0x308: "NT_S390_TDB",
    0x309: "NT_S390_VXRS_LOW",
    0x30A: "NT_S390_VXRS_HIGH",
    0x30B: "NT_S390_GS_CB",
    0x30C: "NT_S390_GS_BC",
    0x400: "NT_ARM_VFP",
    0x401: "NT_ARM_TLS",
    0x402: "NT_ARM_HW_BREAK",
    0x403: "NT_ARM_HW_WATCH",
    0x404: "NT_ARM_SYSTEM_CALL",
    0x405: "NT_ARM_SVE",
    0x406: "NT_ARM_PAC_MASK",
    NT_VMCOREDD: "NT_VMCOREDD",
    0x900: "NT_RISCV_CSR",
}
_XEN: Final = {XEN_ELFNOTE_CRASH_INFO: "XEN_ELFNOTE_CRASH_INFO", XEN_ELFNOTE_CRASH_REGS: "XEN_ELFNOTE_CRASH_REGS"}
# Owners of one kind of note, always type 0, which no tool has a name for.
_ONLY: Final = {
    "VMCOREINFO": "Linux vmcoreinfo",
    "VMCOREINFO_XEN": "Xen vmcoreinfo",
    "QEMU": "QEMU CPU state",
    "ERASEINFO": "makedumpfile eraseinfo",
}


@dataclass(frozen=True, slots=True)
class Note:
    """One note: its owner's ``name`` (``printable``, without the NUL), n_type, and its desc's first MAX_DESC bytes."""

    name: str
    type: int
    desc: bytes
    unread: int = 0

    @property
    def size(self) -> int:
        """n_descsz in bytes, those left ``unread`` past MAX_DESC included."""
        return len(self.desc) + self.unread

    @property
    def is_prstatus(self) -> bool:
        """Whether this is a CPU's NT_PRSTATUS: its general registers when it stopped."""
        return self.name == "CORE" and self.type == NT_PRSTATUS


@dataclass(frozen=True, slots=True)
class Notes:
    """What could be read, in file order, and one sentence for each thing that could not (MAX_WARNINGS of them and a count)."""

    notes: tuple[Note, ...]
    warnings: tuple[str, ...]
    # Where they lie in the source: each PT_NOTE up to the end of its last note that could be followed.
    extents: tuple[Extent, ...] = ()


def read(source: Source, elf: Elf) -> Notes:
    """All notes of all PT_NOTEs; at most MAX_BYTES are read. Damage is a warning; only SourceChangedError passes through."""
    reader = _Reader(source)
    found: list[Note] = []
    warnings: list[str] = []
    extents: list[Extent] = []
    segments = elf.notes[["offset", "filesz"]]
    for offset, size in segments[:MAX_NOTES].tolist():
        end = min(offset + size, source.size)
        problem, followed = None, offset
        try:
            for note, after in _walk(reader, offset, end, elf.header.data):
                if len(found) == MAX_NOTES:
                    raise reader.stop(f"there are more than {MAX_NOTES:,} notes")
                found.append(note)
                followed = min(after, end)
        except (BadDumpError, FaultError) as error:
            problem = str(error)
        if followed > offset:
            extents.append(Extent(offset, followed - offset))
        if missing := min(size, offset + size - end):
            problem = f"{missing:,} of the {size:,} bytes of the PT_NOTE at byte {offset:,} are past the end of the file"
        if problem is not None:
            warnings.append(f"{problem}; the notes before that were kept")
        if reader.stopped:
            break
    if len(segments) > MAX_NOTES:
        warnings.append(f"only the first {MAX_NOTES:,} of {len(segments):,} PT_NOTEs were read")
    if len(warnings) > MAX_WARNINGS:
        warnings[MAX_WARNINGS:] = [f"{len(warnings) - MAX_WARNINGS:,} more PT_NOTEs could not be read to their end"]
    return Notes(tuple(found), tuple(warnings), tuple(extents))


def type_name(note: Note) -> str:
    """The type as ``readelf -n`` names it (NT_PRSTATUS), what the note is where it has no name, else the number in hex."""
    if note.name in _ONLY:
        return _ONLY[note.name]
    names = _LINUX if note.name in ("CORE", "LINUX") else _XEN if note.name == "Xen" else {}
    return names.get(note.type, f"{note.type:#x}")


def printable(raw: bytes) -> str:
    r"""Text that is safe on a terminal: printable ASCII as it is, any other byte and the backslash escaped (\x1b, \\)."""
    return raw.decode("latin-1").encode("unicode_escape").decode("ascii")


class _Reader:
    """Pieces of the source, read ahead, and never more than MAX_BYTES of them in all."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.stopped = False
        self._left = MAX_BYTES
        self._start = 0
        self._piece = memoryview(b"")

    def stop(self, why: str) -> BadDumpError:
        """The error to raise when a limit that counts over all PT_NOTEs is reached."""
        self.stopped = True
        return BadDumpError(why, term="notes")

    def take(self, offset: int, length: int, end: int) -> bytes:
        """``length`` bytes at ``offset``; reads ahead, but not past ``end``."""
        at = offset - self._start
        if at < 0 or at + length > len(self._piece):
            at = 0
            try:
                self._fetch(offset, min(max(length, _PIECE), max(self._left, length), end - offset))
            except FaultError:
                # One bad sector must not cost the notes in front of it.
                self._fetch(offset, length)
        return bytes(self._piece[at : at + length])

    def _fetch(self, offset: int, length: int) -> None:
        if length > self._left:
            raise self.stop(f"the notes need more than {MAX_BYTES:,} bytes read")
        self._left -= length
        self._piece, self._start = self.source.pread(offset, length), offset


def _walk(reader: _Reader, at: int, end: int, data: Data) -> Iterator[tuple[Note, int]]:
    """The notes of one PT_NOTE, [at, end) of the file, each with where the next begins; BadDumpError for one that is broken."""
    header = _HEADER[data]
    while at + header.size <= end:
        namesz, descsz, kind = header.unpack(reader.take(at, header.size, end))
        if namesz == 0:
            return
        name_at = at + header.size
        desc_at = name_at + _padded(namesz)
        if desc_at + descsz > end:
            raise BadDumpError(
                f"the note at byte {at:,} (a name of {namesz:,} bytes, a desc of {descsz:,}) runs past its PT_NOTE",
                term="notes",
            )
        if namesz > MAX_NAME:
            raise BadDumpError(f"the note at byte {at:,} has a name of {namesz:,} bytes: it is no note", term="notes")
        kept = min(descsz, MAX_DESC)
        content = reader.take(name_at, desc_at - name_at + kept, end)
        name = content[:namesz].split(b"\0", 1)[0]
        at = desc_at + _padded(descsz)
        yield Note(printable(name), kind, content[desc_at - name_at :], descsz - kept), at


def _padded(size: int) -> int:
    return (size + 3) & ~3
