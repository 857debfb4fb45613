"""What must hold in the books whatever happens, as checks that can be run.

Owns the names of the ledger's invariants and one check for each that can be judged from accounts,
entries or segments alone (`chain.py` has what must hold between segments). The tests, the crash
simulator and `cortexd ledger verify` share them.
Refuses to know disks, and to repair anything.

The history of entries is judged without the accounts: `History` adds up what was reserved and
charged by itself, in the plainest way, so that one mistake cannot be in both. What only the world
outside can judge is not here: that tokens really consumed stay below the cap (I3), that nothing is
dispatched before it is durable (I4), that what was acknowledged is recovered after a crash and rot
is refused (I6 to I8), and that nobody is refused without need (I19).
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import Final, assert_never

import msgspec

from cortexd.ledger.accounts import Accounts, BrokenBooks
from cortexd.ledger.chain import Finding, SegmentFacts, check_chain
from cortexd.ledger.entries import (
    AMOUNT_MAX,
    CloseEntry,
    DropEntry,
    Entry,
    GhostEntry,
    Granted,
    HoldEntry,
    LimitBooks,
    LimitEntry,
    LimitId,
    Refused,
    ReservationId,
    Scope,
    Snapshot,
    limit_id,
)
from cortexd.ledger.records import Place
from cortexd.ledger.reservations import IllegalEntry
from cortexd.ledger.windows import BUCKETS

__all__ = [
    "MEANINGS",
    "BrokenInvariant",
    "Finding",
    "History",
    "SegmentFacts",
    "check_accounts",
    "check_answer",
    "check_at_rest",
    "check_cap_returned",
    "check_chain",
    "check_history",
    "check_place",
    "check_replay",
    "check_same",
]

MEANINGS: Final = {
    "I1": "no reservation is made that a cap on one of its scopes has no room for",
    "I2": "what is reserved on a cap is the sum of the open reservations; nothing is negative",
    "I5": "an entry claims no more to be durable than what stands before it",
    "I9": "a reservation whose owner died is charged after its grace, which is given once",
    "I10": "every reservation is closed exactly once, over all segments",
    "I11": "a snapshot and the entries after it say the same as all entries",
    "I12": "ledger time never runs backwards and no reservation number is used twice",
    "I13": "what is charged agrees with what was reserved and with the reason",
    "I14": "a request fits at the moment that its refusal names, and not before",
    "I15": "without a running request no reservation is open but those of dead processes",
    "I16": "every segment goes on where the one before it ends, and names it by its digest",
    "I18": "taking a cap away and bringing it back leaves what was spent as it was",
    "I20": "asking changes nothing",
}
"""Name of each invariant that is checked here -> what it says."""


class BrokenInvariant(Exception):
    """Something that must hold does not: `name` of the invariant, and `what` was found instead."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what} (what must hold: {MEANINGS[name]})")
        self.name = name
        self.what = what


# Accounts


def check_accounts(accounts: Accounts) -> None:
    """I2 and I11: the sums are sums, and a snapshot of the accounts brings the same accounts back.

    Raises BrokenInvariant, as all of these do.
    """
    try:
        accounts.check()
    except BrokenBooks as error:
        raise BrokenInvariant("I2", str(error)) from error
    try:
        read = msgspec.json.decode(msgspec.json.encode(accounts.dump()), type=Snapshot)
        Accounts.load(read, buckets=accounts.buckets)
    except (msgspec.ValidationError, BrokenBooks) as error:
        raise BrokenInvariant("I11", f"a snapshot that cannot be read back: {error}") from error


def check_at_rest(accounts: Accounts) -> None:
    """I15: for accounts for which no request is running."""
    for found in accounts.reservations():
        if found.ghost_until_ms is None:
            raise BrokenInvariant("I15", f"reservation {found.reservation_id} has no owner left")


