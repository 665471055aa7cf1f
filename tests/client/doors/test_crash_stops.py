"""Where a CPU stopped: what on a stack decides, and what is answered where nothing does. tests/tools has whole backtraces."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest

from farcore.elf import Elf
from farcore.source import BytesSource
from farcore.space import PhysicalSpace
from farcore_client.doors import memory
from farcore_client.doors.crash import stops
from farcore_client.doors.crash.landmarks import Landmarks
from farcore_client.doors.crash.session import Stop
from farcore_client.doors.crash.stops import Stops, at_once
from farcore_client.target import Target
from tests.elfwriter import Dump, load, note

STACK = 0xFFFF888000010000
KEXEC, PANIC, OTHER = 0xFFFFFFFF81001000, 0xFFFFFFFF81002000, 0xFFFFFFFF81003000
LANDMARKS = Landmarks(
    np.array([KEXEC, PANIC, OTHER], np.uint64), {"machine_kexec": KEXEC, "panic": PANIC}, {}, 0xFFFFFFFF81004000
)


def status(rip: int, rsp: int) -> bytes:
    """An NT_PRSTATUS: pr_reg is at byte 112, rip its 17th word and rsp its 20th (struct user_regs_struct)."""
    content = bytearray(336)
    struct.pack_into("<Q", content, 112 + 16 * 8, rip)
    struct.pack_into("<Q", content, 112 + 19 * 8, rsp)
    return bytes(content)


def target(words: dict[int, int], rsp: int = STACK + 0x3E00) -> Target:
    """A dump of one CPU, whose stack is 16 KiB at STACK with these words at these places."""
    stack = bytearray(16 << 10)
    for place, word in words.items():
        struct.pack_into("<Q", stack, place, word)
    dump = Dump([note(("CORE", 1, status(OTHER + 4, rsp))), load(bytes(stack), paddr=0x10000, vaddr=STACK)])
    source = BytesSource(dump.tobytes())
    return Target.open(source, PhysicalSpace(source, Elf.open(source)))


def found(words: dict[int, int], landmarks: Landmarks | None = LANDMARKS) -> Stop | None:
    over = target(words)
    return Stops(over, memory.of(over), landmarks)(0)


@pytest.mark.parametrize(
    ("words", "stop"),
    [
        # The lowest slot with machine_kexec, whatever of panic is below or above it.
        ({0x100: PANIC + 5, 0x200: KEXEC + 9, 0x300: KEXEC + 1, 0x400: PANIC}, Stop(KEXEC + 9, STACK + 0x200)),
        # Of panic the highest: what lies below it are its own calls' leavings.
        ({0x100: PANIC + 5, 0x400: PANIC + 7}, Stop(PANIC + 7, STACK + 0x400)),
        # The start of the next function is not this one's.
        ({0x100: KEXEC - 1, 0x200: OTHER, 0x300: 0xFFFFFFFF81004000}, Stop(OTHER + 4, STACK + 0x3E00)),
    ],
)
def test_the_slot_is_that_of_the_function_that_stops_a_cpu(words: dict[int, int], stop: Stop) -> None:
    assert found(words) == stop


def test_without_symbols_it_is_what_the_notes_say() -> None:
    assert found({0x200: KEXEC + 9}, None) == Stop(OTHER + 4, STACK + 0x3E00)


def test_a_stack_that_is_not_in_the_dump_is_no_error() -> None:
    over = target({}, rsp=0xFFFF999900000010)
    assert Stops(over, memory.of(over), LANDMARKS)(0) == Stop(OTHER + 4, 0xFFFF999900000010)


@pytest.mark.parametrize("hot", [[STACK + 0x4000, 0], [0xFC00000000000000, STACK + 0x4000, 0]])
def test_of_6_2_and_later_the_stack_is_found_behind_a_call_depth_or_without_one(hot: list[int]) -> None:
    area = {0x40 + 16 + 8 * place: word for place, word in enumerate(hot)}
    # The registers are those of somewhere else; STACK is where the CPU's variables are, too.
    over = target({0: STACK, **area, 0x200: KEXEC + 9}, rsp=0xFFFF999900000010)
    landmarks = replace(LANDMARKS, variables={"__per_cpu_offset": STACK, "pcpu_hot": 0x40})
    assert Stops(over, memory.of(over), landmarks)(0) == Stop(KEXEC + 9, STACK + 0x200)


def test_a_cpu_that_is_not_in_the_dump_has_no_place() -> None:
    over = target({})
    known = Stops(over, memory.of(over), LANDMARKS)
    assert [known(cpu) for cpu in (-1, 1, 1 << 40)] == [None, None, None]


def test_die_counts_unless_sysrq_lies_above_it() -> None:
    die, sysrq = Stop(1, 8), Stop(2, 16)
    assert at_once([("die", die)], {}) == die
    later: dict[str, Stop] = {}
    assert at_once([("die", die), ("sysrq_handle_crash", sysrq)], later) is None
    assert later["sysrq_handle_crash"] == sysrq


def test_no_vmlinux_is_no_landmarks() -> None:
    assert stops.of(target({}), None).landmarks is None
