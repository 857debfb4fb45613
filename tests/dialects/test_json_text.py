"""Looks between the strings of JSON text."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.json_text import outside_strings, said_once

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


def test_strings_and_their_escapes_are_left_out() -> None:
    assert outside_strings(rb'{"a\\":"b\"]:,","c":[1,"{"]}') == b"{:,:[1,]}"


@pytest.mark.slow
@given(JSON)
def test_as_many_colons_stay_as_there_are_keys(value: object) -> None:
    text = json.dumps(value).encode()
    assert outside_strings(text).count(b":") == _keys(value)


def _keys(value: object) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if isinstance(value, list) else 0


@pytest.mark.slow
@given(JSON)
def test_text_without_repeated_keys_is_kept_byte_for_byte(value: object) -> None:
    text = json.dumps(value, indent=1).encode()
    raw, encoded = said_once(msgspec.Raw(text), msgspec.json.decode(text))
    assert bytes(raw) == text
    assert encoded == json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _written(value: object, space: str, *, twice: bool) -> str:
    """Write JSON in some layout, each key of an object twice or once."""
    if isinstance(value, dict):
        pairs = [(name, "0") for name in value] if twice else []
        pairs += [(name, _written(each, space, twice=twice)) for name, each in value.items()]
        inner = [f"{json.dumps(name)}{space}:{each}" for name, each in pairs]
        return "{" + f"{space},{space}".join(inner) + space + "}"
    if isinstance(value, list):
        inner = [_written(each, space, twice=twice) for each in value]
        return "[" + space + ",".join(inner) + "]"
    return json.dumps(value)


@pytest.mark.slow
@given(JSON, st.sampled_from(["", " ", "\n\t"]), st.booleans())
def test_text_goes_on_as_it_is_unless_something_is_said_twice(
    value: object, space: str, twice: bool
) -> None:
    text = _written(value, space, twice=twice).encode()
    assert msgspec.json.decode(text) == value
    raw, encoded = said_once(msgspec.Raw(text), value)
    assert encoded == msgspec.json.encode(value)
    assert bytes(raw) == (encoded if twice and _keys(value) else text)


def test_a_repeated_key_is_written_once_with_its_last_value() -> None:
    text = b'[{"content": "short", "content": "long", "x": {"y":1,"y":2}}]'
    raw, encoded = said_once(msgspec.Raw(text), msgspec.json.decode(text))
    assert bytes(raw) == encoded == b'[{"content":"long","x":{"y":2}}]'
