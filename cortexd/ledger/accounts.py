"""The books: who has reserved and spent what, and whether more may be reserved.

Owns the ledger's state machine and its invariants. Refuses to know disks, tasks, clocks (every
decision is told the time) and configuration files. Its words are in `entries.py`, the caps in
`limit_table.py`, the arithmetic of one in `limits.py`, `windows.py` and `periods.py`, the table of
reservations in `reservations.py`.
"""

# Theory of operation
# ===================
#
# There are two kinds of method, and the line between them is the design.
#
# 1) *Decisions* (reserve, settle, configure, roll, ghosts, tick, learn, mark) look at the state and
#    return the entries that should happen, and an answer. They never change anything (what limits
#    a scope has is looked up once), so a decision that is thrown away (disk dead) never was.
#
# 2) `apply` takes one entry and changes the state. It is the only thing that does. Entries carry
#    every fact that matters (time, number, scopes, amounts), so that applying the same entries
#    again gives the same state, whatever the configuration or the code has become since. Replay
#    after a restart is `load(snapshot)` and then `apply` for each journalled entry, nothing else.
#
# The owner's turn is: decide, apply, journal, (sync), answer; then the next decision, which sees
# the first one's effect. Two decisions on the same state would each spend the same room.
#
# The life of a reservation:
#
#              reserve                      settle
#    (none) ------------> open ---------------------------------------> closed, charged
#                           \                                             ^
#                            \ ghosts (at recovery)      tick (deadline) /
#                             `-------------> ghost --------------------'  "crash", in full
#
# - An open reservation counts in full against every cap of its scopes, however old it is. In a
#   running process its owner always closes it, so it has no deadline of its own: one that expired
#   while tokens still flowed would let them age out of their window.
# - A ghost is a reservation whose owner died with its process. The neuron may go on for a while,
#   so it stays reserved for a grace and is then charged in full. Another crash meanwhile does not
#   give it another grace. It is never released.
# - A charge counts from the moment of settling (`windows.py` says why).
# - Closing what is not open answers `Unknown` and changes nothing.
#
# The life of a cap:
#
#    limit:  none -> enforced, or another amount.    drop:  enforced -> retired.
#
# - A scope has any number of caps, one for each unit and window; a request has to fit under all of
#   them, on all of its scopes, or nothing is reserved. A changed window is another cap.
# - Books outlive caps. A retired cap admits everything but is still charged; when it comes back it
#   goes on where it would have been. A new balance begins with all that the scope ever spent: a
#   balance is a promise about the total, so that is the only beginning under which it is kept, and
#   "remove the cap, add it again" is no way to reset it. A new window of another kind begins with
#   what a rolling window on the same scope remembers of its time, else empty. Open reservations
#   count under a new cap at once. A shadow cap differs from a retired one in that it is asked.
# - A civil period ends by the wall clock, so its next one is a decision (`roll`) and an entry.
# - A cap lowered below what is used takes nothing back; it admits nothing until there is room.
#
# Admission is judged twice by the same rule: when a reservation is decided, and again when its
# entry is applied, live and on replay, *before* it is added. So `apply` raises outright on a `hold`
# that does not fit, without forbidding the states that are legal above a cap: after a cap was
# lowered, after a new cap met open reservations, or after an engine used more than was reserved.
# In all of these nothing more is admitted, and that is all that the rule says.
#
# Nothing that a client or a neuron sends may raise here. Amounts beyond 2**53 - 1 are taken as
# that; negative ones, and scopes named twice, are bugs of ours and raise ValueError.

from collections.abc import Iterable
from typing import Self, assert_never

from cortexd.ledger.cap_windows import BALANCE, Unit
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import (
    AMOUNT_MAX,
    Cap,
    CloseEntry,
    DropEntry,
    Entry,
    GhostEntry,
    Granted,
    HoldEntry,
    LearnEntry,
    Lifetime,
    LimitEntry,
    MarkEntry,
    ModelLabel,
    OpenReservation,
    Refused,
    ReservationId,
    RollEntry,
    Scope,
    Settled,
    Snapshot,
    Standing,
    Totals,
    Unknown,
    model_label,
    request_label,
)
from cortexd.ledger.lifetimes import Counters, CountersOn, count_charge
from cortexd.ledger.limit_table import LimitTable
from cortexd.ledger.limits import clamped, refusal
from cortexd.ledger.reservations import IllegalEntry, Reservations
from cortexd.ledger.windows import BUCKETS

