"""Who asks: from request headers to a principal, or a 401.

Keys are known only by their SHA-256. The digest of what was presented is looked up, so the time
taken says nothing about a key's text; the comparison after it is constant-time all the same.
"""

import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from cortexd.config.schema import (
    Account,
    BalanceWindow,
    CalendarWindow,
    Entitlements,
    FixedWindow,
    Key,
    RollingWindow,
    Window,
)
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.fleet.outgoing import NO_LINES, HeaderLines, header_lines
from cortexd.ledger.cap_windows import BALANCE, HELD, CapWindow, calendar, fixed, rolling
from cortexd.ledger.entries import ANONYMOUS, Cap, Scope, account_scope, key_scope

PRINCIPAL_HEADERS = (b"x-helexa-account-id", b"x-helexa-key-id")


class Principal(msgspec.Struct, frozen=True):
    """Whose request it is, and what was said of this caller. `scopes` are charged together.

    `capped`: a cap on tokens may refuse it; `limited`: a cap of any kind may. Shadows refuse
    nothing. `models`: ids or aliases that it may use; None: all. `min_output`: the least output
    tokens of a request that is clamped to what is left; None: it is refused instead. `weight`: its
    share where requests wait for a model. `neuron_headers`: what neurons are told of who asks. Both
    ids are None for an anonymous caller.
    """

    account_id: str | None
    key_id: str | None
    scopes: tuple[Scope, ...]
    capped: bool
    limited: bool
    models: tuple[str, ...] | None = None
    min_output: int | None = None
    weight: float = 1
    neuron_headers: HeaderLines = NO_LINES


ANONYMOUS_PRINCIPAL = Principal(None, None, (ANONYMOUS,), capped=False, limited=False)


class Keyring:
    """All keys of the configuration, by digest."""

    def __init__(self, entitlements: Entitlements) -> None:
        """Take the keys; `require_auth` decides what an unknown or missing key means."""
        enforced = [cap for cap in caps_of(entitlements) if not cap.shadow]
        limited = {cap.scope for cap in enforced}
        capped = {cap.scope for cap in enforced if cap.unit == "tok"}
        self._open = not entitlements.require_auth
        self._principals: dict[bytes, tuple[bytes, Principal]] = {}
        for key in entitlements.keys:
            key_id = key.key_id or key.account_id
            digest = bytes.fromhex(key.key_sha256 or "")
            scopes = (account_scope(key.account_id), key_scope(key_id))
            principal = Principal(
                key.account_id,
                key_id,
                scopes,
                capped=not capped.isdisjoint(scopes),
                limited=not limited.isdisjoint(scopes),
                models=key.models,
                min_output=key.min_output if key.over_cap == "clamp" else None,
                weight=key.weight,
                neuron_headers=header_lines(
                    (name, value.encode())
                    for name, value in zip(PRINCIPAL_HEADERS, (key.account_id, key_id), strict=True)
                ),
            )
            self._principals[digest] = (digest, principal)

    def authenticate(self, headers: Mapping[bytes, bytes]) -> Principal | Refusal:
        """The principal of a request from `Authorization: Bearer` or `x-api-key`.

        Two different keys are refused. Where authentication is not required, no key and unknown
        keys (the placeholders that many tools insist on) are the anonymous principal.
        """
        # Environment variables that are set and empty become headers that are.
        bearer = _bearer(headers.get(b"authorization")) or None
        api_key = headers.get(b"x-api-key") or None
        if bearer is not None and api_key is not None and not hmac.compare_digest(bearer, api_key):
            return _unauthorized("Authorization and x-api-key hold two different keys; send one.")
        presented = bearer if bearer is not None else api_key
        principal = self._find(presented) if presented else None
        if principal is not None:
            return principal
        if self._open:
            return ANONYMOUS_PRINCIPAL
        if not presented:
            return _unauthorized(
                "no API key was sent. Send it as Authorization: Bearer KEY or as x-api-key: KEY."
            )
        return _unauthorized("this key is not known here.")

    def _find(self, presented: bytes) -> Principal | None:
        digest = hashlib.sha256(presented).digest()
        known, principal = self._principals.get(digest, (b"", None))
        return principal if hmac.compare_digest(known, digest) else None


def caps_of(entitlements: Entitlements) -> Sequence[Cap]:
    """Every cap of the configuration, as the ledger keeps them."""
    named: list[tuple[Scope, Account | Key]] = [
        *((account_scope(account.account_id), account) for account in entitlements.accounts),
        *((key_scope(key.key_id or key.account_id), key) for key in entitlements.keys),
    ]
    return tuple(cap for scope, owner in named for cap in _caps_of(scope, owner))


def _caps_of(scope: Scope, owner: Account | Key) -> Iterator[Cap]:
    for tokens in owner.token_caps:
        yield Cap(scope, tokens.hard_cap, cap_window(tokens.window), shadow=owner.shadow)
    for requests in owner.max_requests:
        yield Cap(scope, requests.count, cap_window(requests.window), "req", owner.shadow)
    if owner.max_in_flight is not None:
        yield Cap(scope, owner.max_in_flight, HELD, "con", owner.shadow)


def cap_window(window: Window) -> CapWindow:
    """A window of the configuration as the ledger keeps it."""
    match window:
        case BalanceWindow():
            return BALANCE
        case RollingWindow():
            return rolling(window.window_ms)
        case FixedWindow():
            return fixed(window.window_ms)
        case CalendarWindow():
            return calendar(window.period, window.time_zone)


def _bearer(authorization: bytes | None) -> bytes | None:
    if authorization is None:
        return None
    if authorization.startswith(b"Bearer "):  # as nearly everybody writes it
        return authorization[7:].strip()
    scheme, _, credential = authorization.strip().partition(b" ")
    return credential.strip() if scheme.lower() == b"bearer" else None


def _unauthorized(why: str) -> Refusal:
    return Refusal(RefusalKind.INVALID_API_KEY, f"Incorrect API key provided: {why}")
