"""The ledger beside an SQLite database that commits each reservation, on the same disk."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from tests.bench import ledger_bench, sqlite_bench
from tests.bench.ledger_bench import Measured
from tests.bench.ledger_section import pinned
from tests.bench.plan import Plan
from tests.bench.report import Section, Table, median, median_ratio, number, times
from tests.bench.stage import Stage

_Bench = Callable[[str, int, float], Awaitable[Measured]]

_CALLERS = (1, 128)
_NOTES = (
    "SQLite in a thread of its own, WAL, synchronous=FULL: a commit for each reservation, in which",
    "earlier settlements take part. Ours: reservations that wait at the same time share a sync.",
    "Both were measured in turn, round by round; the ratio is the median of the rounds' ratios.",
)


def measure(stage: Stage, plan: Plan) -> Section:
    """In this process, on the core on which the gateway is measured."""
    ours: dict[int, list[Measured]] = {callers: [] for callers in _CALLERS}
    theirs: dict[int, list[Measured]] = {callers: [] for callers in _CALLERS}
    with pinned():
        for turn in range(plan.rounds):
            for callers in _CALLERS:
                where = stage.directory / f"sqlite-{turn}-{callers}"
                where.mkdir()
                theirs[callers].append(_run(sqlite_bench.measure, where, callers, plan))
                where = stage.directory / f"journal-{turn}-{callers}"
                ours[callers].append(_run(ledger_bench.measure, where, callers, plan))
    figures: dict[str, float] = {}
    rows: list[tuple[str, ...]] = []
    for callers in _CALLERS:
        mine, other = ours[callers], theirs[callers]
        rate = median_ratio([m.rate for m in mine], [m.rate for m in other])
        added = median_ratio([m.p50_ms for m in mine], [m.p50_ms for m in other])
        figures[f"rate_to_sqlite_{callers}"] = rate
        figures[f"p50_to_sqlite_{callers}"] = added
        rows.append(_row(f"SQLite, {callers} callers", other, "1.00x", "1.00x"))
        rows.append(_row(f"cortexd, {callers} callers", mine, times(rate), times(added)))
    table = Table(
        "Durable reservations, beside SQLite",
        ("", "per second", "CPU us", "p50 ms", "p99 ms", "rate:SQLite", "p50:SQLite"),
        tuple(rows),
        _NOTES,
    )
    return Section((table,), figures)


def _run(bench: _Bench, where: Path, callers: int, plan: Plan) -> Measured:
    return trio.run(partial(bench, str(where), callers, plan.seconds))


def _row(name: str, measured: list[Measured], rate: str, p50: str) -> tuple[str, ...]:
    return (
        name,
        number(median(m.rate for m in measured)),
        number(median(m.cpu_us for m in measured)),
        number(median(m.p50_ms for m in measured)),
        number(median(m.p99_ms for m in measured)),
        rate,
        p50,
    )
