"""JSON of the wire is read without trust."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore_client.fields import Fields

SAID: dict[str, Any] = {
    "name": "a\x1bb",
    "size": 12,
    "huge": "0x20000000000000",
    "yes": True,
    "list": [1, "x\n", {"a": 1}, None],
    "deep": {"down": {"text": "t"}},
    "pairs": {"K\x07": "V\x07", "number": 1},
}


def test_members_are_found_by_path_and_text_is_made_printable() -> None:
    fields = Fields(SAID)
    assert (fields.text("name"), fields.text("deep", "down", "text")) == ("a\\x1bb", "t")
    assert (fields.number("size"), fields.number("huge"), fields.truth("yes")) == (12, 1 << 53, True)
    assert fields.texts("list") == ["x\\n"]
    assert [one.number("a") for one in fields.several("list")] == [1]
    assert fields.pairs("pairs") == {"K\\x07": "V\\x07"}


def test_what_is_missing_or_of_another_type_is_empty() -> None:
    fields = Fields(SAID)
    assert [fields.text("none"), fields.text("size"), fields.text("name", "below"), fields.text("deep")] == [""] * 4
    assert [fields.number("yes"), fields.number("name"), fields.number("list"), fields.truth("size")] == [None] * 4
    assert [fields.texts("name"), fields.several("deep"), fields.several("none")] == [[]] * 3
    assert fields.pairs("list") == {}


@pytest.mark.parametrize(
    ("value", "read"), [(0, 0), (-1, None), (1.5, None), ((1 << 128) - 1, (1 << 128) - 1), (1 << 128, None)]
)
def test_a_count_is_an_integer_of_at_most_128_bits(value: object, read: int | None) -> None:
    assert Fields({"n": value}).number("n") == read


@pytest.mark.parametrize("text", ["12", "0X1", "0x", "0xg", "-0x1", "0x" + "f" * 33, "0x1 "])
def test_a_string_is_a_number_only_in_the_form_of_the_wire(text: str) -> None:
    assert Fields({"n": text}).number("n") is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=2), inner),
)


@given(st.dictionaries(st.sampled_from(["a", "b"]), ANYTHING))
def test_no_json_makes_it_fail(said: dict[str, Any]) -> None:
    fields = Fields(said)
    for path in (("a",), ("a", "b"), ("c",)):
        assert isinstance(fields.text(*path), str)
        assert isinstance(fields.number(*path), int | None)
        assert isinstance(fields.truth(*path), bool | None)
        assert all(isinstance(one, str) for one in [*fields.texts(*path), *fields.pairs(*path)])
        assert all(isinstance(one, Fields) for one in fields.several(*path))
