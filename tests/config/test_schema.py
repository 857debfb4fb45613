"""Claims about the structs: what they hide, and what their defaults are fit for."""

import hashlib

import msgspec
import pytest

from cortexd.config.check import notices_of, problems_of
from cortexd.config.schema import (
    Account,
    BalanceWindow,
    CalendarWindow,
    Catalogue,
    Config,
    FixedWindow,
    Key,
    Neuron,
    RollingWindow,
    Secret,
    TokenCap,
)


def test_a_secret_shows_itself_only_when_asked() -> None:
    neuron = Neuron("a", "http://a", api_key=Secret("sk-hush"))
    assert "sk-hush" not in f"{neuron} {neuron!r} {neuron.api_key} {[neuron.api_key]}"
    assert neuron.api_key is not None
    assert neuron.api_key.reveal() == "sk-hush"
    assert neuron.api_key.sha256() == hashlib.sha256(b"sk-hush").hexdigest()


def test_a_struct_with_a_secret_cannot_be_encoded() -> None:
    with pytest.raises(TypeError):
        msgspec.json.encode(Neuron("a", "http://a", api_key=Secret("sk-hush")))


def test_secrets_are_equal_by_text() -> None:
    assert Secret("a") == Secret("a")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"


def test_the_defaults_are_a_configuration_without_problems() -> None:
    assert problems_of(Config(), Catalogue()) == []
    assert notices_of(Config(), Catalogue()) == [
        "no neuron is configured: every request for a model will be refused"
    ]


def test_a_window_knows_its_length_in_milliseconds() -> None:
    assert FixedWindow(0.5).window_ms == 500
    assert FixedWindow(0.0001).window_ms == 1
    assert RollingWindow(3600).window_ms == 3_600_000
    assert RollingWindow(0.5).window_ms == 500
    assert RollingWindow(0.0001).window_ms == 1


def test_windows_look_on_the_wire_as_in_the_file() -> None:
    assert msgspec.json.encode(BalanceWindow()) == b'{"kind":"balance"}'
    assert msgspec.json.encode(RollingWindow(3600)) == b'{"kind":"rolling","seconds":3600}'
    assert msgspec.json.encode(FixedWindow(60)) == b'{"kind":"fixed","seconds":60}'
    written = b'{"kind":"calendar","period":"day","time_zone":"UTC"}'
    assert msgspec.json.encode(CalendarWindow("day")) == written


def test_the_caps_on_tokens_are_the_same_however_they_were_written() -> None:
    hourly = RollingWindow(3600)
    for owner in (Account, Key):
        assert owner("a").token_caps == ()
        assert owner("a", hard_cap=0).token_caps == (TokenCap(0, BalanceWindow()),)
        assert owner("a", hard_cap=5, window=hourly).token_caps == (TokenCap(5, hourly),)
        several = (TokenCap(5, hourly), TokenCap(9))
        assert owner("a", caps=several).token_caps == several
