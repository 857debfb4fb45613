"""What callers feel when the journal begins a new segment under them."""

import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec
import trio

from cortexd.ledger.clock import system_time
from cortexd.ledger.desk import Desk
from cortexd.ledger.disk import DirectoryDisk
from cortexd.ledger.inbox import Inbox
from cortexd.ledger.journal import Journal, JournalSettings
from cortexd.ledger.task import run_ledger
from tests.bench import books
from tests.bench.ledger_bench import call
from tests.bench.ledger_section import pinned
from tests.bench.plan import Plan
from tests.bench.report import Section, Table, median, number
from tests.bench.stage import Stage
from tests.ledger.workbench import Count

_CALLERS = 64
_KEYS = 1000
_OPEN = 500
_ENTRIES = 240_000
_ENDLESS_SEGMENT_BYTES = 1 << 32
_SHORT_SEGMENT_MS = 1_000
_TIMED_ROLLS = 9
_FOR_EVER_MS = 10**12

_NOTES = (
    f"{_KEYS} keys with three caps each, {_OPEN} reservations open besides, {_CALLERS} callers;",
    "a segment a second, so that there are many rolls. The ledger task takes the snapshot between",
    "two calls, and nothing else runs meanwhile; a thread encodes, writes and syncs it, and only",
    "reservations wait for that.",
)


class _Felt(msgspec.Struct, frozen=True):
    latencies: Sequence[float]
    rolls: int

    def percentile_ms(self, share: float) -> float:
        """The latency that so large a share of all calls did not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3


def measure(stage: Stage, plan: Plan) -> Section:
    """The same load with rolls and without, and the parts of a roll alone."""
    where = stage.directory / "rolls"
    books.write(str(where), min(_ENTRIES, plan.entries), keys=_KEYS, open_at_end=_OPEN)
    with pinned():
        without = trio.run(_feel, where, _FOR_EVER_MS, plan.roll_seconds)
        rolling = trio.run(_feel, where, _SHORT_SEGMENT_MS, plan.roll_seconds)
        roll = _parts(where)
    rows = tuple(
        (
            name,
            str(felt.rolls),
            number(len(felt.latencies) / plan.roll_seconds),
            *(number(felt.percentile_ms(share)) for share in (0.5, 0.99, 0.999, 1)),
        )
        for name, felt in (("without rolls", without), ("with rolls", rolling))
    )
    felt_table = Table(
        "Reservations while segments begin",
        ("", "rolls", "per second", "p50 ms", "p99 ms", "p99.9 ms", "max ms"),
        rows,
    )
    parts_table = Table(
        "One roll",
        ("snapshot MB", "ledger task ms", "CPU", "sync thread ms", "CPU"),
        (tuple(number(figure) for figure in roll),),
        _NOTES,
    )
    return Section(
        (felt_table, parts_table),
        {
            "roll_max_ms": rolling.percentile_ms(1),
            "roll_in_task_ms": roll[1],
            "rolls": rolling.rolls,
        },
    )


def _open(where: Path, segment_ms_max: int) -> Journal:
    settings = JournalSettings(
        segment_bytes_max=_ENDLESS_SEGMENT_BYTES,
        segment_ms_max=segment_ms_max,
        grace_ms=_FOR_EVER_MS,
    )
    disk = DirectoryDisk.open(str(where))
    return Journal.recover(disk, books.caps_of(_KEYS), system_time(), settings)


async def _feel(where: Path, segment_ms_max: int, seconds: float) -> _Felt:
    journal = _open(where, segment_ms_max)
    before = journal.disk_use().segments
    latencies: list[float] = []
    inbox = Inbox()
    async with trio.open_nursery() as nursery:
        await nursery.start(run_ledger, journal, inbox, Count())
        desk = Desk(inbox, journal.accounts.template_tokens)
        until = time.perf_counter() + seconds
        async with aclosing(desk), trio.open_nursery() as clients:
            for caller in range(_CALLERS):
                clients.start_soon(call, desk, caller, until, latencies)
    rolls = journal.disk_use().segments - before
    journal.close()
    return _Felt(latencies, rolls)


def _parts(where: Path) -> tuple[float, ...]:
    """Size of the snapshot in MB; ms and CPU ms of a roll in the task, then in the thread."""
    journal = _open(where, _FOR_EVER_MS)
    moments: list[list[float]] = []
    for _ in range(_TIMED_ROLLS):
        began, began_cpu = time.perf_counter(), time.process_time()
        work = journal.prepare_roll()
        prepared, prepared_cpu = time.perf_counter(), time.process_time()
        work()
        done, done_cpu = time.perf_counter(), time.process_time()
        moments.append(
            [prepared - began, prepared_cpu - began_cpu, done - prepared, done_cpu - prepared_cpu]
        )
    newest = max(where.glob("seg-*.jsonl"))
    journal.close()
    figures = (median(each) * 1e3 for each in zip(*moments, strict=True))
    return (newest.stat().st_size / 1e6, *figures)
