from __future__ import annotations

import struct
from xml.etree import ElementTree

import pytest

from farcore.elf import Elf
from farcore.source import BytesSource
from farcore.space import PhysicalSpace
from farcore_client.doors import memory
from farcore_client.doors.gdb.connection import Connection
from farcore_client.doors.gdb.packets import MAX_PACKET, packet
from farcore_client.doors.gdb.session import Session
from farcore_client.errors import ProtocolError
from farcore_client.target import Target
from tests.elfwriter import Dump, Segment, load, note

# gdb's manual, "i386 Features": the first 24 of a 64-bit g packet, and where struct user_regs_struct has them.
GENERAL = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip eflags cs ss ds es fs gs"
KERNEL = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
ORDER, PLACES = GENERAL.split(), KERNEL.split()
BASE = 0xFFFF888000000000
CONTENT = bytes(range(256)) * 32
VMCOREINFO = b"OSRELEASE=6.1.0-test\nKERNELOFFSET=1e000000\nCRASHTIME=1700000000\n"


def prstatus(pid: int, first: int) -> bytes:
    desc = bytearray(336)
    struct.pack_into("<i", desc, 32, pid)
    struct.pack_into("<27Q", desc, 112, *(first + place for place in range(27)))
    return bytes(desc)


def target(*segments: Segment, machine: int = 62) -> Target:
    source = BytesSource(Dump(list(segments), machine=machine).tobytes())
    return Target.open(source, PhysicalSpace(source, Elf.open(source)))


def session() -> Session:
    """Two CPUs; 8 KiB of memory at BASE, physically at 0x1000, of which the second page was left out... but for its half."""
    cpus = note(("CORE", 1, prstatus(7, 0x1000)), ("CORE", 1, prstatus(0, 0x2000)), ("VMCOREINFO", 0, VMCOREINFO))
    memory_of = load(CONTENT[:0x1800], paddr=0x1000, vaddr=BASE, memsz=0x2000)
    panicked = load(struct.pack("<iI", 1, 0), paddr=0x9000, vaddr=BASE + 0x9000)
    opened = target(cpus, memory_of, panicked)
    return Session(opened, memory.of(opened))


def asked(one: Session, question: bytes) -> bytes:
    answer = one.answer(question)
    assert answer is not None
    return answer


