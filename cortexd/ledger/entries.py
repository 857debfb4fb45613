"""The words of the ledger: scopes, caps, standings, journal entries and the ledger's answers.

Owns the shape of everything that crosses the ledger's edges, and the alphabet of names inside it.
Refuses to know rules: what an entry does to the books stands in `accounts.py`, what it looks like
as a line in `records.py`.

Amounts are tokens, integers in 0 <= amount < 2**53 (the range in which every JSON reader agrees).
Times are ledger milliseconds (the clock of `clock.py`, never a wall clock).

The alphabet matters for safety, not for beauty: a NUL byte in a segment's tail is the signature of
a torn write, so no byte in a line may be one bit away from NUL. Space and `@` are; percent-quoting
keeps them, and everything outside ASCII, out of every name by construction.
"""

import re
from typing import Annotated, Literal, NewType, TypeAlias, final
from urllib.parse import quote, unquote

import msgspec

from cortexd.ledger.cap_windows import BALANCE, CalendarPeriod, CapWindow, Unit, WindowKind

AMOUNT_MAX = 2**53 - 1
"""Largest amount in the books. Anything larger is recorded as this: no cap lies above it."""

REQUEST_LABEL_LENGTH_MAX = 128
"""A request id is kept to its first so many (quoted) characters."""

Amount: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MAX)]
"""Tokens; also a JSON schema, so that decoding a journal line checks it."""

Milliseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MAX)]
"""An instant of ledger time, or a length of it."""

Scope = NewType("Scope", str)
"""Whose money: `key:<key id>`, `acct:<account id>` or `anonymous`; ids percent-quoted."""

LimitId = NewType("LimitId", str)
"""Name of one limit in the journal: scope, unit and window, as in `key:ci/tok/rolling:60000`."""

ReservationId = NewType("ReservationId", int)
"""Number of a reservation: counts up over all lives of a ledger directory."""

ModelLabel = NewType("ModelLabel", str)
"""A model's name, percent-quoted but for `/` and `:`, as in `Qwen/Qwen3-8B`."""

Why: TypeAlias = Literal[
    "settle", "release", "cut", "abort", "failed", "unmetered", "unknown", "crash"
]
"""Why a reservation was closed with the charge it got.

`settle`: the engine's count. `release`: no work was done, nothing is charged. All others charge
what was reserved or what was seen: `cut` (ran past its output), `abort` (client gone), `failed`
(neuron failed), `unmetered` (no believable count), `unknown` (its owner said nothing), `crash` (its
owner died with its process).
"""


def key_scope(key_id: str) -> Scope:
    """Scope of one API key: `key_scope("ci bot") == "key:ci%20bot"`."""
    return Scope("key:" + _quoted(key_id))


def account_scope(account_id: str) -> Scope:
    """Scope of an account, which all of its keys share."""
    return Scope("acct:" + _quoted(account_id))


def scope_words(scope: Scope) -> tuple[str, str]:
    """A scope as people say it: `("key", id)`, `("account", id)` or `("anonymous", "")`."""
    kind, _, quoted_id = scope.partition(":")
    return ("account" if kind == "acct" else kind), unquote(quoted_id, errors="surrogatepass")


ANONYMOUS = Scope("anonymous")
"""Scope of callers without a key, where the operator allows them."""


def limit_id(scope: Scope, window: CapWindow = BALANCE, unit: Unit = "tok") -> LimitId:
    """Name of the one limit on `scope` that counts `unit` over `window`."""
    return LimitId(f"{scope}/{unit}/{window.words}")


def model_label(model: str) -> ModelLabel:
    """Spell a model's name in the alphabet of the journal; most names stay as they are."""
    if _PLAIN_MODEL.fullmatch(model):
        return ModelLabel(model)
    return ModelLabel(_quoted(model, safe="/:"))


def request_label(request_id: str) -> str:
    """Spell a request id in the alphabet of the journal; ids of `[A-Za-z0-9._-]` stay as they are.

    Total: whatever a client managed to put into its request id, the journal stays sound.
    """
    if _PLAIN_LABEL.fullmatch(request_id):
        return request_id
    return _quoted(request_id[:REQUEST_LABEL_LENGTH_MAX])[:REQUEST_LABEL_LENGTH_MAX]


