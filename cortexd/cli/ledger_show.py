"""`cortexd ledger show`: how the books stand by the newest segment, as `serve` would find them.

Owns the tables and the JSON of the answer. Times and rolling windows are told for now, by the clock
that a daemon would have on this host; nothing else is guessed beyond the last entry.
"""

import argparse
import sys
from collections.abc import Sequence

import msgspec

from cortexd.cli.ledger_directory import Unreadable, clock_after, iso, opened
from cortexd.cli.ledger_words import WindowWords, scope_name, unit_words
from cortexd.cli.printable import printable
from cortexd.ledger.accounts import Accounts
from cortexd.ledger.entries import Lifetime, OpenReservation, Scope, Standing
from cortexd.ledger.reading import Newest, read_newest

_WIDTH_FOR_PIPES = 1000  # a table that goes on to grep must not be folded


class Books(msgspec.Struct, frozen=True):
    """All that is shown. `open` have a living owner, as far as the journal knows; `unresolved` had
    one that died.
    """

    directory: str
    segment: int
    entry: int
    last_entry_at: str
    now: str
    caps: tuple["CapRow", ...]
    open: tuple["ReservationRow", ...]
    unresolved: tuple["ReservationRow", ...]
    totals: tuple["TotalRow", ...]


class CapRow(msgspec.Struct, frozen=True):
    """One cap that is enforced, or kept as a shadow. Amounts count in `unit`."""

    kind: str
    id: str
    unit: str
    window: WindowWords
    hard_cap: int
    spent: int
    reserved: int
    available: int
    shadow: bool


class ReservationRow(msgspec.Struct, frozen=True):
    """One open reservation. `charged_at`: when it is charged in full, its owner being dead."""

    reservation: int
    request_id: str
    tokens: int
    since: str
    age_seconds: int
    scopes: tuple[str, ...]
    charged_at: str | None


class TotalRow(msgspec.Struct, frozen=True):
    """What a scope used since its first request, cap or no cap."""

    kind: str
    id: str
    requests: int
    tokens: int
    prompt: int
    completion: int
    uncertain: int
    overrun: int


