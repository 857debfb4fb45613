"""What the tests of the ledger's I/O half share: clocks, syncers, a count, a running desk."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence

import trio

from cortexd.dialects.upper_bound import Bound
from cortexd.dialects.usage import Ending, EndingKind, Seen, Usage
from cortexd.ledger.accounts import Accounts
from cortexd.ledger.cap_windows import rolling
from cortexd.ledger.clock import TimeSources
from cortexd.ledger.desk import CALLS_MAX, Desk, LedgerDown, Reservation
from cortexd.ledger.entries import (
    Cap,
    Entry,
    Refused,
    ReservationId,
    Scope,
    Snapshot,
    Standing,
    account_scope,
    key_scope,
)
from cortexd.ledger.inbox import Inbox
from cortexd.ledger.journal import Journal, JournalSettings
from cortexd.ledger.records import entry_of, header_of, place_of, proven, snapshot_of
from cortexd.ledger.retention import DiskUse, Retention
from cortexd.ledger.segment import segment_name, segment_numbers
from cortexd.ledger.sync_thread import Done, Syncer, Work
from cortexd.ledger.task import run_ledger
from tests.ledger.simulated_disk import SimulatedDisk

KEY = key_scope("ci")
ACCOUNT = account_scope("acme")
SCOPES = (KEY, ACCOUNT)
CAPS = (Cap(KEY, 1000, rolling(60_000)), Cap(ACCOUNT, 100_000))
KILLED_CAPS = (Cap(KEY, 60_000), Cap(ACCOUNT, 10**9, rolling(60_000)))


KEEP = Retention()


class HandClock:
    """A host whose time stands still until the test moves it; `reboot` changes the boot id."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms
        self.wall_ahead_ms = 0
        self.boot = 1

    def sources(self) -> TimeSources:
        return TimeSources(
            boottime_ms=lambda: self.now_ms - 1_600_000_000_000,
            wall_ms=lambda: self.now_ms + self.wall_ahead_ms,
            boot_id=f"boot-{self.boot}",
        )


def trio_clock() -> TimeSources:
    """Time sources that follow Trio's clock, also a virtual one. Only inside a Trio run."""

    def now_ms() -> int:
        return 1_700_000_000_000 + int(trio.current_time() * 1000)

    return TimeSources(boottime_ms=now_ms, wall_ms=now_ms, boot_id="boot")


def salts() -> Callable[[int], bytes]:
    """Salts that differ and are the same in every run."""
    numbers = itertools.count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def settings(
    *,
    grace_ms: int = 30_000,
    segment_bytes_max: int = 2 << 20,
    segment_ms_max: int = 86_400_000,
    retention: Retention = KEEP,
) -> JournalSettings:
    return JournalSettings(
        grace_ms=grace_ms,
        retention=retention,
        segment_bytes_max=segment_bytes_max,
        segment_ms_max=segment_ms_max,
        new_salt=salts(),
    )


def open_journal(
    disk: SimulatedDisk,
    caps: Sequence[Cap] = CAPS,
    times: TimeSources | None = None,
    chosen: JournalSettings | None = None,
) -> Journal:
    return Journal.recover(disk, caps, times or HandClock().sources(), chosen or settings())


def read_segment(data: bytes) -> tuple[int, Snapshot, list[tuple[int, Entry]]]:
    """A segment as a bystander reads it: number and state at its start, then numbered entries.

    Stops at the first line that proves nothing.
    """
    lines = data.split(b"\n")
    header = header_of(lines[0])
    assert header is not None
    salt = bytes.fromhex(header.salt)
    snapshot = snapshot_of(lines[1], salt)
    assert snapshot is not None
    entries: list[tuple[int, Entry]] = []
    for line in lines[2:]:
        payload = proven(line, salt)
        place = None if payload is None else place_of(payload)
        if payload is None or place is None:
            break
        assert place.n == header.n + len(entries) + 1, "a gap between good lines"
        entries.append((place.n, entry_of(payload, place)))
    return header.n, snapshot, entries


class Count:
    """A `LedgerObserver` that remembers."""

    def __init__(self) -> None:
        self.commands = 0
        self.batches: list[int] = []
        self.syncs: list[float] = []
        self.use: DiskUse | None = None
        self.open = 0
        self.unresolved_tokens = 0
        self.ghosts: list[tuple[tuple[Scope, ...], int]] = []

    def batch(self, commands: int, records: int) -> None:
        self.commands += commands
        self.batches.append(records)

    def synced(self, seconds: float) -> None:
        self.syncs.append(seconds)

    def disk(self, use: DiskUse) -> None:
        self.use = use

    def open_reservations(self, n: int) -> None:
        self.open = n

    def unresolved(self, tokens: int) -> None:
        self.unresolved_tokens = tokens

    def ghost_charged(self, scopes: tuple[Scope, ...], tokens: int) -> None:
        self.ghosts.append((scopes, tokens))


