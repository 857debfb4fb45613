"""The history of entries, judged without the accounts.

Owns a second opinion: what was reserved and charged is added up here by itself, in the plainest
way, so that one mistake cannot be in both. Refuses to know how the accounts do it, and to repair
anything.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import assert_never

from cortexd.ledger.cap_windows import CapWindow, Unit
from cortexd.ledger.entries import (
    AMOUNT_MAX,
    CloseEntry,
    DropEntry,
    Entry,
    GhostEntry,
    HoldEntry,
    LimitBooks,
    LimitEntry,
    LimitId,
    ReservationId,
    RollEntry,
    Scope,
    Snapshot,
)
from cortexd.ledger.meanings import BrokenInvariant

_SHORTEST_HOURS = {"day": 22, "week": 166, "month": 670}
"""Hours of a civil period in which a zone moves its clocks forward, by two hours at most."""


class _Judged:
    """One cap: what was charged under it and when, one by one."""

    __slots__ = (
        "_spent",
        "begins_ms",
        "charges",
        "hard_cap",
        "is_enforced",
        "not_before_ms",
        "unit",
        "window",
    )

    def __init__(self, hard_cap: int, window: CapWindow, unit: Unit) -> None:
        self.hard_cap = hard_cap
        self.window = window
        self.unit = unit
        self.is_enforced = True
        self.begins_ms = self.not_before_ms = 0
        self.charges: deque[tuple[int, int]] = deque()
        self._spent = 0

    def cost(self, tokens: int) -> int:
        return tokens if self.unit == "tok" else 1

    def charge(self, now_ms: int, amount: int) -> None:
        self._forget(now_ms)
        self._spent += amount
        if self.window.kind == "rolling":
            self.charges.append((now_ms, amount))

    def spent_at(self, now_ms: int) -> int:
        self._forget(now_ms)
        return min(self._spent, AMOUNT_MAX)

    def begin(self, begins_ms: int) -> None:
        self.begins_ms = begins_ms
        self._spent = 0

    def _forget(self, now_ms: int) -> None:
        window = self.window
        if window.kind == "rolling":
            while self.charges and self.charges[0][0] + window.ms <= now_ms:
                self._spent -= self.charges.popleft()[1]
        elif window.kind == "fixed" and now_ms // window.ms > self.begins_ms // window.ms:
            self.begin(now_ms)


class _ScopeBooks:
    """What is known of one scope: open reservations, all that was ever spent, and its caps."""

    __slots__ = ("caps", "in_flight", "requests", "reserved", "spent")

    def __init__(self) -> None:
        self.caps: dict[LimitId, _Judged] = {}
        self.in_flight = self.reserved = 0
        self.requests = self.spent = 0

    def in_use(self, cap: _Judged, now_ms: int) -> int:
        """What counts against `cap`: charges, and what open reservations keep."""
        held = {"tok": self.reserved, "req": 0, "con": self.in_flight}[cap.unit]
        return cap.spent_at(now_ms) + held

    def hold(self, tokens: int) -> None:
        self.reserved += tokens
        self.in_flight += 1


class _Open:
    """An open reservation. `until_ms`: when it is charged if its owner is dead."""

    __slots__ = ("books", "tokens", "until_ms")

    def __init__(
        self, tokens: int, books: Sequence[_ScopeBooks], until_ms: int | None = None
    ) -> None:
        self.tokens = tokens
        self.books = books
        self.until_ms = until_ms


class History:
    """Follows entries one by one from a snapshot, and judges each by those before it."""

    def __init__(self, start: Snapshot | None = None) -> None:
        self._now_ms = 0
        self._next = 1
        self._open: dict[ReservationId, _Open] = {}
        self._scopes: defaultdict[Scope, _ScopeBooks] = defaultdict(_ScopeBooks)
        self._caps: dict[LimitId, _Judged] = {}
        if start is not None:
            self._begin(start)

    def follow(self, entry: Entry) -> None:
        """Judge `entry` and take it in. Raises BrokenInvariant."""
        if entry.t < self._now_ms:
            raise BrokenInvariant("I12", f"time runs from {self._now_ms} back to {entry.t}")
        self._now_ms = entry.t
        match entry:
            case HoldEntry():
                self._hold(entry)
            case CloseEntry():
                self._close(entry)
            case GhostEntry():
                self._ghost(entry)
            case LimitEntry():
                self._limit(entry)
            case DropEntry():
                if entry.l in self._caps:
                    self._caps[entry.l].is_enforced = False
            case RollEntry():
                self._roll(entry)
            case _:
                pass  # moves no tokens

    def _begin(self, start: Snapshot) -> None:
        self._now_ms = start.t
        self._next = start.next
        for scope, lifetime in start.life:
            self._scopes[scope].spent = lifetime.tokens
            self._scopes[scope].requests = lifetime.requests
        for found in start.holds:
            books = [self._scopes[scope] for scope in found.scopes]
            self._open[found.reservation_id] = _Open(found.tokens, books, found.ghost_until_ms)
            for one in books:
                one.hold(found.tokens)
        for limit in start.limits:
            self._add(limit.limit_id, limit.scope, _judged(limit))

    def _hold(self, entry: HoldEntry) -> None:
        if entry.i != self._next:
            raise BrokenInvariant("I12", f"reservation {entry.i} where {self._next} comes next")
        tokens = entry.a
        books = [self._scopes[scope] for scope in entry.w]
        for one in books:
            for name, cap in one.caps.items():
                used = one.in_use(cap, entry.t)
                if used + cap.cost(tokens) > cap.hard_cap and cap.is_enforced:
                    raise BrokenInvariant(
                        "I1",
                        f"reservation {entry.i} of {tokens} tokens on {name}, of whose cap of "
                        f"{cap.hard_cap} as much as {used} was in use",
                    )
        self._next = entry.i + 1
        self._open[entry.i] = _Open(tokens, books)
        for one in books:
            one.hold(tokens)
            one.requests += 1
            for cap in one.caps.values():
                if cap.unit == "req":
                    cap.charge(entry.t, 1)

    def _close(self, entry: CloseEntry) -> None:
        held = self._open.pop(entry.i, None)
        if held is None:
            raise BrokenInvariant("I10", f"reservation {entry.i} is closed but is not open")
        if entry.y == "crash" and (held.until_ms is None or entry.t < held.until_ms):
            raise BrokenInvariant("I9", f"reservation {entry.i} is charged before its grace ended")
        wrong = _disagreement(entry, held.tokens)
        if wrong:
            raise BrokenInvariant("I13", f"reservation {entry.i} of {held.tokens} tokens {wrong}")
        for one in held.books:
            one.reserved -= held.tokens
            one.in_flight -= 1
            one.spent += entry.a
            for cap in one.caps.values():
                if cap.unit == "tok":
                    cap.charge(entry.t, entry.a)

    def _ghost(self, entry: GhostEntry) -> None:
        held = self._open.get(entry.i)
        if held is None or held.until_ms is not None:
            raise BrokenInvariant("I9", f"reservation {entry.i} cannot be given a grace")
        held.until_ms = entry.x

    def _limit(self, entry: LimitEntry) -> None:
        cap = self._caps.get(entry.l)
        if cap is None:
            cap = self._new(entry)
            self._add(entry.l, entry.s, cap)
        cap.hard_cap = entry.c
        cap.is_enforced = not entry.h

    def _new(self, entry: LimitEntry) -> _Judged:
        """A cap that was never there: a balance knows the past, others what a window remembers."""
        books = self._scopes[entry.s]
        cap = _Judged(entry.c, entry.window, entry.u)
        if entry.m == "balance":
            cap.charge(entry.t, books.requests if entry.u == "req" else books.spent)
            return cap
        cap.begin(entry.t)
        cap.not_before_ms = entry.r
        kin = [
            one
            for one in books.caps.values()
            if (one.window.kind, one.unit) == ("rolling", entry.u)
        ]
        kin.sort(key=lambda one: one.window.ms)
        long_enough = [one for one in kin if one.window.ms >= entry.v > 0]
        for one in (long_enough or kin[-1:])[:1]:
            one.spent_at(entry.t)
            for stamp, amount in one.charges:
                if entry.m == "rolling" or stamp >= _begin_of(entry):
                    cap.charge(stamp if entry.m == "rolling" else entry.t, amount)
        return cap

    def _roll(self, entry: RollEntry) -> None:
        cap = self._caps.get(entry.l)
        if cap is None or cap.window.period == "":
            raise BrokenInvariant("I21", f"{entry.l} has no civil periods")
        least_ms = _SHORTEST_HOURS[cap.window.period] * 3_600_000 * 9 // 10
        if entry.t < cap.not_before_ms or entry.r - cap.not_before_ms < least_ms:
            raise BrokenInvariant(
                "I21",
                f"{entry.l} begins a period at {entry.t} and may begin another at {entry.r}, but "
                f"this one not before {cap.not_before_ms}",
            )
        cap.begin(entry.t)
        cap.not_before_ms = entry.r

    def _add(self, name: LimitId, scope: Scope, cap: _Judged) -> None:
        self._caps[name] = self._scopes[scope].caps[name] = cap


def _begin_of(entry: LimitEntry) -> int:
    return entry.b if entry.m == "calendar" else entry.t - entry.t % entry.v


def _judged(found: LimitBooks) -> _Judged:
    cap = _Judged(found.hard_cap, found.window, found.unit)
    cap.is_enforced = not found.retired and not found.shadow
    cap.begin(found.books.begins_ms)
    cap.not_before_ms = found.books.not_before_ms
    cap.charge(found.books.begins_ms, found.books.spent)
    for stamp, amount in found.books.charges:
        cap.charge(stamp, amount)
    return cap


def _disagreement(entry: CloseEntry, reserved: int) -> str:
    """What is wrong with a charge, given the reason for it; "" if nothing is."""
    match entry.y:
        case "settle" | "abort" | "failed":
            agrees = True
        case "release":
            agrees = not entry.a
        case "crash" | "unknown":
            agrees = entry.a == reserved
        case "cut" | "unmetered":
            agrees = entry.a >= reserved
        case _:
            assert_never(entry.y)
    if not agrees:
        return f"is charged {entry.a} ({entry.y})"
    # Larger numbers than the books can hold are written down as the largest.
    parts = entry.p + entry.o
    if parts not in (0, entry.a) and max(entry.a, entry.p, entry.o) < AMOUNT_MAX:
        return f"is charged {entry.a}, but {entry.p} for the prompt and {entry.o} for the output"
    return ""
