"""The short way of crash's small reads: it says what memory has, or nothing."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from farcore.source import BytesSource
from farcore_client.doors.crash import quick
from farcore_client.doors.crash.quick import PAGE, Quick

NOISE = os.urandom(8 * PAGE + 100)
LENGTHS = st.sampled_from([1, 4, 8, 64, PAGE - 1, PAGE, PAGE + 1])
READS = st.tuples(st.integers(0, 10 * PAGE), LENGTHS)


def asked(address: int, length: int) -> bytes:
    return b"READ_LIVE 5 %x %d\0" % (address, length)


@given(st.lists(READS), st.lists(READS))
def test_an_answer_is_what_memory_has(learned: list[tuple[int, int]], reads: list[tuple[int, int]]) -> None:
    short = Quick(BytesSource(NOISE))
    for address, length in learned:
        short.learn(address, length)
    for address, length in reads:
        answer = short.answer(asked(address, length))
        assert answer in (None, b"DONE %07d\0" % length + NOISE[address : address + length])


@given(st.binary(max_size=40), st.binary(max_size=4))
def test_what_is_not_plainly_one_read_is_left_to_others(rest: bytes, behind: bytes) -> None:
    short = Quick(BytesSource(NOISE))
    short.learn(PAGE, 4)
    assert short.answer(asked(PAGE + 8, 4)) == b"DONE 0000004\0" + NOISE[PAGE + 8 : PAGE + 12]
    for received in (asked(PAGE, 4) * 2, asked(PAGE, 4)[:-1], asked(PAGE, 4) + behind + b"x", b"READ_LIVE 6 1000 4\0", rest):
        assert short.answer(received) is None
    # Memory has no such place, whatever stands there.
    answer = short.answer(b"READ_LIVE 5 " + rest)
    assert answer is None or answer[13:] in NOISE


def test_pages_that_are_kept_are_bounded() -> None:
    short = Quick(BytesSource(bytes((quick.MOST + 2) * PAGE)))
    for page in range(quick.MOST + 2):
        short.learn(page * PAGE, 4)
    assert sum(short.answer(asked(page * PAGE, 4)) is not None for page in range(quick.MOST + 2)) == 2