def add_parser(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Add the question; the caller adds the flags that name a ledger."""
    parser = subparsers.add_parser(
        "show",
        help="show balances, open reservations and totals",
        description="Show every cap with what is spent, reserved and available, every open "
        "reservation, and what every key and account has used in its life.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser


def answer(arguments: argparse.Namespace) -> int:
    """Print the books. Raises LedgerProblem where `serve` would refuse to start."""
    with opened(arguments) as directory:
        newest = read_newest(directory, where=directory.path)
    if newest is None:
        raise Unreadable(f"{directory.path}: there is no ledger here", 1)
    books = books_of(newest, directory.path)
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(books), indent=2).decode())
    else:
        _print_tables(books)
    return 0


def books_of(newest: Newest, directory: str) -> Books:
    """What there is to show of the newest segment."""
    recovered = newest.recovered
    accounts = recovered.accounts
    now_ms = max(accounts.now_ms, clock_after(recovered.header, accounts.now_ms).now_ms())
    reservations = accounts.reservations()
    life = accounts.dump().life
    return Books(
        directory=directory,
        segment=newest.number,
        entry=recovered.n,
        last_entry_at=iso(accounts.now_ms),
        now=iso(now_ms),
        caps=tuple(_cap(standing) for standing in _standings(accounts, now_ms)),
        open=tuple(_reservation(r, now_ms) for r in reservations if r.ghost_until_ms is None),
        unresolved=tuple(
            _reservation(r, now_ms) for r in reservations if r.ghost_until_ms is not None
        ),
        totals=tuple(_total(scope, lifetime) for scope, lifetime in life),
    )


def _standings(accounts: Accounts, now_ms: int) -> tuple[Standing, ...]:
    scopes = sorted({limit.scope for limit in accounts.dump().limits})
    return accounts.standings(tuple(scopes), now_ms)


def _cap(standing: Standing) -> CapRow:
    kind, name = scope_name(standing.scope)
    return CapRow(
        kind=kind,
        id=name,
        unit=unit_words(standing.unit),
        window=WindowWords.of(standing.window),
        hard_cap=standing.hard_cap,
        spent=standing.spent,
        reserved=standing.reserved,
        available=standing.available,
        shadow=standing.shadow,
    )


def _reservation(found: OpenReservation, now_ms: int) -> ReservationRow:
    return ReservationRow(
        reservation=found.reservation_id,
        request_id=found.request_label,
        tokens=found.tokens,
        since=iso(found.since_ms),
        age_seconds=(now_ms - found.since_ms) // 1000,
        scopes=tuple(found.scopes),
        charged_at=None if found.ghost_until_ms is None else iso(found.ghost_until_ms),
    )


def _total(scope: Scope, lifetime: Lifetime) -> TotalRow:
    kind, name = scope_name(scope)
    return TotalRow(
        kind=kind,
        id=name,
        requests=lifetime.requests,
        tokens=lifetime.tokens,
        prompt=lifetime.prompt,
        completion=lifetime.completion,
        uncertain=lifetime.uncertain,
        overrun=lifetime.overrun,
    )


class _Section(msgspec.Struct, frozen=True):
    """A title and, if there are rows, a table: columns of words, then columns of numbers."""

    title: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    rows: list[tuple[str | int, ...]]


def _print_tables(books: Books) -> None:
    from rich.console import Console
    from rich.table import Table

    width = None if sys.stdout.isatty() else _WIDTH_FOR_PIPES
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    console.print(
        f"{books.directory}: segment {books.segment}, entry {books.entry} at {books.last_entry_at},"
        f" now {books.now}"
    )
    for section in (
        _caps(books.caps),
        _reservations("open", books.open),
        _reservations("unresolved", books.unresolved),
        _totals(books.totals),
    ):
        console.print(f"\n{section.title}")
        table = Table(box=None, pad_edge=False)
        for heading in section.left:
            table.add_column(heading, overflow="fold")
        for heading in section.right:
            table.add_column(heading, justify="right")
        for row in section.rows:
            table.add_row(*(printable(str(cell)) for cell in row))
        if section.rows:
            console.print(table)


def _caps(caps: Sequence[CapRow]) -> _Section:
    rows: list[tuple[str | int, ...]] = [
        (
            *(cap.kind, cap.id, cap.unit + (", shadow" if cap.shadow else ""), str(cap.window)),
            *(cap.hard_cap, cap.spent, cap.reserved, cap.available),
        )
        for cap in caps
    ]
    return _Section(
        "caps" if rows else "caps: none",
        ("FOR", "ID", "COUNTS", "WINDOW"),
        ("HARD CAP", "SPENT", "RESERVED", "AVAILABLE"),
        rows,
    )


def _reservations(title: str, found: Sequence[ReservationRow]) -> _Section:
    charged = ("CHARGED AT",) if title == "unresolved" else ()
    return _Section(
        f"{title} reservations: {len(found)}, {sum(row.tokens for row in found)} tokens",
        ("REQUEST", "SCOPES", "SINCE", *charged),
        ("NUMBER", "AGE", "TOKENS"),
        [
            (
                *(row.request_id, " ".join(row.scopes), row.since),
                *((row.charged_at or "",) if charged else ()),
                *(row.reservation, f"{row.age_seconds} s", row.tokens),
            )
            for row in found
        ],
    )


def _totals(totals: Sequence[TotalRow]) -> _Section:
    return _Section(
        "totals since the first request" if totals else "totals: none",
        ("OF", "ID"),
        ("REQUESTS", "TOKENS", "PROMPT", "COMPLETION", "UNCERTAIN", "OVERRUN"),
        [msgspec.structs.astuple(total) for total in totals],
    )