def check_answer(accounts: Accounts, now_ms: int, scopes: tuple[Scope, ...], tokens: int) -> None:
    """I14 and I20: ask for a reservation and hold the answer against what it promises."""
    before = accounts.dump()
    now_ms = max(now_ms, accounts.now_ms)
    _, answer = accounts.reserve(now_ms, scopes, tokens)
    if isinstance(answer, Refused) and answer.exact and answer.fits_in_ms is not None:
        fits_at = now_ms + answer.fits_in_ms
        if not isinstance(accounts.reserve(fits_at, scopes, tokens)[1], Granted):
            raise BrokenInvariant("I14", f"{tokens} tokens do not fit at {fits_at}: {answer}")
        if isinstance(accounts.reserve(max(now_ms, fits_at - 1), scopes, tokens)[1], Granted):
            raise BrokenInvariant("I14", f"{tokens} tokens fit before {fits_at}: {answer}")
    if accounts.dump() != before:
        raise BrokenInvariant("I20", f"a question changed {_first(before, accounts.dump())}")


def check_cap_returned(before: Snapshot, after: Snapshot) -> None:
    """I18: between the two, caps were taken away and brought back, and nothing else happened."""
    found = {(books.scope, books.window_ms): books for books in after.limits}
    for books in before.limits:
        now = found.get((books.scope, books.window_ms))
        if now is None or (now.spent, now.charges) != (books.spent, books.charges):
            raise BrokenInvariant("I18", f"{books} became {now}")


# Entries


def check_history(entries: Iterable[Entry], start: Snapshot | None = None) -> None:
    """I1, I9, I10, I12 and I13, for entries that follow each other from `start` (None: nothing)."""
    history = History(start)
    for entry in entries:
        history.follow(entry)


def check_replay(
    start: Snapshot, entries: Iterable[Entry], end: Snapshot, *, buckets: int = BUCKETS
) -> None:
    """I11: `entries` turn the state `start` into the state `end`."""
    accounts = Accounts.load(start, buckets=buckets)
    for entry in entries:
        try:
            accounts.apply(entry)
        except IllegalEntry as error:
            raise BrokenInvariant("I11", f"entries that cannot follow: {error}") from error
    check_same(accounts.dump(), end)


def check_same(replayed: Snapshot, end: Snapshot) -> None:
    """I11: what the entries add up to is what a snapshot says."""
    if replayed != end:
        raise BrokenInvariant("I11", _first(replayed, end))


def check_place(before: Place, place: Place) -> None:
    """I16 and I5: an entry at `place` may follow the one at `before`."""
    if place.n != before.n + 1:
        raise BrokenInvariant("I16", f"entry {place.n} follows entry {before.n}")
    if not before.d <= place.d < place.n:
        raise BrokenInvariant(
            "I5", f"entry {place.n} says that {place.d} is durable, after one that said {before.d}"
        )


class _Judged:
    """One cap: what was charged under it and when, one by one."""

    __slots__ = ("_charges", "hard_cap", "is_enforced", "spent", "window_ms")

    def __init__(self, hard_cap: int, window_ms: int | None, spent: int = 0) -> None:
        self.hard_cap = hard_cap
        self.window_ms = window_ms
        self.spent = spent
        self.is_enforced = True
        self._charges: deque[tuple[int, int]] = deque()

    def charge(self, now_ms: int, tokens: int) -> None:
        self.spent += tokens
        if self.window_ms is not None:
            self._charges.append((now_ms, tokens))

    def spent_at(self, now_ms: int) -> int:
        if self.window_ms is not None:
            charges = self._charges
            while charges and charges[0][0] + self.window_ms <= now_ms:
                self.spent -= charges.popleft()[1]
        return min(self.spent, AMOUNT_MAX)

    def carry(self, older: "_Judged", now_ms: int) -> None:
        older.spent_at(now_ms)
        for stamp, tokens in older._charges:
            self.charge(stamp, tokens)