class InlineSyncer:
    """A disk that is never waited for."""

    def submit(self, work: Work, done: Done) -> None:
        done(_raised_by(work))


class HeldSyncer:
    """A disk that hangs until the test lets one sync through, or all that are to come."""

    def __init__(self) -> None:
        self.held: list[tuple[Work, Done]] = []
        self._submitted = trio.Event()
        self._is_free = False

    def submit(self, work: Work, done: Done) -> None:
        self.held.append((work, done))
        self._submitted.set()
        if self._is_free:
            self.release()

    async def wait_held(self) -> None:
        """Until a sync hangs here."""
        while not self.held:
            self._submitted = trio.Event()
            await self._submitted.wait()

    def release(self) -> None:
        """Let the sync that hangs here do its work and come back."""
        work, done = self.held.pop(0)
        done(_raised_by(work))

    def free(self) -> None:
        """Hang no more."""
        self._is_free = True
        while self.held:
            self.release()


class LateSyncer:
    """A disk that takes `seconds()` of Trio's (virtual) time for each sync.

    `on_done` is called in the very tick in which a sync comes back, before anybody has heard of it.
    """

    def __init__(self, nursery: trio.Nursery, seconds: Callable[[], float]) -> None:
        self._nursery = nursery
        self._seconds = seconds
        self.on_done: Callable[[], None] = lambda: None

    def submit(self, work: Work, done: Done) -> None:
        self._nursery.start_soon(self._run, work, done)

    async def _run(self, work: Work, done: Done) -> None:
        await pass_time(self._seconds())
        done(_raised_by(work))
        self.on_done()


async def pass_time(seconds: float) -> None:
    """Let virtual time pass (under `autojump_clock` only: it costs nothing there)."""
    with trio.move_on_after(seconds):
        await trio.Event().wait()


def _raised_by(work: Work) -> BaseException | None:
    try:
        work()
    except BaseException as error:
        return error
    return None


@contextlib.asynccontextmanager
async def running(
    journal: Journal,
    syncer: Syncer | None = None,
    count: Count | None = None,
    *,
    calls_max: int = CALLS_MAX,
) -> AsyncIterator[Desk]:
    """A desk before a running ledger task; closed, and the task ended, at the end."""
    inbox = Inbox()
    async with trio.open_nursery() as nursery:
        await nursery.start(run_ledger, journal, inbox, count or Count(), syncer)
        desk = Desk(inbox, journal.accounts.template_tokens, calls_max=calls_max)
        try:
            yield desk
        finally:
            if isinstance(syncer, HeldSyncer):
                syncer.free()
            await desk.aclose()


def bound(prompt_tokens: int, output_tokens: int = 0) -> Bound:
    return Bound(prompt_tokens=prompt_tokens, output_tokens=output_tokens, choices=1)


def completed(prompt_tokens: int, completion_tokens: int) -> Ending:
    """An answer that came whole, with the engine's count."""
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
    return Ending(EndingKind.COMPLETED, False, usage, Seen(), False)


class Collected:
    """Outcomes of concurrent calls."""

    def __init__(self) -> None:
        self.reservations: list[Reservation] = []
        self.refused: list[Refused] = []
        self.down: list[str] = []

    async def reserve(self, desk: Desk, tokens: int = 10) -> None:
        try:
            granted = await desk.reserve(SCOPES, bound(tokens), request_id="r")
        except LedgerDown as down:
            self.down.append(down.reason)
            return
        if isinstance(granted, Refused):
            self.refused.append(granted)
        else:
            self.reservations.append(granted)


async def granted(desk: Desk, tokens: int = 10) -> Reservation:
    answer = await desk.reserve(SCOPES, bound(tokens), request_id="r")
    assert isinstance(answer, Reservation)
    return answer


def hold(journal: Journal, tokens: int = 10) -> ReservationId:
    """Reserve and append, without a sync."""
    entries, _ = journal.accounts.reserve(journal.clock.now_ms(), (KEY, ACCOUNT), tokens)
    commit(journal, entries)
    return entries[0].i


def commit(journal: Journal, entries: tuple[Entry, ...]) -> None:
    for entry in entries:
        journal.accounts.apply(entry)
    journal.append(entries)


def newest(disk: SimulatedDisk) -> bytes:
    return disk.read(segment_name(segment_numbers(disk.names())[-1]))


def standing_of(accounts: Accounts, scope: Scope, now_ms: int) -> Standing | None:
    """How the only cap on `scope` stands; None where none is enforced."""
    standings = accounts.standings((scope,), now_ms)
    assert len(standings) <= 1, "a scope with several caps"
    return standings[0] if standings else None
