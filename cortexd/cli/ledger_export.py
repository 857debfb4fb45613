"""`cortexd ledger export`: the entries of the journal, in order, for people and for programs.

Owns the columns and the three formats. One segment is in memory at a time, and lines go out as they
are made: the journal may be larger than the machine.
"""

import argparse
import csv
import datetime
import re
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeAlias

import msgspec

from cortexd.cli.ledger_directory import LedgerDirectory, Unreadable, clock_after, iso, opened
from cortexd.cli.ledger_words import scope_name
from cortexd.ledger.chain import Finding
from cortexd.ledger.entries import (
    CloseEntry,
    DropEntry,
    GhostEntry,
    HoldEntry,
    LearnEntry,
    LimitEntry,
    LimitId,
    RollEntry,
    Scope,
    account_scope,
    key_scope,
)
from cortexd.ledger.reading import Line, newest_header, read_entries

_LINES_AT_ONCE = 1000

Moment: TypeAlias = datetime.datetime | datetime.timedelta
"""What `--since` and `--until` say: a moment, or how long ago."""


class Row(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One entry. What an entry does not have is left out, or empty in CSV.

    `kind`: hold, close, ghost, limit, drop, roll, learn or mark. Of a close and a ghost, what the
    hold said is repeated: `request_id`, `account`, `key`, `scopes` and `reserved`. `until`: end of
    a ghost's grace, or of a calendar's period. Amounts are tokens, `hard_cap` counts in `unit`.
    """

    n: int
    time: str
    kind: str
    reservation: int | None = None
    request_id: str | None = None
    account: str | None = None
    key: str | None = None
    scopes: tuple[str, ...] = ()
    reserved: int | None = None
    charged: int | None = None
    prompt: int | None = None
    completion: int | None = None
    why: str | None = None
    until: str | None = None
    limit: str | None = None
    hard_cap: int | None = None
    unit: str | None = None
    shadow: bool | None = None
    model: str | None = None
    template_tokens: int | None = None


def add_parser(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Add the question; the caller adds the flags that name a ledger."""
    parser = subparsers.add_parser(
        "export",
        help="print the journal's entries as a table, JSON lines or CSV",
        description="Print the entries of all segments that are kept, in order. MOMENT is a date, "
        "a date with a time (2026-11-24T18:00, in the local time zone if it names none), or how "
        "long ago: 90s, 15m, 24h, 7d, 2w.",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--format", choices=("table", "json", "csv"), default="table")
    form.add_argument(
        "--json",
        action="store_const",
        const="json",
        dest="format",
        help="the same as --format json",
    )
    parser.add_argument("--key", metavar="ID", help="only what concerns the key with this key_id")
    parser.add_argument("--account", metavar="ID", help="only what concerns this account")
    parser.add_argument("--since", metavar="MOMENT", type=moment, help="entries from then on")
    parser.add_argument("--until", metavar="MOMENT", type=moment, help="entries before then")
    return parser


def moment(text: str) -> Moment:
    """Read a MOMENT. Raises ArgumentTypeError."""
    ago = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    if ago:
        return int(ago[1]) * _UNITS[ago[2]]
    try:
        found = datetime.datetime.fromisoformat(text)
        return found.astimezone()  # without a zone of its own it is meant as the host's
    except (ValueError, OverflowError, OSError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no date, time or duration (2026-11-24, 2026-11-24T18:00, 24h)"
        ) from error


_UNITS = {
    "s": datetime.timedelta(seconds=1),
    "m": datetime.timedelta(minutes=1),
    "h": datetime.timedelta(hours=1),
    "d": datetime.timedelta(days=1),
    "w": datetime.timedelta(weeks=1),
}


def answer(arguments: argparse.Namespace) -> int:
    """Print the entries; 1 if some could not be read, with the reason on standard error."""
    damage: list[Finding] = []
    with opened(arguments) as directory:
        now_ms = _now_ms(directory)
        since_ms = _ledger_ms(arguments.since, now_ms)
        until_ms = _ledger_ms(arguments.until, now_ms)
        _tell_span(arguments.since, since_ms, "since")
        _tell_span(arguments.until, until_ms, "until")
        lines = read_entries(
            *(directory, damage.append),
            where=directory.path,
            since_ms=since_ms or 0,
            until_ms=until_ms,
        )
        wanted = _scopes(arguments)
        _WRITERS[arguments.format](
            row_of(line) for line in lines if not wanted or wanted <= _scopes_of(line)
        )
    for finding in damage:
        print(f"cortexd ledger: {directory.path}/{finding.file}: {finding.what}", file=sys.stderr)
    return 1 if damage else 0


def _now_ms(directory: LedgerDirectory) -> int:
    """Ledger time now, which the entries' times are compared with."""
    header = newest_header(directory)
    if header is not None:
        return clock_after(header, header.lt).now_ms()
    if not any(name.startswith("seg-") for name in directory.names()):
        raise Unreadable(f"{directory.path}: there is no ledger here", 1)
    return int(datetime.datetime.now(datetime.UTC).timestamp() * 1000)


def _ledger_ms(given: Moment | None, now_ms: int) -> int | None:
    match given:
        case None:
            return None
        case datetime.timedelta():
            return max(0, now_ms - given // datetime.timedelta(milliseconds=1))
        case _:
            return max(0, int(given.timestamp() * 1000))


def _tell_span(given: Moment | None, ledger_ms: int | None, word: str) -> None:
    """Say on standard error how a moment was understood, where a time zone is in it."""
    if given is None or ledger_ms is None:
        return
    local = ""
    if isinstance(given, datetime.datetime):
        local = f" ({given:%Y-%m-%d %H:%M:%S} {given.tzname()})"
    print(f"{word} {iso(ledger_ms)}{local}", file=sys.stderr)


def _scopes(arguments: argparse.Namespace) -> frozenset[Scope]:
    """The scopes that an entry has to concern: all of them; none for no filter."""
    wanted = []
    if arguments.key is not None:
        wanted.append(key_scope(arguments.key))
    if arguments.account is not None:
        wanted.append(account_scope(arguments.account))
    return frozenset(wanted)


def _scopes_of(line: Line) -> frozenset[Scope]:
    if line.held is not None:
        return frozenset(line.held.w)
    match line.entry:
        case LimitEntry():
            return frozenset((line.entry.s,))
        case DropEntry() | RollEntry():
            return frozenset((_scope_of(line.entry.l),))
        case _:
            return frozenset()


def _scope_of(limit: LimitId) -> Scope:
    return Scope(limit.partition("/")[0])


def row_of(line: Line) -> Row:
    """An entry in columns."""
    n, entry, held = line.n, line.entry, line.held
    time = iso(entry.t)
    match entry:
        case HoldEntry():
            return Row(n, time, "hold", entry.i, entry.rid, *_names(entry.w), entry.a)
        case CloseEntry():
            made = _made(held)
            paid = (entry.a, entry.p, entry.o, entry.y)
            return Row(n, time, "close", entry.i, *made, *paid)
        case GhostEntry():
            return Row(n, time, "ghost", entry.i, *_made(held), until=iso(entry.x))
        case LimitEntry():
            return Row(
                *(n, time, "limit", None, None, *_names((entry.s,))),
                until=iso(entry.e) if entry.e else None,
                limit=entry.l,
                hard_cap=entry.c,
                unit=entry.u,
                shadow=entry.h or None,
            )
        case DropEntry():
            return Row(n, time, "drop", None, None, *_names((_scope_of(entry.l),)), limit=entry.l)
        case RollEntry():
            names = _names((_scope_of(entry.l),))
            return Row(n, time, "roll", None, None, *names, until=iso(entry.e), limit=entry.l)
        case LearnEntry():
            return Row(n, time, "learn", model=entry.m, template_tokens=entry.a)
        case _:
            return Row(n, time, "mark")


Names: TypeAlias = tuple[str | None, str | None, tuple[str, ...]]
_known_names: dict[tuple[Scope, ...], Names] = {}
_KNOWN_NAMES_MAX = 10_000


def _names(scopes: tuple[Scope, ...]) -> Names:
    """Account, key and scopes; the same few come again and again."""
    names = _known_names.get(scopes)
    if names is None:
        if len(_known_names) >= _KNOWN_NAMES_MAX:
            _known_names.clear()
        words = dict(map(scope_name, scopes))
        names = _known_names[scopes] = (words.get("account"), words.get("key"), tuple(scopes))
    return names


def _made(
    held: HoldEntry | None,
) -> tuple[str | None, str | None, str | None, tuple[str, ...], int | None]:
    if held is None:
        return None, None, None, (), None
    return held.rid, *_names(held.w), held.a


def _write_json(rows: Iterator[Row]) -> None:
    encode = msgspec.json.Encoder().encode_lines
    while batch := list(islice(rows, _LINES_AT_ONCE)):
        sys.stdout.write(encode(batch).decode())


def _write_csv(rows: Iterator[Row]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(Row.__struct_fields__)
    scopes_at = Row.__struct_fields__.index("scopes")
    for row in rows:
        cells = list(msgspec.structs.astuple(row))
        cells[scopes_at] = " ".join(row.scopes)
        writer.writerow(cells)


def _write_table(rows: Iterator[Row]) -> None:
    """Columns of fixed width, so that the first line can go out before the last is known."""
    print(_table_line("ENTRY", "TIME", "KIND", "NUMBER", "RESERVED", "CHARGED", "WHY", "CONCERNS"))
    while batch := list(islice(rows, _LINES_AT_ONCE)):
        print(*map(table_row, batch), sep="\n")


def table_row(row: Row) -> str:
    """An entry as a line of the table."""
    concerns = (*(() if row.limit else row.scopes), row.request_id, row.limit, row.model)
    details = [name for name in concerns if name]
    if row.hard_cap is not None:
        details.append(f"hard_cap={row.hard_cap}")
    if row.template_tokens is not None:
        details.append(f"template_tokens={row.template_tokens}")
    if row.shadow:
        details.append("shadow")
    if row.until is not None:
        details.append(f"until={row.until}")
    return _table_line(
        *(row.n, row.time, row.kind, row.reservation, row.reserved, row.charged, row.why),
        " ".join(details),
    )


def _table_line(*cells: str | int | None) -> str:
    n, time, kind, number, reserved, charged, why, concerns = (
        "" if cell is None else cell for cell in cells
    )
    return (
        f"{n:>9}  {time:<24}  {kind:<5}  {number:>9}  {reserved:>9}  {charged:>9}  {why:<9}  "
        f"{concerns}"
    ).rstrip()


_WRITERS: dict[str, Callable[[Iterator[Row]], None]] = {
    "table": _write_table,
    "json": _write_json,
    "csv": _write_csv,
}
