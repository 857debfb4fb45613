"""From applied entries to durable ones: when to write, when to sync, and whom to tell afterwards.

It owns what lies between the accounts and the journal: entries not yet written, answers that wait
for the disk, the sync that is under way, and the clock times by which something has to happen. It
decides nothing about budgets, and it waits for nothing: the ledger task asks it when to come back.
"""

import logging
import math
from collections.abc import Callable, Iterable
from typing import Protocol

import trio

from cortexd.ledger.calls import AnyCall
from cortexd.ledger.entries import Entry, Scope
from cortexd.ledger.journal import Journal
from cortexd.ledger.retention import DiskUse
from cortexd.ledger.sync_thread import Syncer

SYNC_WITHIN_SECONDS = 0.05
"""How long an entry that nobody waits for may stay unsynced."""

MARK_AFTER_SECONDS = 1.0
"""How long after a sync, with nothing happening, the journal notes its watermark."""

SLOW_SYNC_SECONDS = 1.0
"""A sync that takes longer is reported while it is still under way."""

_log = logging.getLogger("cortexd.ledger")


class LedgerObserver(Protocol):
    """Who counts what the ledger does. Called in the ledger task; must not block or raise."""

    def batch(self, commands: int, records: int) -> None:
        """So many entries were written at once, for so many calls since the last time."""

    def synced(self, seconds: float) -> None:
        """A sync has returned after this long, as the ledger task felt it."""

    def disk(self, use: DiskUse) -> None:
        """The journal takes so much now: after every sync, and every few seconds."""

    def open_reservations(self, n: int) -> None:
        """So many reservations are open now, ghosts included."""

    def unresolved(self, tokens: int) -> None:
        """So many tokens are reserved by ghosts now."""

    def ghost_charged(self, scopes: tuple[Scope, ...], tokens: int) -> None:
        """A dead process's reservation on these scopes was charged in full: so many tokens."""


class _Batch:
    """What has happened to the accounts and is not written yet, and who waits for it."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.waiting: list[AnyCall] = []
        self.commands = 0


class _Flight:
    """A sync under way, and who waits for it."""

    def __init__(self, waiting: list[AnyCall], now: float) -> None:
        self.waiting = waiting
        self.started = now
        self.has_landed = False
        self.error: BaseException | None = None
        self.was_reported = False
        self.landed: trio.Event | None = None  # made by who waits for it, which is rare


class Committer:
    """Gets entries to disk in batches, with one sync under way at a time.

    While one is, entries are gathered and nothing is written: a write to a file that is being
    synced may block, and this runs in the thread that serves every stream. `wake` is called in that
    thread when the sync is back, and `land` is to be called then.
    """

    def __init__(
        self, journal: Journal, syncer: Syncer, observe: LedgerObserver, wake: Callable[[], None]
    ) -> None:
        self._journal = journal
        self._syncer = syncer
        self._observe = observe
        self._wake = wake
        self._batch = _Batch()
        self._flight: _Flight | None = None
        self._sync_by = math.inf
        self._mark_at = math.inf

    @property
    def has_landed(self) -> bool:
        """Whether a sync is back and `land` has something to do."""
        return self._flight is not None and self._flight.has_landed

    @property
    def syncs_soon(self) -> bool:
        """Whether what is added later is synced soon enough even if nobody calls until then."""
        return self._flight is not None or self._sync_by < math.inf

    @property
    def is_at_rest(self) -> bool:
        """Whether everything that happened is durable and everybody has been told."""
        return (
            self._flight is None
            and not self._batch.entries
            and not self._batch.waiting
            and self._journal.durable == self._journal.written
        )

    def next_wake(self) -> float:
        """Trio time at which `flush` has something to do even if no call comes."""
        if self._flight is None:
            return min(self._sync_by, self._mark_at)
        return math.inf if self._flight.was_reported else self._flight.started + SLOW_SYNC_SECONDS

    def add(self, entries: Iterable[Entry], *, waiting: AnyCall | None = None) -> None:
        """Take entries that were just applied; deliver the answer of `waiting` once they are
        durable."""
        self._batch.entries += entries
        if waiting is not None:
            self._batch.waiting.append(waiting)
        if self._sync_by == math.inf:
            self._sync_by = trio.current_time() + SYNC_WITHIN_SECONDS

    def count(self, commands: int) -> None:
        """So many calls were decided, whether or not anything came of them."""
        self._batch.commands += commands

    def flush(self, now: float, *, closing: bool) -> None:
        """Write what there is, and start a sync if somebody waits for it or it is time.

        With a sync under way nothing is done until it has landed. `now`: Trio's time. `closing`:
        sync whatever is not. Raises `JournalFailed`.
        """
        if self._flight is not None:
            self._report_slow(self._flight, now)
            return
        batch = self._batch
        if now >= self._mark_at:
            self._mark()
        if batch.entries:
            self._journal.append(batch.entries)
            self._observe.batch(batch.commands, len(batch.entries))
            batch.entries = []
            batch.commands = 0
            rolls = self._journal.roll_is_due()
        else:
            rolls = self._journal.wall_was_moved()
        unsynced = self._journal.durable < self._journal.written
        if rolls or batch.waiting or (unsynced and (closing or now >= self._sync_by)):
            self._take_off(self._journal.prepare_roll() if rolls else self._journal.sync, now)
        elif now >= self._sync_by:
            self._sync_by = math.inf

    def land(self, now: float) -> None:
        """If a sync is back, tell who waited for it. Raises what it raised."""
        flight = self._flight
        if flight is None or not flight.has_landed:
            return
        if flight.error is not None:
            raise flight.error
        self._flight = None
        self._observe.synced(now - flight.started)
        self._observe.disk(self._journal.disk_use())
        for call in flight.waiting:
            call.deliver()
        if not self._batch.entries:
            self._mark_at = now + MARK_AFTER_SECONDS
        # There may be settlements that were left since the sync began, and more are to be expected:
        # having been called back by the clock once, we need not be woken for each.
        self._sync_by = max(now, flight.started + SYNC_WITHIN_SECONDS)

    def abandon(self, reason: str) -> None:
        """Tell everybody who still waits that the ledger is down."""
        flying = [] if self._flight is None else self._flight.waiting
        for call in (*flying, *self._batch.waiting):
            call.fail(reason)

    async def wait_landed(self) -> None:
        """Wait for a sync that is under way: until then its thread uses the journal."""
        if self._flight is not None and not self._flight.has_landed:
            self._flight.landed = trio.Event()
            await self._flight.landed.wait()

    def _take_off(self, work: Callable[[], None], now: float) -> None:
        self._flight = _Flight(self._batch.waiting, now)
        self._batch.waiting = []
        self._sync_by = self._mark_at = math.inf
        self._syncer.submit(work, self._on_landed)

    def _on_landed(self, error: BaseException | None) -> None:
        flight = self._flight
        assert flight is not None, "nobody started this sync"
        flight.error = error
        flight.has_landed = True
        if flight.landed is not None:
            flight.landed.set()
        self._wake()

    def _mark(self) -> None:
        entries = self._journal.accounts.mark(self._journal.clock.now_ms())
        for entry in entries:
            self._journal.accounts.apply(entry)
        self._batch.entries += entries
        self._mark_at = math.inf

    def _report_slow(self, flight: _Flight, now: float) -> None:
        if flight.was_reported or now < flight.started + SLOW_SYNC_SECONDS:
            return
        flight.was_reported = True
        _log.warning(
            "event=ledger_slow_sync waiting_seconds=%.1f calls=%d action=%r",
            now - flight.started,
            len(flight.waiting),
            "look at the load and the health of the ledger's disk",
        )
