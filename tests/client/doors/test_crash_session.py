"""What a crash is answered, word for word as remote.c of crash 8.0.6 reads it, and what is no crash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore_client.doors.crash.machine import Machine
from farcore_client.doors.crash.requests import MAX_REQUEST, Read, Registers, Requests, Word
from farcore_client.doors.crash.session import MAX_READ, Session, Stop, Wanted
from farcore_client.errors import ProtocolError

STOP = Stop(0xFFFFFFFF9326C62F, 0xFFFFCE4640013C10, 0x10)
X86 = Machine("X86_64", 2, 4096, registers=True)


def session(machine: Machine = X86) -> Session:
    return Session(machine, 1 << 20, {0: STOP}.get)


def answered(*requests: bytes, machine: Machine = X86) -> list[bytes | Wanted]:
    one = session(machine)
    return [one.answer(request) for request in Requests().feed(b"".join(request + b"\0" for request in requests))]


def test_a_session_opens_in_the_paused_form() -> None:
    asked = [
        b"NIL",
        b"MACHINE_PID",
        b"TYPE /farcore",
        b"OPEN /farcore",
        b"OPEN /dev/vmem",
        b"PAGESIZE NIL",
        b"CLOSE 5",
        b"EXIT",
    ]
    assert answered(*asked) == [
        b"NIL P\0",
        b"MACHINE_PID X86_64 1\0",
        b"TYPE /farcore DEVMEM\0",
        b"OPEN /farcore 5 O_RDONLY 1048576\0",
        b"OPEN /dev/vmem 6 O_RDONLY 1048576\0",
        b"PAGESIZE NIL 4096 farcore 2\0",
        b"CLOSE 5 OK\0",
        b"EXIT OK\0",
    ]


def test_a_machine_whose_registers_crash_finds_itself_has_no_name() -> None:
    assert answered(b"PAGESIZE NIL", machine=Machine("ARM64", 2, 65536, registers=False)) == [b"PAGESIZE NIL 65536\0"]


def test_memory_comes_behind_a_head_of_thirteen_bytes() -> None:
    assert answered(b"READ_LIVE 5 1000 8", b"READ_LIVE 6 ffffffff82a0b000 8 1") == [
        Wanted("physical", 0x1000, 8),
        Wanted("virtual", 0xFFFFFFFF82A0B000, 8),
    ]
    assert session().supply(memoryview(b"abcdefgh")) == b"DONE 0000008\0abcdefgh"
    assert session().supply(None) == b"FAIL 5\0"


def test_reads_have_a_limit_and_a_file() -> None:
    asked = [f"READ_LIVE {fd} 0 {length}".encode() for fd, length in ((5, MAX_READ), (5, MAX_READ + 1), (5, 0), (7, 8))]
    assert answered(*asked) == [Wanted("physical", 0, MAX_READ), b"FAIL 22\0", b"FAIL 22\0", b"FAIL 9\0"]


def test_registers_are_those_of_the_cpu_and_no_others() -> None:
    known = b"FETCH_LIVE_IP_SP_BP 0 10:ffffffff9326c62f 18:ffffce4640013c10 10\0"
    assert answered(b"FETCH_LIVE_IP_SP_BP 0", b"FETCH_LIVE_IP_SP_BP 1") == [known, b"<FAIL>\0"]


@pytest.mark.parametrize(
    "request_",
    [b"EXECUTE 1500 id", b"WRITE_LIVE 5 0 8", b"READ /etc/passwd 0 8", b"LINUX_VERSION /x", b"FIND_MODULE x", b"", b" "],
)
def test_nothing_else_is_done(request_: bytes) -> None:
    assert answered(request_) == [b"<FAIL>\0"]


def test_requests_are_cut_wherever_they_are_split() -> None:
    sent = b"NIL\0READ_LIVE 5 ff 4096\0FETCH_LIVE_IP_SP_BP 1\0"
    for size in range(1, len(sent)):
        requests = Requests()
        found = [one for at in range(0, len(sent), size) for one in requests.feed(sent[at : at + size])]
        assert found == [Word("NIL", ""), Read(5, 0xFF, 4096), Registers(1)]


def test_a_request_has_a_longest_length() -> None:
    assert Requests().feed(b"x" * MAX_REQUEST + b"\0") == [Word("x" * MAX_REQUEST, "")]
    for sent in (b"x" * (MAX_REQUEST + 1), b"x" * (MAX_REQUEST + 1) + b"\0"):
        with pytest.raises(ProtocolError, match="no crash"):
            Requests().feed(sent)


@given(st.lists(st.binary(max_size=400), max_size=8))
def test_any_bytes_are_answered_or_refused(pieces: list[bytes]) -> None:
    one, requests = session(), Requests()
    try:
        found = [request for piece in pieces for request in requests.feed(piece)]
    except ProtocolError:
        return
    for request in found:
        answer = one.answer(request)
        if isinstance(answer, Wanted):
            assert answer.length <= MAX_READ
        else:
            assert answer.endswith(b"\0")
            assert len(answer) <= MAX_REQUEST + 64
