"""The journal: every entry of the ledger on disk, and the moment from which it is safe there.

It owns the directory's lock, the segments, the numbering of entries and the watermark. It decides
nothing about budgets: it holds the accounts that it recovered, writes what the ledger task has
applied to them, and says when that is durable.

Rules that hold here, each of them paid for by somebody:

- A file that this process did not create is never written to. Every start and every roll begins a
  new segment with a snapshot, so a torn tail needs no surgery and recovery reads one file.
- The watermark advances only after a sync has returned, and the hint only after the watermark.
- The first error of the disk is the last: nothing is retried, since after a failed sync the kernel
  takes the lost pages for clean, and a second sync would say that all is well.

Methods block, and are called one at a time: `append` by the ledger task, `sync` and what
`prepare_roll` returns in the sync thread while the task touches nothing but the accounts.
"""

import contextlib
import secrets
from collections.abc import Callable, Sequence
from typing import Literal, Self, TypeAlias

import msgspec

from cortexd import __version__
from cortexd.ledger import journal_log
from cortexd.ledger.clock import WALL_STEP_MS, LedgerClock, OnReboot, TimeSources, system_time
from cortexd.ledger.disk import DirectoryDisk, Disk, LedgerProblem, unusable
from cortexd.ledger.entries import Cap, Entry, Snapshot
from cortexd.ledger.opening import Found, read_newest
from cortexd.ledger.records import FORMAT, Header, Hint, encode_hint
from cortexd.ledger.retention import ClosedSegments, DiskUse, Retention
from cortexd.ledger.segment import Segment, segment_name

__all__ = ["Condition", "Journal", "JournalFailed", "JournalSettings", "LedgerProblem"]

# A start applies all entries of a segment again, some 250,000 a second where each request has four
# caps: so many bytes are 16,000 entries and less than a tenth of a second. Smaller segments would
# hold little but snapshots where there are a thousand keys.
SEGMENT_BYTES_MAX = 2 << 20

# Shortest time between two segments that begin because the wall clock was moved. What is spent in
# it after a move may be forgotten too early by a reboot, so it is short.
_STEP_ROLL_MS = 1_000

_MEASURE_ROOM_MS = 1_000

_DAY_MS = 24 * 3_600_000

# A roll makes one segment, so that a backlog (after a setting was lowered) goes away by and by
# without anybody having to wait for it.
_REMOVED_AT_START_MAX = 64
_REMOVED_AT_ROLL_MAX = 4


Condition: TypeAlias = Literal["ok", "low_on_room", "failed"]
"""How a journal is: `low_on_room` refuses new reservations, `failed` writes nothing any more."""


class JournalFailed(Exception):
    """The disk failed under an open journal: nothing more is written, the daemon has to end.

    `where` is the directory. What was acknowledged as durable is; open reservations are charged in
    full when the ledger is opened again.
    """

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what


class JournalSettings(msgspec.Struct, frozen=True):
    """What a journal does by the clock and by size. Tests make these small.

    `grace_ms`: how long a dead process's reservations stay reserved before they are charged.
    `segment_bytes_max`, `segment_ms_max`: size of the entries and age at which a new segment
    begins; the size bounds the time of a start. `room_bytes_min`: free space below which nothing
    more is reserved. `retention`: what is kept of the segments before. `new_salt`: so many random
    bytes.
    """

    grace_ms: int = 30_000
    on_reboot: OnReboot = "wall"
    retention: Retention = Retention()
    segment_bytes_max: int = SEGMENT_BYTES_MAX
    segment_ms_max: int = 24 * 3_600_000
    room_bytes_min: int = 64 << 20
    new_salt: Callable[[int], bytes] = secrets.token_bytes


