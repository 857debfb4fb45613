"""The ledger alone: durable reservations beside a bare loop of write and fdatasync."""

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import trio

from tests.bench import ledger_bench
from tests.bench.child import SERVER_CORES
from tests.bench.ledger_bench import Measured, SlowSyncer
from tests.bench.plan import Plan
from tests.bench.report import Section, Table, median, median_ratio, number, times
from tests.bench.stage import Stage

SLOW_SYNC_SECONDS = 0.01
_SLOW_CALLERS = 16

_NOTES = (
    "A reservation and its settlement, on two caps. Each caller waits for its reservation to be",
    "durable and then makes the next. The bare loop writes as much and syncs each time.",
)


def measure(stage: Stage, plan: Plan) -> Section:
    """In this process, which is idle otherwise, on the core on which the gateway is measured."""
    bare: list[float] = []
    rounds: dict[int, list[Measured]] = {callers: [] for callers in plan.callers}
    slow: list[Measured] = []
    replayed: list[float] = []
    where = stage.directory
    with pinned():
        for turn in range(plan.rounds):
            syncs = ledger_bench.bare_syncs(str(where), plan.seconds / 2)
            bare.append(median(syncs))
            for callers, measured in rounds.items():
                measured.append(_reservations(where / f"{turn}-{callers}", callers, plan))
            replayed.append(ledger_bench.replay_rate(str(where / f"{turn}-{callers}")))
        slow.append(
            _reservations(where / "slow", _SLOW_CALLERS, plan, sync_seconds=SLOW_SYNC_SECONDS)
        )
    figures = {f"reservations_{n}": median(m.rate for m in rounds[n]) for n in rounds}
    figures |= {
        f"slow_reservations_{_SLOW_CALLERS}": median(m.rate for m in slow),
        "replayed": median(replayed),
        "sync_p50_us": median(bare) * 1e6,
    }
    rows: list[tuple[str, ...]] = [
        ("bare loop", number(1 / median(bare)), "", _ms(median(bare) * 1e3), "", "", "1.00x")
    ]
    rows += [_row(f"{callers} callers", measured, bare) for callers, measured in rounds.items()]
    slow_name = f"{_SLOW_CALLERS} callers, sync +{SLOW_SYNC_SECONDS * 1000:.0f} ms"
    rows.append(_row(slow_name, slow, [median(bare)]))
    rows.append(("replay, entries/s of CPU", number(median(replayed)), "", "", "", "", ""))
    table = Table(
        "The ledger alone: durable reservations",
        ("", "per second", "CPU us", "p50 ms", "p99 ms", "per sync", "rate:bare loop"),
        tuple(rows),
        _NOTES,
    )
    return Section((table,), figures)


def _reservations(
    directory: Path, callers: int, plan: Plan, *, sync_seconds: float = 0
) -> Measured:
    run = partial(ledger_bench.measure, str(directory), callers, plan.seconds)
    return trio.run(partial(run, partial(SlowSyncer, sync_seconds)) if sync_seconds else run)


def _row(name: str, measured: list[Measured], bare: list[float]) -> tuple[str, ...]:
    return (
        name,
        number(median(m.rate for m in measured)),
        number(median(m.cpu_us for m in measured)),
        _ms(median(m.p50_ms for m in measured)),
        _ms(median(m.p99_ms for m in measured)),
        number(median(m.per_sync for m in measured)),
        times(median_ratio([m.rate for m in measured], [1 / seconds for seconds in bare])),
    )


def _ms(milliseconds: float) -> str:
    return number(milliseconds)


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """On the server's core, threads that are started inside too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, SERVER_CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