LEARNED_MODELS_MAX = 4096
"""How many models' template tokens are remembered; names come from neurons, so there is an end."""

MODEL_LABEL_LENGTH_MAX = 512
"""Longest (quoted) model name for which template tokens are remembered."""


class BrokenBooks(Exception):
    """An invariant of the books does not hold: a bug, or a snapshot that was tampered with."""


class Accounts:
    """All scopes, caps, reservations and counters.

    `now_ms`: ledger time of the last entry; decisions asked for at an earlier time are made then.
    `buckets`: grains of a rolling window, the same in every life of a ledger (tests use few).
    """

    def __init__(self, *, buckets: int = BUCKETS) -> None:
        self.now_ms = 0
        self._limits = LimitTable(buckets=buckets)
        self._reservations = Reservations()
        self._counters: dict[Scope, Counters] = {}
        self._counters_on = CountersOn(self._counters)
        self._template_tokens: dict[ModelLabel, int] = {}

    # Decisions: they return entries to apply, and change nothing.

    def reserve(
        self,
        now_ms: int,
        scopes: tuple[Scope, ...],
        tokens: int,
        *,
        least: int | None = None,
        step: int = 1,
        request_id: str = "",
    ) -> tuple[tuple[HoldEntry, ...], Granted | Refused]:
        """Reserve `tokens` on all of `scopes` or on none.

        Returns one entry and `Granted`, or none and the refusal that lasts longest. Scopes without
        a cap admit everything, and are counted. `least`: where `tokens` do not fit, reserve what is
        left, but not fewer than these, and more only in steps of `step`. `request_id`: for people;
        any text.
        """
        if not scopes or len(set(scopes)) != len(scopes):
            raise ValueError(f"scopes {scopes!r}")
        now_ms = max(now_ms, self.now_ms)
        tokens = _amount(tokens)
        limits = self._limits.on[scopes]
        refused = refusal(limits.enforcing, now_ms, tokens)
        if refused is not None and least is not None and least < tokens:
            least = _amount(least)
            tokens = clamped(limits.enforcing, now_ms, tokens, least=least, step=step)
            refused = refusal(limits.enforcing, now_ms, tokens)
        if refused is not None:
            return (), refused
        reservation_id = ReservationId(self._reservations.next_id)
        entry = HoldEntry(now_ms, reservation_id, scopes, tokens, request_label(request_id))
        asked = tokens if least is None else min(tokens, least)
        return (entry,), Granted(reservation_id, tokens, refusal(limits.shadows, now_ms, asked))

    def settle(
        self, now_ms: int, reservation_id: ReservationId, charge: Charge
    ) -> tuple[tuple[CloseEntry, ...], Settled | Unknown]:
        """Close a reservation and charge it, which for a `release` is nothing.

        Only once no neuron works on it any more. More than was reserved is charged as it is and
        reported as overrun.
        """
        found = self._reservations.get(reservation_id)
        if found is None:
            return (), Unknown(reservation_id)
        tokens = _amount(charge.tokens)
        entry = CloseEntry(
            max(now_ms, self.now_ms),
            reservation_id,
            tokens,
            charge.why,
            _amount(charge.prompt_tokens),
            _amount(charge.completion_tokens),
        )
        return (entry,), Settled(reservation_id, found.w, tokens, max(0, tokens - found.a))

    def configure(
        self, now_ms: int, caps: Iterable[Cap], *, wall_ms: int | None = None
    ) -> tuple[LimitEntry | DropEntry, ...]:
        """Make `caps` the ones that are enforced. `wall_ms`: for civil periods; None: `now_ms`."""
        now_ms = max(now_ms, self.now_ms)
        wall_ms = now_ms if wall_ms is None else wall_ms
        return self._limits.configure(caps, now_ms=now_ms, wall_ms=wall_ms)

    def roll(self, now_ms: int, wall_ms: int) -> tuple[RollEntry, ...]:
        """Begin the civil periods that are due; to be asked before every reservation."""
        return self._limits.rolls(max(now_ms, self.now_ms), wall_ms)

    def foresee(self, *, wall_ahead_ms: int) -> None:
        """How far the wall clock is ahead of ledger time: for forecasts of civil periods alone."""
        self._limits.foresee(wall_ahead_ms=wall_ahead_ms)

    def ghosts(self, now_ms: int, grace_ms: int) -> tuple[GhostEntry, ...]:
        """At recovery: make every reservation that a dead process left open a ghost for a grace."""
        now_ms = max(now_ms, self.now_ms)
        return tuple(
            GhostEntry(now_ms, found.reservation_id, now_ms + grace_ms)
            for found in self._reservations.owned()
        )

    def tick(self, now_ms: int) -> tuple[CloseEntry, ...]:
        """Charge in full every ghost whose grace is over."""
        now_ms = max(now_ms, self.now_ms)
        return tuple(
            CloseEntry(now_ms, found.reservation_id, found.tokens, "crash")
            for found in self._reservations.due(now_ms)
        )

    def learn(self, now_ms: int, model: str, tokens: int) -> tuple[LearnEntry, ...]:
        """Remember that `model` was seen to add `tokens` template tokens, if that is news."""
        label = model_label(model)
        known = self._template_tokens.get(label)
        if tokens <= (known or 0) or len(label) > MODEL_LABEL_LENGTH_MAX:
            return ()
        if known is None and len(self._template_tokens) >= LEARNED_MODELS_MAX:
            return ()
        return (LearnEntry(max(now_ms, self.now_ms), label, _amount(tokens)),)

    def mark(self, now_ms: int) -> tuple[MarkEntry, ...]:
        """Nothing, said aloud, for the journal's watermark."""
        return (MarkEntry(max(now_ms, self.now_ms)),)

    # Questions.

    @property
    def buckets(self) -> int:
        """Grains of a rolling window, as given at the beginning."""
        return self._limits.buckets

    @property
    def open_reservations(self) -> int:
        """How many reservations are open, ghosts included."""
        return len(self._reservations)

    @property
    def unresolved_tokens(self) -> int:
        """Tokens that ghosts keep reserved."""
        return self._reservations.ghost_tokens()

    def reservations(self) -> tuple[OpenReservation, ...]:
        """Every open reservation, the oldest first."""
        return self._reservations.every()

    def standings(self, scopes: tuple[Scope, ...], now_ms: int) -> tuple[Standing, ...]:
        """How the caps on `scopes` that are asked for stand, in that order."""
        now_ms = max(now_ms, self.now_ms)
        return tuple([limit.standing(now_ms) for limit in self._limits.on[scopes].asked_for])

    def lifetime(self, scope: Scope) -> Lifetime:
        """Counters of `scope` since its first request."""
        counters = self._counters.get(scope)
        return Lifetime() if counters is None else counters.lifetime()

    def totals(self, scope: Scope) -> Totals:
        """What `scope` has spent and reserved, whether or not it has a cap."""
        return Totals(self.lifetime(scope).tokens, self._reservations.tokens_on(scope))

    def template_tokens(self, model: str) -> int:
        """The most template tokens that `model` was seen to add; 0 when nothing was learned."""
        return self._template_tokens.get(model_label(model), 0)

    def next_deadline(self) -> int | None:
        """Ledger time at which `tick` has something to do; None if never."""
        return self._reservations.next_deadline()

    # The one way to change anything.

    def apply(self, entry: Entry) -> None:
        """Let `entry` happen. Raises IllegalEntry, and changes nothing, if it cannot."""
        if entry.t < self.now_ms:
            raise IllegalEntry(f"time runs backwards from {self.now_ms} to {entry.t}")
        # By type, as nearly all are one of the first two: a class pattern costs a replay 6 %.
        if type(entry) is HoldEntry:
            self._apply_hold(entry)
        elif type(entry) is CloseEntry:
            self._apply_close(entry)
        else:
            match entry:
                case LimitEntry():
                    self._apply_limit(entry)
                case DropEntry():
                    self._limits.apply_drop(entry)
                case RollEntry():
                    self._limits.apply_roll(entry)
                case GhostEntry():
                    self._reservations.haunt(entry.i, entry.x)
                case LearnEntry():
                    self._apply_learn(entry)
                case MarkEntry():
                    pass
                case _:
                    assert_never(entry)
        self.now_ms = entry.t

    def _apply_hold(self, entry: HoldEntry) -> None:
        now_ms, scopes, tokens = entry.t, entry.w, entry.a
        limits = self._limits.on[scopes]
        for limit in limits.enforcing:
            if not limit.fits(now_ms, tokens):
                raise IllegalEntry(f"{entry} does not fit {limit.standing(now_ms)}")
        self._reservations.add(entry)
        for limit in limits.every:
            limit.hold(now_ms, tokens)
        for counters in self._counters_on[scopes]:
            counters.requests += 1

    def _apply_close(self, entry: CloseEntry) -> None:
        held = self._reservations.remove(entry.i)
        now_ms, scopes, reserved, charged = entry.t, held.w, held.a, entry.a
        for limit in self._limits.on[scopes].every:
            limit.close(now_ms, reserved, charged)
        count_charge(self._counters_on[scopes], entry, reserved=reserved)

    def _apply_limit(self, entry: LimitEntry) -> None:
        self._limits.apply_limit(
            entry,
            spent_ever=self._spent_ever(entry.s, entry.u),
            reservations=self._reservations.on(entry.s),
        )

    def _apply_learn(self, entry: LearnEntry) -> None:
        if entry.a <= self._template_tokens.get(entry.m, 0):
            raise IllegalEntry(f"template tokens of {entry.m} would shrink to {entry.a}")
        self._template_tokens[entry.m] = entry.a

    def _spent_ever(self, scope: Scope, unit: Unit) -> int:
        lifetime = self.lifetime(scope)
        return lifetime.requests if unit == "req" else lifetime.tokens

    # Snapshots.

    def dump(self) -> Snapshot:
        """The whole state, in canonical order and without what no longer counts."""
        return Snapshot(
            t=self.now_ms,
            next=self._reservations.next_id,
            limits=tuple(limit.books(self.now_ms) for limit in self._limits.every()),
            holds=self._reservations.every(),
            life=tuple((scope, self.lifetime(scope)) for scope in sorted(self._counters)),
            learned=tuple(sorted(self._template_tokens.items())),
        )

    @classmethod
    def load(cls, snapshot: Snapshot, *, buckets: int = BUCKETS) -> Self:
        """Undo `dump`. Raises BrokenBooks for a snapshot that no `dump` can have made."""
        accounts = cls(buckets=buckets)
        accounts.now_ms = snapshot.t
        accounts._reservations = Reservations(snapshot.next, snapshot.holds)
        for books in snapshot.limits:
            if not books.window.makes_sense:
                raise BrokenBooks(f"a window that cannot be: {books}")
            accounts._limits.restore(books, accounts._reservations.on(books.scope))
        accounts._counters.update((scope, Counters(counted)) for scope, counted in snapshot.life)
        accounts._template_tokens = dict(snapshot.learned)
        accounts.check()
        if accounts.dump() != snapshot:
            raise BrokenBooks("the snapshot is not canonical")
        return accounts

    def check(self) -> None:
        """Add everything up afresh. Raises BrokenBooks, naming what does not agree."""
        for limit in self._limits.every():
            wrong = limit.check()
            if wrong is not None:
                raise BrokenBooks(f"{limit.limit_id}: {wrong}")
            reserved = limit.reserved_by(self._reservations.on(limit.scope))
            if limit.reserved != reserved:
                raise BrokenBooks(f"{limit.limit_id}: {limit.reserved} reserved, not {reserved}")
            spent, ever = (
                limit.window.spent_at(self.now_ms),
                self._spent_ever(limit.scope, limit.unit),
            )
            if limit.window.window == BALANCE and spent != ever:
                raise BrokenBooks(f"{limit.limit_id}: a balance of {spent}, but {ever} were spent")
        last = 0
        for found in self._reservations.every():
            if not last < found.reservation_id < self._reservations.next_id:
                raise BrokenBooks(f"reservation {found.reservation_id} is out of order")
            if not self._counters.keys() >= set(found.scopes):
                raise BrokenBooks(f"reservation {found.reservation_id} was never counted")
            last = found.reservation_id


def _amount(tokens: int) -> int:
    if tokens < 0:
        raise ValueError(f"an amount of {tokens} tokens")
    return tokens if tokens < AMOUNT_MAX else AMOUNT_MAX