class Journal:
    """An open journal and the accounts in it.

    `written`: number of the last entry handed to the kernel; `durable`: the watermark, the number
    up to which entries survive a power loss.
    """

    def __init__(
        self, disk: Disk, clock: LedgerClock, found: Found, settings: JournalSettings, *, where: str
    ) -> None:
        """Begin a new segment after `found`. Raises OSError. Use `open`, which comes here."""
        self._disk = disk
        self._settings = settings
        self._where = where
        self._failed: JournalFailed | None = None
        self._room_is_low = False
        self._free_bytes: int | None = None
        self._missing_bytes = 0  # of the room that is needed
        self._closed = ClosedSegments(disk, settings.retention)
        self.clock = clock
        self.accounts = found.accounts
        self.written = self.durable = found.n
        if found.segment:
            # What a killed process wrote may not be on disk yet. The snapshot has all of it; but
            # without this a loss of power now would leave a hole in the history.
            try:
                disk.sync_closed(segment_name(found.segment))
            except OSError as error:
                journal_log.history_unsynced(where, found.segment, error)
        self._measure_room()
        self._make_room(_REMOVED_AT_START_MAX)
        header = self._header(found.segment + 1, found.previous_digest)
        self._segment = Segment.begin(disk, header, self.accounts.dump())
        self._tell_hint()
        self._measure_room()

    @classmethod
    def open(
        cls,
        directory: str,
        caps: Sequence[Cap],
        *,
        grace_seconds: float = 30,
        on_reboot: OnReboot = "wall",
        retention_days: float = 90,
        retention_bytes: int = 2 << 30,
    ) -> Self:
        """Lock the directory, recover what it holds, and make `caps` the ones that are enforced.

        Creates the directory if it is missing. Reservations that a dead process left open become
        ghosts: reserved for the grace, then charged in full. Everything is durable when this
        returns. Segments that are older than `retention_days`, or too many for `retention_bytes`,
        are removed (0: never). Raises `LedgerProblem`.
        """
        settings = JournalSettings(
            grace_ms=int(grace_seconds * 1000),
            on_reboot=on_reboot,
            retention=Retention(int(retention_days * _DAY_MS), retention_bytes),
        )
        disk = DirectoryDisk.open(directory)
        try:
            return cls.recover(disk, caps, system_time(), settings, where=directory)
        except BaseException:
            disk.shut()
            raise

    @classmethod
    def recover(
        cls,
        disk: Disk,
        caps: Sequence[Cap],
        times: TimeSources,
        settings: JournalSettings,
        *,
        where: str = "ledger",
    ) -> Self:
        """`open` on a disk that is already locked. Raises `LedgerProblem`; the disk stays open."""
        try:
            found = read_newest(disk, where=where)
            clock = LedgerClock(times, found.last_seen, settings.on_reboot)
            journal = cls(disk, clock, found, settings, where=where)
        except OSError as error:
            raise unusable(where, error) from error
        try:
            ghosts = journal._settle_in(caps)
            journal._remove_old_segments(_REMOVED_AT_START_MAX)
        except JournalFailed as error:
            journal._segment.close()
            raise LedgerProblem(
                where, error.what, "Look at the kernel log and the disk's free space.", "unusable"
            ) from error
        journal_log.opened(where, journal._segment, clock, found, ghosts)
        return journal

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries that have been applied to the accounts: one write, not yet durable.

        Raises `JournalFailed`.
        """
        self._check_not_failed()
        try:
            self._segment.append(entries, n=self.written, durable_n=self.durable)
        except OSError as error:
            raise self._fail("writing", error) from error
        self.written += len(entries)

    def sync(self) -> None:
        """Make everything that was appended durable. Raises `JournalFailed`."""
        self._check_not_failed()
        upto = self.written
        try:
            self._segment.sync()
        except OSError as error:
            raise self._fail("syncing", error) from error
        self.durable = upto
        self._tell_hint()
        try:
            self._make_room(_REMOVED_AT_ROLL_MAX)
        except OSError as error:
            raise self._fail("syncing the directory", error) from error

    def roll_is_due(self) -> bool:
        """Whether the segment is large or old enough, or the wall clock was moved since."""
        return (
            self._segment.is_full(self._settings.segment_bytes_max)
            or self.clock.now_ms() - self._segment.header.lt >= self._settings.segment_ms_max
            or self.wall_was_moved()
        )

    def wall_was_moved(self) -> bool:
        """Whether the wall clock was moved since the segment began, which makes one due even where
        nothing happens: a downtime is judged by the pair of times in a header (`clock.py`).
        """
        header, now_ms = self._segment.header, self.clock.now_ms()
        moved_ms = abs(self.clock.skew_ms() - (header.wall - header.lt))
        return moved_ms > WALL_STEP_MS and now_ms - header.lt >= _STEP_ROLL_MS

    def prepare_roll(self) -> Callable[[], None]:
        """Take a snapshot now; the work returned syncs this segment and begins the next with it.

        Everything appended so far is durable when the work is done; nothing may be appended before
        that. The accounts must be as the last appended entry left them.
        """
        snapshot = self.accounts.dump()
        header = self._header(self._segment.header.seg + 1, self._segment.digest())
        return lambda: self._roll(header, snapshot)

    def has_room(self) -> bool:
        """Whether the disk has the free space that new reservations need, measured once a second.

        To be asked by the ledger task, also when nothing happens: somebody else may fill the disk.
        History counts as room where there is enough of it: the next syncs remove it.
        """
        if self.clock.now_ms() - self._room_measured_ms >= _MEASURE_ROOM_MS:
            self._measure_room()
        return not self._room_is_low

    @property
    def condition(self) -> Condition:
        """Whether reservations can be made, as far as this process knows."""
        if self._failed is not None:
            return "failed"
        return "low_on_room" if self._room_is_low else "ok"

    def disk_use(self) -> DiskUse:
        """What the journal takes on its disk, as counted since it was opened: nothing is asked."""
        size_bytes = self._closed.size_bytes + self._segment.size_bytes
        return DiskUse(len(self._closed) + 1, size_bytes, self._free_bytes)

    def close(self) -> None:
        """Give file, lock and directory back. Nothing is synced: the ledger task did that."""
        self._segment.close()
        self._disk.shut()

    def _settle_in(self, caps: Sequence[Cap]) -> int:
        """Journal what recovery and the configuration change; how many ghosts there are new."""
        now_ms = self.clock.now_ms()
        ghosts = self.accounts.ghosts(now_ms, self._settings.grace_ms)
        civil_ms = self.clock.civil_ms()
        configured = self.accounts.configure(now_ms, caps, wall_ms=civil_ms)
        entries: list[Entry] = [*ghosts, *configured]
        for entry in entries:
            self.accounts.apply(entry)
        if entries:
            self.append(entries)
            self.sync()
        return len(ghosts)

    def _roll(self, header: Header, snapshot: Snapshot) -> None:
        assert header.n == self.written, "entries were appended during a roll"
        self.sync()
        old = self._segment
        try:
            self._segment = Segment.begin(self._disk, header, snapshot)
            old.close()
        except OSError as error:
            raise self._fail("beginning a new segment", error) from error
        self._closed.add(old.header.seg, old.size_bytes)
        self._tell_hint()
        journal_log.rolled(self._segment, old)
        self._remove_old_segments(_REMOVED_AT_ROLL_MAX)

    def _remove_old_segments(self, at_most: int) -> None:
        self._check_not_failed()
        try:
            removed = self._closed.remove_old(self.clock.now_ms(), self._segment, at_most=at_most)
        except OSError as error:
            raise self._fail("syncing the directory", error) from error
        journal_log.history_removed(self._where, removed)

    def _make_room(self, at_most: int) -> None:
        """Remove history for what is missing of the room that is needed. May raise OSError."""
        if self._missing_bytes > 0:
            removed = self._closed.remove_for_room(self._missing_bytes, at_most=at_most)
            self._missing_bytes -= removed.size_bytes
            journal_log.history_gave_room(self._where, removed)

    def _header(self, number: int, previous_digest: str) -> Header:
        return Header(
            fmt=FORMAT,
            seg=number,
            n=self.written,
            salt=self._settings.new_salt(8).hex(),
            prev=previous_digest,
            boot=self.clock.boot_id,
            off=self.clock.offset_ms,
            lt=self.clock.now_ms(),
            wall=self.clock.wall_ms(),
            sw=f"cortexd/{__version__}",
        )

    def _tell_hint(self) -> None:
        hint = encode_hint(Hint(self._segment.header.seg, self.durable))
        # A hint that is not written is one that is out of date, which it may be at any time.
        with contextlib.suppress(OSError):
            self._disk.write_hint(hint)

    def _measure_room(self) -> None:
        was_low, self._room_measured_ms = self._room_is_low, self.clock.now_ms()
        needed = max(self._settings.room_bytes_min, 2 * self._settings.segment_bytes_max)
        try:
            free = self._free_bytes = self._disk.free_bytes()
        except OSError:
            # Not to know is no reason to stop: if the disk is full, writing will say so.
            free, self._free_bytes = needed, None
        self._missing_bytes = needed - free
        self._room_is_low = self._missing_bytes > self._closed.history_bytes
        if self._room_is_low and not was_low:
            journal_log.low_on_room(self._where, free, needed)
        elif was_low and not self._room_is_low:
            journal_log.has_room_again(self._where, free)

    def _check_not_failed(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _fail(self, doing: str, error: OSError) -> JournalFailed:
        """Nothing is written any more, for what `error` says of `doing`."""
        what = f"{doing} failed: {error.strerror or error}"
        self._failed = JournalFailed(self._where, what)
        journal_log.failed(self._where, what)
        return self._failed
