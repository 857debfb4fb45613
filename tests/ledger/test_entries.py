"""Names in the journal's alphabet, and entries that refuse to be read as something else."""

from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.ledger.cap_windows import BALANCE, rolling
from cortexd.ledger.entries import (
    AMOUNT_MAX,
    ANONYMOUS,
    REQUEST_LABEL_LENGTH_MAX,
    Entry,
    HoldEntry,
    LimitEntry,
    MarkEntry,
    ReservationId,
    Standing,
    account_scope,
    key_scope,
    limit_id,
    model_label,
    request_label,
    scope_words,
)

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=40)
decode = msgspec.json.Decoder(Entry).decode


def _is_safe(name: str) -> bool:
    """No byte is one bit away from NUL, and none has a meaning in a line of the journal."""
    data = name.encode("ascii")
    return not any(byte & (byte - 1) == 0 for byte in data) and not set(data) & set(b'"\\\t\n')


def test_plain_ids_stay_readable() -> None:
    assert key_scope("ci") == "key:ci"
    assert account_scope("acme") == "acct:acme"
    assert limit_id(key_scope("ci")) == "key:ci/tok/balance"
    assert model_label("Qwen/Qwen3-8B:Q4") == "Qwen/Qwen3-8B:Q4"
    assert request_label("req-0a.1_Z") == "req-0a.1_Z"


def test_ids_that_would_collide_with_the_structure_of_a_scope_are_quoted() -> None:
    assert key_scope("a/b:c d@e%") == "key:a%2Fb%3Ac%20d%40e%25"


@given(ANY_TEXT)
def test_no_name_leaves_the_alphabet_of_the_journal(text: str) -> None:
    for name in (key_scope(text), account_scope(text), model_label(text), request_label(text)):
        assert _is_safe(name)


@given(ANY_TEXT, ANY_TEXT)
def test_different_ids_are_different_scopes(one: str, other: str) -> None:
    assert (key_scope(one) == key_scope(other)) == (one == other)
    assert len({key_scope(one), account_scope(one), ANONYMOUS}) == 3


@given(ANY_TEXT, ANY_TEXT)
def test_different_models_have_different_labels(one: str, other: str) -> None:
    assert (model_label(one) == model_label(other)) == (one == other)


@given(ANY_TEXT)
def test_a_scope_can_be_said_in_the_words_of_its_operator(text: str) -> None:
    assert scope_words(key_scope(text)) == ("key", text)
    assert scope_words(account_scope(text)) == ("account", text)
    assert scope_words(ANONYMOUS) == ("anonymous", "")


def test_a_model_is_spelled_as_urls_spell_it_but_for_slashes_and_colons() -> None:
    """A label that came out otherwise than before would be another model to an older journal."""
    for code in range(256):
        name = f"org/{chr(code)}:1"
        assert model_label(name) == quote(name, safe="/:")


@given(st.text(max_size=400))
def test_a_request_label_is_bounded_whatever_the_client_sent(request_id: str) -> None:
    assert len(request_label(request_id)) <= REQUEST_LABEL_LENGTH_MAX


def test_available_is_never_negative() -> None:
    standing = Standing(ANONYMOUS, 100, BALANCE, 90, 30, None)
    assert standing.available == 0
    assert msgspec.structs.replace(standing, reserved=3).available == 7


def test_entries_are_spelt_with_the_short_names_of_format_1() -> None:
    hold = HoldEntry(5, ReservationId(3), (account_scope("acme"), key_scope("ci")), 4300, "r1")
    assert msgspec.json.encode(hold) == (
        b'{"k":"hold","t":5,"i":3,"w":["acct:acme","key:ci"],"a":4300,"rid":"r1"}'
    )
    name = limit_id(key_scope("ci"), rolling(3600))
    limit = LimitEntry(5, name, key_scope("ci"), "tok", "rolling", 50, 3600)
    assert msgspec.json.encode(limit) == (
        b'{"k":"limit","t":5,"l":"key:ci/tok/rolling:3600","s":"key:ci","u":"tok","m":"rolling",'
        b'"c":50,"v":3600}'
    )
    assert msgspec.json.encode(MarkEntry(5)) == b'{"k":"mark","t":5}'


@pytest.mark.parametrize(
    "line",
    [
        b'{"k":"grant","t":1,"g":"x","a":5}',
        b'{"k":"mark","t":1,"z":0}',
        b'{"k":"mark"}',
        b'{"k":"mark","t":-1}',
        b'{"k":"mark","t":1.5}',
        b'{"k":"close","t":1,"i":1,"a":1,"y":"gift"}',
        b'{"k":"close","t":1,"i":1,"a":-1,"y":"settle"}',
        b'{"k":"hold","t":1,"i":1,"w":["key:ci"],"a":%d}' % (AMOUNT_MAX + 1),
        b'{"k":"limit","t":1,"l":"key:ci/req","s":"key:ci","u":"gpu","m":"balance","c":1}',
        b'{"k":"limit","t":1,"l":"key:ci/tok","s":"key:ci","u":"tok","m":"hourly","c":1,"v":9}',
    ],
)
def test_an_unknown_kind_field_or_value_is_refused(line: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(line)