class _ScopeBooks:
    """What is known of one scope: open reservations, all that was ever spent, and its caps."""

    __slots__ = ("caps", "reserved", "spent")

    def __init__(self) -> None:
        self.caps: dict[LimitId, _Judged] = {}
        self.reserved = 0
        self.spent = 0


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
                self._drop(entry)
            case _:
                pass  # moves no tokens

    def _begin(self, start: Snapshot) -> None:
        self._now_ms = start.t
        self._next = start.next
        for scope, lifetime in start.life:
            self._scopes[scope].spent = lifetime.tokens
        for found in start.holds:
            books = [self._scopes[scope] for scope in found.scopes]
            self._open[found.reservation_id] = _Open(found.tokens, books, found.ghost_until_ms)
            for one in books:
                one.reserved += found.tokens
        for limit in start.limits:
            self._scopes[limit.scope].caps[limit_id(limit.scope)] = _judged(limit)

    def _hold(self, entry: HoldEntry) -> None:
        if entry.i != self._next:
            raise BrokenInvariant("I12", f"reservation {entry.i} where {self._next} comes next")
        tokens = entry.a
        books = [self._scopes[scope] for scope in entry.w]
        for scope, one in zip(entry.w, books, strict=True):
            for cap in one.caps.values():
                used = cap.spent_at(entry.t) + one.reserved
                if used + tokens > cap.hard_cap and cap.is_enforced:
                    raise BrokenInvariant(
                        "I1",
                        f"reservation {entry.i} of {tokens} tokens on {scope}, of whose cap of "
                        f"{cap.hard_cap} tokens {used} were in use",
                    )
        self._next = entry.i + 1
        self._open[entry.i] = _Open(tokens, books)
        for one in books:
            one.reserved += tokens

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
            one.spent += entry.a
            for cap in one.caps.values():
                cap.charge(entry.t, entry.a)

    def _ghost(self, entry: GhostEntry) -> None:
        held = self._open.get(entry.i)
        if held is None or held.until_ms is not None:
            raise BrokenInvariant("I9", f"reservation {entry.i} cannot be given a grace")
        held.until_ms = entry.x

    def _limit(self, entry: LimitEntry) -> None:
        window_ms = entry.v if entry.m == "rolling" else None
        books = self._scopes[entry.s]
        cap = old = books.caps.get(entry.l)
        if cap is None or cap.window_ms != window_ms:
            cap = _Judged(entry.c, window_ms, books.spent if window_ms is None else 0)
            if window_ms is not None and old is not None:
                cap.carry(old, entry.t)
        cap.hard_cap = entry.c
        cap.is_enforced = True
        books.caps[entry.l] = cap

    def _drop(self, entry: DropEntry) -> None:
        for books in self._scopes.values():
            if entry.l in books.caps:
                books.caps[entry.l].is_enforced = False


def _judged(books: LimitBooks) -> _Judged:
    cap = _Judged(books.hard_cap, books.window_ms, books.spent)
    cap.is_enforced = not books.retired
    for stamp, tokens in books.charges:
        cap.charge(stamp, tokens)
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


def _first(one: Snapshot, other: Snapshot) -> str:
    """The first difference between two states that differ, in words."""
    if (one.t, one.next) != (other.t, other.next):
        return f"time and next number: {one.t}, {one.next} or {other.t}, {other.next}"
    parts: list[tuple[str, Sequence[object], Sequence[object]]] = [
        ("cap", one.limits, other.limits),
        ("reservation", one.holds, other.holds),
        ("counters", one.life, other.life),
        ("template tokens", one.learned, other.learned),
    ]
    name, mine, others = next(part for part in parts if part[1] != part[2])
    pairs = (pair for pair in zip(mine, others, strict=False) if pair[0] != pair[1])
    left, right = next(pairs, (f"{len(mine)} of them", f"{len(others)}"))
    return f"{name}: {left} or {right}"
