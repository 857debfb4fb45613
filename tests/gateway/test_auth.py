"""Who asks."""

import hashlib

import msgspec
import pytest

from cortexd.config.schema import (
    Account,
    CalendarWindow,
    Entitlements,
    FixedWindow,
    Key,
    RequestCap,
    RollingWindow,
    TokenCap,
)
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.gateway.auth import ANONYMOUS_PRINCIPAL, Keyring, Principal, caps_of
from cortexd.ledger.cap_windows import HELD, calendar, fixed, rolling
from cortexd.ledger.entries import Cap, account_scope, key_scope


def key(text: str, account_id: str, key_id: str, hard_cap: int | None = None) -> Key:
    """A key as the configuration holds it after loading."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Key(account_id=account_id, key_id=key_id, key_sha256=digest, hard_cap=hard_cap)


ENTITLEMENTS = Entitlements(
    require_auth=True,
    accounts=(Account("shared", 1000, RollingWindow(60)), Account("free")),
    keys=(
        key("sk-cap", "acct", "key-cap", 100),
        key("sk-open", "free", "key-open"),
        key("sk-shared", "shared", "key-shared"),
    ),
)


def who(**headers: str) -> Principal | Refusal:
    """Authenticate with headers given as keyword arguments."""
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Keyring(ENTITLEMENTS).authenticate(named)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer sk-cap"},
        {"authorization": "bearer   sk-cap "},
        {"x_api_key": "sk-cap"},
        {"authorization": "Bearer sk-cap", "x_api_key": "sk-cap"},
        {"authorization": "Bearer sk-cap", "x_api_key": ""},
        {"authorization": "Bearer ", "x_api_key": "sk-cap"},
    ],
)
def test_a_key_is_taken_from_bearer_or_x_api_key(headers: dict[str, str]) -> None:
    principal = who(**headers)
    assert isinstance(principal, Principal)
    assert (principal.account_id, principal.key_id) == ("acct", "key-cap")
    assert principal.scopes == (account_scope("acct"), key_scope("key-cap"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer sk-cap", "x_api_key": "sk-open"},
        {"authorization": "Bearer sk-wrong"},
        {"authorization": "Basic sk-cap"},
        {"authorization": "Bearer"},
        {"x_api_key": ""},
        {"x_api_key": "SK-CAP"},
    ],
)
def test_anything_else_is_a_401_in_the_words_that_clients_know(headers: dict[str, str]) -> None:
    refusal = who(**headers)
    assert isinstance(refusal, Refusal)
    assert refusal.kind is RefusalKind.INVALID_API_KEY
    assert refusal.message.startswith("Incorrect API key provided")


def test_the_refusal_never_repeats_the_key() -> None:
    refusal = who(authorization="Bearer sk-secret-typo")
    assert isinstance(refusal, Refusal)
    assert "sk-secret-typo" not in refusal.message


def test_a_principal_is_capped_by_its_own_or_its_accounts_cap() -> None:
    capped = {text: who(x_api_key=text) for text in ("sk-cap", "sk-open", "sk-shared")}
    assert {text: getattr(one, "capped", None) for text, one in capped.items()} == {
        "sk-cap": True,
        "sk-open": False,
        "sk-shared": True,
    }


def test_without_required_keys_unknown_callers_are_anonymous_and_known_ones_themselves() -> None:
    keyring = Keyring(Entitlements(require_auth=False, keys=ENTITLEMENTS.keys))
    assert keyring.authenticate({}) is ANONYMOUS_PRINCIPAL
    assert keyring.authenticate({b"x-api-key": b"placeholder"}) is ANONYMOUS_PRINCIPAL
    known = keyring.authenticate({b"x-api-key": b"sk-cap"})
    assert isinstance(known, Principal)
    assert known.key_id == "key-cap"


def test_the_ledger_is_given_every_cap_of_keys_and_accounts() -> None:
    assert set(caps_of(ENTITLEMENTS)) == {
        Cap(account_scope("shared"), 1000, rolling(60_000)),
        Cap(key_scope("key-cap"), 100),
    }


MINUTE = RollingWindow(60)


def test_the_ledger_is_given_every_kind_of_cap_and_window() -> None:
    key_with_all = Key(
        "a",
        key_id="k",
        key_sha256="0" * 64,
        caps=(
            TokenCap(1),
            TokenCap(2, MINUTE),
            TokenCap(3, FixedWindow(60)),
            TokenCap(4, CalendarWindow("week", "Europe/Berlin")),
        ),
        max_requests=(RequestCap(5, MINUTE), RequestCap(6, CalendarWindow("day"))),
        max_in_flight=7,
        shadow=True,
    )
    scope = key_scope("k")
    assert tuple(caps_of(Entitlements(keys=(key_with_all,)))) == (
        Cap(scope, 1, shadow=True),
        Cap(scope, 2, rolling(60_000), shadow=True),
        Cap(scope, 3, fixed(60_000), shadow=True),
        Cap(scope, 4, calendar("week", "Europe/Berlin"), shadow=True),
        Cap(scope, 5, rolling(60_000), "req", shadow=True),
        Cap(scope, 6, calendar("day", "UTC"), "req", shadow=True),
        Cap(scope, 7, HELD, "con", shadow=True),
    )


@pytest.mark.parametrize(
    ("account", "of_key", "capped", "limited"),
    [
        (Account("a"), {}, False, False),
        (Account("a", caps=(TokenCap(1),)), {}, True, True),
        (Account("a", caps=(TokenCap(1),), shadow=True), {}, False, False),
        (Account("a", caps=(TokenCap(1),)), {"shadow": True, "hard_cap": 5}, True, True),
        (Account("a"), {"shadow": True, "hard_cap": 5}, False, False),
        (Account("a"), {"max_in_flight": 1}, False, True),
        (Account("a"), {"max_in_flight": 1, "shadow": True}, False, False),
        (Account("a", max_requests=(RequestCap(1, MINUTE),)), {}, False, True),
    ],
)
def test_only_caps_that_refuse_count_for_who_is_capped(
    account: Account, of_key: dict[str, object], capped: bool, limited: bool
) -> None:
    one = msgspec.structs.replace(key("sk", "a", "k"), **of_key)
    principal = Keyring(Entitlements(True, (account,), (one,))).authenticate({b"x-api-key": b"sk"})
    assert isinstance(principal, Principal)
    assert (principal.capped, principal.limited) == (capped, limited)


def test_a_principal_carries_what_was_said_of_its_key() -> None:
    plain = key("sk-1", "a", "k1")
    clamped = msgspec.structs.replace(
        key("sk-2", "a", "k2"), over_cap="clamp", min_output=7, models=("m",)
    )
    keyring = Keyring(Entitlements(True, keys=(plain, clamped)))
    found = [keyring.authenticate({b"x-api-key": text}) for text in (b"sk-1", b"sk-2")]
    assert [getattr(one, "min_output", "") for one in found] == [None, 7]
    assert [getattr(one, "models", "") for one in found] == [None, ("m",)]
