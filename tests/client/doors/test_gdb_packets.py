from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore_client.doors.gdb.packets import MAX_PACKET, Packets, escaped, packet
from farcore_client.errors import ProtocolError


def test_a_packet_is_framed_as_the_manual_shows_it() -> None:
    # gdb's manual, "Overview": the sum is that of the content, modulo 256, in two digits.
    assert packet(b"OK") == b"$OK#9a"
    assert packet(b"") == b"$#00"
    assert Packets().feed(b"+$vMustReplyEmpty#3a") == [b"vMustReplyEmpty"]


def test_binary_bytes_that_mean_something_are_escaped() -> None:
    assert escaped(b"a}b#c$d*e") == b"a}]b}\x03c}\x04d}\ne"


@given(
    contents=st.lists(st.binary(max_size=40).map(lambda each: each.replace(b"#", b"").replace(b"$", b""))), seed=st.integers()
)
def test_packets_are_found_however_the_bytes_are_cut(contents: list[bytes], seed: int) -> None:
    rng, packets, found = random.Random(seed), Packets(), list[bytes | None]()
    stream = b"".join(rng.choice([b"", b"+", b"\x03"]) + packet(content) for content in contents)
    while stream:
        cut = rng.randint(1, len(stream))
        found += packets.feed(stream[:cut])
        stream = stream[cut:]
    assert found == contents


def test_a_wrong_sum_is_noticed_and_the_next_packet_is_not_lost() -> None:
    assert Packets().feed(b"$g#00$?#3f") == [None, b"?"]


def test_a_minus_asks_for_the_last_answer_again() -> None:
    packets = Packets()
    packets.feed(b"+")
    assert not packets.resend
    packets.feed(b"-")
    assert packets.resend


def test_a_packet_of_the_promised_size_is_taken_and_one_byte_more_is_no_gdb() -> None:
    largest = b"m" * MAX_PACKET
    assert Packets().feed(packet(largest)) == [largest]
    packets = Packets()
    with pytest.raises(ProtocolError, match="no gdb"):
        packets.feed(b"$" + largest + b"mmmm")


def test_noise_before_a_packet_is_forgotten() -> None:
    packets = Packets()
    for _ in range(100):
        assert packets.feed(b"\x03" * MAX_PACKET) == []
    assert packets.feed(b"$?#3f") == [b"?"]
