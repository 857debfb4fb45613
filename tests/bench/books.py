"""Ledgers of a known size on a real disk, written as fast as the real journal takes entries.

Owns what such a ledger looks like: many keys with three caps each, requests of many hours, some
reservations that are open at the end. Refuses to measure.
"""

import itertools
from collections.abc import Iterator

from cortexd.ledger.cap_windows import rolling
from cortexd.ledger.clock import TimeSources, system_time
from cortexd.ledger.disk import DirectoryDisk
from cortexd.ledger.entries import (
    Cap,
    CloseEntry,
    Entry,
    HoldEntry,
    ReservationId,
    Scope,
    account_scope,
    key_scope,
)
from cortexd.ledger.journal import Journal, JournalSettings
from cortexd.ledger.retention import Retention

ACCOUNT = account_scope("acme")
HOUR_MS = 3_600_000
_BATCH = 500
_NEVER_FULL = 10**15


def key(number: int) -> Scope:
    """The scope of one key."""
    return key_scope(f"key-{number}")


def caps_of(keys: int) -> list[Cap]:
    """Three caps on each of so many keys, one on their account; nobody ever reaches any."""
    windows = (rolling(24 * HOUR_MS), rolling(30 * 24 * HOUR_MS))
    caps = [Cap(key(number), _NEVER_FULL, window) for number in range(keys) for window in windows]
    caps += [Cap(key(number), _NEVER_FULL) for number in range(keys)]
    return [*caps, Cap(ACCOUNT, _NEVER_FULL)]


def write(
    directory: str,
    entries: int,
    *,
    keys: int = 1000,
    open_at_end: int = 0,
    to_the_brim: bool = False,
    segment_bytes_max: int = JournalSettings().segment_bytes_max,
) -> int:
    """Have a journal write about so many entries, rolling as it does; the number of the last one.

    They are spread over the day before now, so that every window has something in it. With
    `to_the_brim` it goes on until the newest segment is full: the most that a start has to read.
    """
    clock = _PastDay(entries)
    journal = Journal.recover(
        DirectoryDisk.open(directory),
        caps_of(keys),
        clock.sources(),
        JournalSettings(segment_bytes_max=segment_bytes_max, retention=Retention(0, 0)),
    )
    for batch in _batches(keys, clock, first_ms=journal.clock.now_ms()):
        if journal.roll_is_due():
            journal.prepare_roll()()
        for entry in batch:
            journal.accounts.apply(entry)
        journal.append(batch)
        if journal.written >= entries and (journal.roll_is_due() or not to_the_brim):
            break
    now_ms = journal.clock.now_ms()
    for number in range(open_at_end):
        held, _ = journal.accounts.reserve(now_ms, (ACCOUNT, key(number % keys)), 1000)
        journal.accounts.apply(held[0])
        journal.append(held)
    journal.sync()
    last = journal.written
    journal.close()
    return last


class _PastDay:
    """A host's time of the last day, which passes in as many steps as there are batches."""

    def __init__(self, entries: int) -> None:
        self._real = system_time()
        self._behind_ms = 24 * HOUR_MS
        self._step_ms = 24 * HOUR_MS // (entries // (2 * _BATCH) + 1)

    def step(self) -> int:
        """Let time pass; how much."""
        step_ms = min(self._step_ms, self._behind_ms)
        self._behind_ms -= step_ms
        return step_ms

    def sources(self) -> TimeSources:
        return TimeSources(
            boottime_ms=lambda: self._real.boottime_ms() - self._behind_ms,
            wall_ms=lambda: self._real.wall_ms() - self._behind_ms,
            boot_id=self._real.boot_id,
        )


def _batches(keys: int, clock: _PastDay, *, first_ms: int) -> Iterator[list[Entry]]:
    """Reservations and their settlements. Decided by nobody, so that writing is what takes time."""
    scopes = [(ACCOUNT, key(number)) for number in range(keys)]
    now_ms = first_ms
    for first in itertools.count(1, _BATCH):
        numbers = [ReservationId(number) for number in range(first, first + _BATCH)]
        batch: list[Entry] = [
            HoldEntry(now_ms, number, scopes[number % keys], 1000, f"req-{number:016x}")
            for number in numbers
        ]
        batch += [CloseEntry(now_ms, number, 500, "settle", 300, 200) for number in numbers]
        yield batch
        now_ms += clock.step()
