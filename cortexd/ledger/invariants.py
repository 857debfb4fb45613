"""What must hold in the books whatever happens, as checks that can be run.

Owns one check for each of the ledger's invariants (`meanings.py` names them) that can be judged
from accounts, entries or segments alone: `history.py` judges entries by those before them,
`chain.py` has what must hold between segments. The tests, the crash simulator and `cortexd ledger
verify` share them. Refuses to know disks, and to repair anything.

What only the world outside can judge is not here: that tokens really consumed stay below the cap
(I3), that nothing is dispatched before it is durable (I4), that what was acknowledged is recovered
after a crash and rot is refused (I6 to I8), and that nobody is refused without need (I19).
"""

from collections.abc import Iterable, Sequence

import msgspec

from cortexd.ledger.accounts import Accounts, BrokenBooks
from cortexd.ledger.chain import Finding, SegmentFacts, check_chain
from cortexd.ledger.entries import Entry, Granted, Refused, Scope, Snapshot
from cortexd.ledger.history import History
from cortexd.ledger.meanings import MEANINGS, BrokenInvariant
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
    found = {limit.limit_id: limit for limit in after.limits}
    for limit in before.limits:
        now = found.get(limit.limit_id)
        if now is None or now.books != limit.books:
            raise BrokenInvariant("I18", f"{limit} became {now}")


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