_PLAIN_MODEL = re.compile(r"[A-Za-z0-9._~/:-]*")
_PLAIN_LABEL = re.compile(rf"[A-Za-z0-9._-]{{0,{REQUEST_LABEL_LENGTH_MAX}}}")


def _quoted(name: str, *, safe: str = "") -> str:
    return quote(name, safe=safe, errors="surrogatepass")


class Cap(msgspec.Struct, frozen=True):
    """A hard cap that the configuration asks for; a scope has at most one per unit and window.

    `hard_cap` counts in `unit`. `shadow`: it is kept, and says what it would have refused, but
    refuses nothing.
    """

    scope: Scope
    hard_cap: int
    window: CapWindow = BALANCE
    unit: Unit = "tok"
    shadow: bool = False

    @property
    def limit_id(self) -> LimitId:
        """Its name in the journal."""
        return limit_id(self.scope, self.window, self.unit)


class Standing(msgspec.Struct, frozen=True):
    """How one cap stands at an instant. Amounts count in `unit`.

    `restored_in_ms`: how long until nothing counts against the cap any more, if every open
    reservation were settled now and nothing else happened; None where that is never, or unknown.
    """

    scope: Scope
    hard_cap: int
    window: CapWindow
    spent: int
    reserved: int
    restored_in_ms: int | None
    unit: Unit = "tok"
    shadow: bool = False

    @property
    def window_ms(self) -> int | None:
        """Length of the window, where it is always the same."""
        return self.window.ms or None

    @property
    def available(self) -> int:
        """What could still be reserved under this cap."""
        return max(0, self.hard_cap - self.spent - self.reserved)


class Totals(msgspec.Struct, frozen=True):
    """What a scope has spent since its first request, cap or no cap, and what is reserved now."""

    spent: int
    reserved: int


class Refused(msgspec.Struct, frozen=True):
    """A reservation that was not made, and the cap that bit.

    `standing` is the cap's at the refusal; `asked` what was asked of it, in its unit. `fits_in_ms`:
    how long until the request fits under every cap, or None where waiting cannot help: a balance,
    or, when `asked > standing.hard_cap`, a request larger than the cap ever allows. `exact`: with
    nothing else happening the request is admitted then and not a millisecond sooner; False where
    open reservations are in the way, and nobody knows when they end, or where the wall clock has
    its say.
    """

    standing: Standing
    asked: int
    fits_in_ms: int | None
    exact: bool


class Granted(msgspec.Struct, frozen=True):
    """A reservation that is made as soon as its entry is applied.

    `tokens`: how many are reserved. `would_refuse`: what a shadow cap would have answered.
    """

    reservation_id: ReservationId
    tokens: int
    would_refuse: Refused | None = None


class Settled(msgspec.Struct, frozen=True):
    """A reservation that is closed as soon as its entry is applied.

    `overrun`: tokens charged beyond what was reserved (a broken promise of a neuron: report it).
    """

    reservation_id: ReservationId
    scopes: tuple[Scope, ...]
    tokens: int
    overrun: int


class Unknown(msgspec.Struct, frozen=True):
    """There is no open reservation of that number (any more): nothing was changed."""

    reservation_id: ReservationId


class _Entry(
    msgspec.Struct, frozen=True, tag_field="k", forbid_unknown_fields=True, omit_defaults=True
):
    """What all entries share. `t`: ledger time of the decision, never before an earlier entry's."""

    t: Milliseconds


@final
class HoldEntry(_Entry, frozen=True, tag="hold"):
    """A reservation `i` of `a` tokens against the scopes `w`; `rid` is the request's id."""

    i: ReservationId
    w: tuple[Scope, ...]
    a: Amount
    rid: str = ""


@final
class CloseEntry(_Entry, frozen=True, tag="close"):
    """Reservation `i` ends; `a` tokens are charged, `p` of the prompt and `o` of the output."""

    i: ReservationId
    a: Amount
    y: Why
    p: Amount = 0
    o: Amount = 0