def test_registers_come_in_gdbs_order_and_what_the_note_lacks_is_unavailable() -> None:
    one = session()
    everything = asked(one, b"g")
    at = 0
    for name in ORDER:
        digits = 16 if name in ORDER[:17] else 8
        value = struct.pack("<Q", 0x1000 + PLACES.index(name))[: digits // 2].hex().encode()
        assert everything[at : at + digits] == value, name
        at += digits
    assert set(everything[at : at + 8 * 20]) == {ord("x")}
    assert asked(one, b"p0") == everything[:16]
    assert asked(one, b"p18") == b"x" * 20
    assert asked(one, b"pfff").startswith(b"E")


def test_a_thread_is_a_cpu_and_its_registers_are_read_when_it_is_chosen() -> None:
    one = session()
    assert asked(one, b"qfThreadInfo") == b"m1,2"
    assert asked(one, b"qsThreadInfo") == b"l"
    assert (asked(one, b"T2"), asked(one, b"T3")) == (b"OK", b"E16")
    assert asked(one, b"Hg2") == b"OK"
    assert asked(one, b"p10") == struct.pack("<Q", 0x2000 + PLACES.index("rip")).hex().encode()
    assert asked(one, b"Hg3") == b"E16"
    assert asked(one, b"qC") == b"QC2"
    assert bytes.fromhex(asked(one, b"qThreadExtraInfo,2").decode()) == b"CPU 1"


def test_gdbs_symbols_tell_which_cpu_panicked() -> None:
    one = session()
    question = asked(one, b"qSymbol::")
    assert question == b"qSymbol:" + b"panic_cpu".hex().encode()
    answer = b"qSymbol:%x:" % (BASE + 0x9000) + question.removeprefix(b"qSymbol:")
    assert asked(one, answer) == b"OK"
    assert bytes.fromhex(asked(one, b"qThreadExtraInfo,2").decode()) == b"CPU 1 (panicked)"


def test_a_kernel_that_did_not_panic_has_nobody_to_name() -> None:
    one = session()
    question = asked(one, b"qSymbol::")
    # The word is 0xffffffff there, as PANIC_CPU_INVALID is; then gdb does not know the other symbol.
    following = asked(one, b"qSymbol:%x:" % (BASE + 0xFC) + question.removeprefix(b"qSymbol:"))
    assert following == b"qSymbol:" + b"crashing_cpu".hex().encode()
    assert asked(one, b"qSymbol::" + following.removeprefix(b"qSymbol:")) == b"OK"
    assert one.panicked is None


@pytest.mark.parametrize("words", [b"m%x,%x", b"x%x,%x"])
def test_memory_that_is_not_there_is_an_error_and_never_zeros(words: bytes) -> None:
    one = session()
    assert asked(one, words % (BASE + 0x1800, 8)) == b"E0e"
    assert asked(one, words % (BASE + 0x5000, 8)) == b"E0e"
    assert asked(one, words % (0x1000, 8)) == b"E0e"
    assert asked(one, words % ((1 << 64) - 1, 8)) == b"E0e"


def test_a_read_across_a_hole_gives_what_is_before_it() -> None:
    one = session()
    assert bytes.fromhex(asked(one, b"m%x,%x" % (BASE + 0x17F0, 0x20)).decode()) == CONTENT[0x17F0:0x1800]
    assert asked(one, b"x%x,4" % (BASE + 0x22)) == b"b" + b'"' + b"}\x03" + b"}\x04" + b"%"


def test_an_answer_never_exceeds_the_packet_size() -> None:
    big = load(b"$" * (MAX_PACKET * 2), paddr=0x1000, vaddr=BASE)
    opened = target(note(("CORE", 1, prstatus(7, 0))), big)
    one = Session(opened, memory.of(opened))
    for word in b"mx":
        assert MAX_PACKET // 2 < len(asked(one, b"%c%x,%x" % (word, BASE, MAX_PACKET * 2))) <= MAX_PACKET


def test_target_xml_is_read_in_pieces_and_the_memory_map_is_read_only() -> None:
    one = session()
    document, at = b"", 0
    while (piece := asked(one, b"qXfer:features:read:target.xml:%x,100" % at)).startswith(b"m"):
        document += piece[1:]
        at += 0x100
    document += piece[1:]
    root = ElementTree.fromstring(document.replace(b'<!DOCTYPE target SYSTEM "gdb-target.dtd">\n', b""))
    assert root.findtext("architecture") == "i386:x86-64"
    assert [each.get("name") for each in root.iter("reg")][:24] == ORDER
    told = asked(one, b"qXfer:memory-map:read::0,4000")
    regions = ElementTree.fromstring(told[1:]).findall("memory")
    assert {(each.get("type"), int(each.get("start", ""), 16), int(each.get("length", ""), 16)) for each in regions} == {
        ("rom", BASE, 0x1800),
        ("rom", BASE + 0x1800, 0x800),
        ("rom", BASE + 0x9000, 8),
    }


@pytest.mark.parametrize("question", [b"c", b"s", b"vCont;c", b"G00", b"P0=00", b"M0,1:00", b"X0,0:", b"Z0,0,1", b"C05"])
def test_what_would_run_or_write_is_told_that_the_target_is_a_crash_dump(question: bytes) -> None:
    assert asked(session(), question).startswith(b"E.The target is a crash dump")


@pytest.mark.parametrize(
    "question", [b"vMustReplyEmpty", b"vCont?", b"!", b"QThreadSuffixSupported", b"qOffsets", b"vFile:setfs:0"]
)
def test_what_is_not_known_is_answered_by_nothing(question: bytes) -> None:
    assert asked(session(), question) == b""


def test_monitor_commands_answer_in_text() -> None:
    one = session()

    def monitor(line: str) -> str:
        return bytes.fromhex(asked(one, b"qRcmd," + line.encode().hex().encode()).decode()).decode()

    assert "monitor physical ADDR LEN" in monitor("help")
    assert monitor("physical 0x1020 4") == '0000000000001020  20 21 22 23                                       !"#\n'
    assert "absent" in monitor("physical 0x100000 4")
    assert "excluded" in monitor("physical 0x2800 4")
    assert "1 to 4096" in monitor("physical 0x1000 4097")
    assert len(monitor("physical 0x1000 4096").splitlines()) == 256
    assert "is not known here" in monitor("reboot\x1b[2J")
    assert "\x1b" not in monitor("reboot\x1b[2J")
    told = monitor("info")
    assert "6.1.0-test" in told
    assert "2023-11-14 22:13:20 UTC" in told
    assert "symbol-file VMLINUX -o 0x1e000000" in told


def test_a_machine_that_gdb_is_not_told_of_is_refused_in_a_sentence() -> None:
    opened = target(load(b"page", paddr=0), machine=8)
    with pytest.raises(ProtocolError, match="no description"):
        Session(opened, memory.of(opened))


def test_a_connection_acknowledges_until_it_is_asked_not_to_and_repeats_what_was_lost() -> None:
    connection = Connection(session())

    def sent(received: bytes) -> bytes:
        return b"".join(connection.receive(received))

    assert sent(packet(b"?")) == b"+" + packet(b"T05thread:1;")
    assert sent(b"-") == packet(b"T05thread:1;")
    assert sent(b"$?#00") == b"-"
    assert sent(packet(b"QStartNoAckMode")) == b"+" + packet(b"OK")
    assert sent(packet(b"qC") + packet(b"T1")) == packet(b"QC1") + packet(b"OK")
    assert sent(packet(b"k")) == b""
    assert connection.session.over
