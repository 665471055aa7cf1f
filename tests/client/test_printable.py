"""What servers and dumps say does nothing to a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore_client.printable import printable, readable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("vmcore 2026, café 漢字", "vmcore 2026, café 漢字"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\r\nb\tc\x7f\0", "a\\r\\nb\\tc\\x7f\\x00"),
        ("abc\u202efed", "abc\\u202efed"),
        ("\u2066\u200b\u2028\ufeff", "\\u2066\\u200b\\u2028\\ufeff"),
        ("\ud800", "\\ud800"),
        ("[red]no markup[/red] :smile:", "[red]no markup[/red] :smile:"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped_and_the_rest_stays(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_no_control_format_or_surrogate_character_is_left(text: str) -> None:
    assert {unicodedata.category(one) for one in printable(text)}.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (100_930_715, "96.3 MiB"),
        (3 << 40, "3.0 TiB"),
        (1 << 64, "16.0 EiB"),
        (1 << 80, "1,048,576.0 EiB"),
    ],
)
def test_a_size_is_readable(size: int, shown: str) -> None:
    assert readable(size) == shown