class LimitEntry(_Entry, frozen=True, tag="limit"):
    """Limit `l` on scope `s`: cap `c` in unit `u`; window kind `m` of `v` ms, or of the civil
    periods `p` in the zone `z`. `h`: a shadow, which refuses nothing.

    A new civil limit is told its first period: begin `g` and end `e` on the wall clock, begin `b`
    in ledger time; the next does not begin before `r`.
    """

    l: LimitId  # noqa: E741 (the field names are those of journal format 2)
    s: Scope
    u: Unit
    m: WindowKind
    c: Amount
    v: Milliseconds = 0
    p: CalendarPeriod | Literal[""] = ""
    z: str = ""
    b: Milliseconds = 0
    g: Milliseconds = 0
    e: Milliseconds = 0
    r: Milliseconds = 0
    h: bool = False

    @property
    def window(self) -> CapWindow:
        """The window of the limit."""
        return CapWindow(self.m, self.v, self.p, self.z)


class RollEntry(_Entry, frozen=True, tag="roll"):
    """A civil period of limit `l` begins now; on the wall clock it lasts from `g` to `e`.

    The next does not begin before `r`.
    """

    l: LimitId  # noqa: E741
    g: Milliseconds
    e: Milliseconds
    r: Milliseconds


class DropEntry(_Entry, frozen=True, tag="drop"):
    """Limit `l` is no longer enforced; its books are kept, and kept up to date."""

    l: LimitId  # noqa: E741


class GhostEntry(_Entry, frozen=True, tag="ghost"):
    """The owner of reservation `i` died with its process; charge it in full at ledger time `x`."""

    i: ReservationId
    x: Milliseconds


class LearnEntry(_Entry, frozen=True, tag="learn"):
    """Model `m` was seen to add `a` template tokens to a prompt; only ever grows."""

    m: ModelLabel
    a: Amount


class MarkEntry(_Entry, frozen=True, tag="mark"):
    """Nothing happened; its line carries a newer durable watermark to disk."""


Entry: TypeAlias = (
    HoldEntry
    | CloseEntry
    | LimitEntry
    | DropEntry
    | RollEntry
    | GhostEntry
    | LearnEntry
    | MarkEntry
)
"""Everything that can stand in a journal. Kinds and fields are format 2 of the journal."""


class OpenReservation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One open reservation. `ghost_until_ms`: its owner is dead, and it is charged in full then."""

    reservation_id: ReservationId
    scopes: tuple[Scope, ...]
    tokens: Amount
    since_ms: Milliseconds
    request_label: str
    ghost_until_ms: Milliseconds | None


class Lifetime(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Counters of a scope since its first request; no cap, window or restart resets them.

    `requests`: reservations made. `uncertain`: the part of `tokens` that was charged by a bound or
    by what was seen, not by an engine's count. `overrun`: the part that exceeded reservations.
    """

    tokens: Amount = 0
    prompt: Amount = 0
    completion: Amount = 0
    requests: Amount = 0
    uncertain: Amount = 0
    overrun: Amount = 0


class WindowBooks(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a window remembers; which of the fields are used depends on its kind.

    `spent`: what counts (balance, fixed, calendar). `charges`: the pairs (stamp in ms, amount) that
    still count, oldest first (rolling). `begins_ms`: of the current period, in ledger time (fixed)
    or on the wall clock (calendar), as is `ends_ms`; no next one begins before `not_before_ms`.
    """

    spent: Amount = 0
    charges: tuple[tuple[Milliseconds, Amount], ...] = ()
    begins_ms: Milliseconds = 0
    ends_ms: Milliseconds = 0
    not_before_ms: Milliseconds = 0


class LimitBooks(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One limit in a snapshot. What is reserved is not kept here: the open reservations say it."""

    scope: Scope
    unit: Unit
    window: CapWindow
    hard_cap: Amount
    retired: bool
    shadow: bool
    books: WindowBooks

    @property
    def limit_id(self) -> LimitId:
        """Its name in the journal."""
        return limit_id(self.scope, self.window, self.unit)


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole state at ledger time `t`, in one canonical order: equal states, equal snapshots.

    `next`: number of the next reservation. `life`: counters by scope. `learned`: template tokens by
    model. Expired charges are not in it.
    """

    t: Milliseconds
    next: Amount
    limits: tuple[LimitBooks, ...]
    holds: tuple[OpenReservation, ...]
    life: tuple[tuple[Scope, Lifetime], ...]
    learned: tuple[tuple[ModelLabel, Amount], ...]
