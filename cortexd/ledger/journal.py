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
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import msgspec

from cortexd import __version__
from cortexd.ledger.clock import WALL_STEP_MS, LedgerClock, OnReboot, TimeSources, system_time
from cortexd.ledger.disk import DirectoryDisk, Disk, LedgerProblem, unusable
from cortexd.ledger.entries import Cap, Entry, Snapshot
from cortexd.ledger.opening import Found, read_newest
from cortexd.ledger.records import FORMAT, Header, Hint, encode_hint
from cortexd.ledger.segment import Segment, segment_name

__all__ = ["Journal", "JournalFailed", "JournalSettings", "LedgerProblem"]

_log = logging.getLogger("cortexd.ledger")

# Shortest time between two segments that begin because the wall clock was moved.
_STEP_ROLL_MS = 60_000

_MEASURE_ROOM_MS = 1_000

_LONG_DOWNTIME_MS = 30 * 24 * 3_600_000


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
    `segment_bytes_max`, `segment_ms_max`: size and age at which a new segment begins.
    `room_bytes_min`: free space below which nothing more is reserved.
    `new_salt`: so many random bytes.
    """

    grace_ms: int = 30_000
    on_reboot: OnReboot = "wall"
    segment_bytes_max: int = 8 << 20
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
        self.clock = clock
        self.accounts = found.accounts
        self.written = self.durable = found.n
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
    ) -> Self:
        """Lock the directory, recover what it holds, and make `caps` the ones that are enforced.

        Creates the directory if it is missing. Reservations that a dead process left open become
        ghosts: reserved for the grace, then charged in full. Everything is durable when this
        returns. Raises `LedgerProblem`.
        """
        settings = JournalSettings(grace_ms=int(grace_seconds * 1000), on_reboot=on_reboot)
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
        except JournalFailed as error:
            journal._segment.close()
            raise LedgerProblem(
                where, error.what, "Look at the kernel log and the disk's free space.", "unusable"
            ) from error
        journal._log_opened(found, ghosts)
        return journal

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries that have been applied to the accounts: one write, not yet durable.

        Raises `JournalFailed`.
        """
        with self._failing_for_good("writing"):
            self._segment.append(entries, n=self.written, durable_n=self.durable)
        self.written += len(entries)

    def sync(self) -> None:
        """Make everything that was appended durable. Raises `JournalFailed`."""
        upto = self.written
        with self._failing_for_good("syncing"):
            self._segment.sync()
        self.durable = upto
        self._tell_hint()
        self._measure_room()

    def roll_is_due(self) -> bool:
        """Whether the segment is large or old enough, or the wall clock was moved since it began.

        The last, because a header's pair of times is what a downtime is judged by (`clock.py`).
        """
        header = self._segment.header
        age_ms = self.clock.now_ms() - header.lt
        moved_ms = abs(self.clock.skew_ms() - (header.wall - header.lt))
        return (
            self._segment.size_bytes >= self._settings.segment_bytes_max
            or age_ms >= self._settings.segment_ms_max
            or (moved_ms > WALL_STEP_MS and age_ms >= _STEP_ROLL_MS)
        )

    def prepare_roll(self) -> Callable[[], None]:
        """Take a snapshot now; the work returned syncs this segment and begins the next with it.

        Everything appended so far is durable when the work is done; nothing may be appended before
        that. The accounts must be as the last appended entry left them.
        """
        snapshot = self.accounts.dump()
        header = self._header(self._segment.header.seg + 1, self._segment.digest())
        return lambda: self._roll(header, snapshot)

    def has_room(self) -> bool:
        """Whether the disk has the free space that new reservations need.

        Measured with every sync, and while it is too low once a second.
        """
        if self._room_is_low and self.clock.now_ms() - self._room_measured_ms >= _MEASURE_ROOM_MS:
            self._measure_room()
        return not self._room_is_low

    def close(self) -> None:
        """Give file, lock and directory back. Nothing is synced: the ledger task did that."""
        self._segment.close()
        self._disk.shut()

    def _settle_in(self, caps: Sequence[Cap]) -> int:
        """Journal what recovery and the configuration change; how many ghosts there are new."""
        now_ms = self.clock.now_ms()
        ghosts = self.accounts.ghosts(now_ms, self._settings.grace_ms)
        entries: list[Entry] = [*ghosts, *self.accounts.configure(now_ms, caps)]
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
        with self._failing_for_good("beginning a new segment"):
            self._segment = Segment.begin(self._disk, header, snapshot)
            old.close()
        self._tell_hint()
        _log.info(
            "event=ledger_rolled segment=%s n=%d previous=%s previous_bytes=%d previous_digest=%s",
            self._segment.name,
            header.n,
            old.name,
            old.size_bytes,
            header.prev,
        )

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
            free = self._disk.free_bytes()
        except OSError:
            # Not to know is no reason to stop: if the disk is full, writing will say so.
            free = needed
        self._room_is_low = free < needed
        if self._room_is_low and not was_low:
            _log.error(
                "event=ledger_low_on_room directory=%s free_bytes=%d needed_bytes=%d action=%r",
                self._where,
                free,
                needed,
                "make room on this disk; until then requests get 503 and running ones still settle",
            )
        elif was_low and not self._room_is_low:
            _log.info("event=ledger_has_room_again directory=%s free_bytes=%d", self._where, free)

    @contextlib.contextmanager
    def _failing_for_good(self, doing: str) -> Iterator[None]:
        if self._failed is not None:
            raise self._failed
        try:
            yield
        except OSError as error:
            what = f"{doing} failed: {error.strerror or error}"
            self._failed = JournalFailed(self._where, what)
            _log.error(
                "event=ledger_failed directory=%s error=%r action=%r",
                self._where,
                what,
                "cortexd ends now, no acknowledged budget is lost; check free space and the "
                "kernel log for this disk, then start it again",
            )
            raise self._failed from error

    def _log_opened(self, found: Found, ghosts: int) -> None:
        _log.info(
            "event=ledger_opened directory=%s segment=%s n=%d replayed=%d ghosts=%d torn_bytes=%d "
            "downtime_ms=%d rebooted=%s clock_skew_ms=%d",
            self._where,
            self._segment.name,
            found.n,
            found.replayed,
            ghosts,
            0 if found.torn is None else found.torn.size_bytes,
            self.clock.downtime_ms,
            str(self.clock.rebooted).lower(),
            self.clock.skew_ms(),
        )
        if found.torn is not None:
            _log.warning(
                "event=ledger_torn_tail file=%s/%s offset=%d bytes=%d action=%r",
                self._where,
                segment_name(found.segment),
                found.torn.offset,
                found.torn.size_bytes,
                "none needed: the last process died while it wrote this, and nobody was told that "
                "it is durable; it stays in that file and counts for nothing",
            )
        if self.clock.rebooted and self.clock.downtime_ms > _LONG_DOWNTIME_MS:
            _log.warning(
                "event=ledger_long_downtime downtime_ms=%d action=%r",
                self.clock.downtime_ms,
                "if this host was not off for that long its clock is wrong and rolling windows "
                "have expired early; set ledger.on_reboot to freeze on such hosts",
            )
