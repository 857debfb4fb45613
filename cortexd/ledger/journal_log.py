"""What a journal says in the log: one function for each event.

Owns the words, and what an operator is told to do. Refuses to know when they are said:
`journal.py` decides that.
"""

import logging

from cortexd.ledger.clock import LedgerClock
from cortexd.ledger.opening import Found
from cortexd.ledger.retention import Removed
from cortexd.ledger.segment import Segment, segment_name

_log = logging.getLogger("cortexd.ledger")

_LONG_DOWNTIME_MS = 30 * 24 * 3_600_000


def opened(where: str, segment: Segment, clock: LedgerClock, found: Found, ghosts: int) -> None:
    """The journal is open: what it found, and what was odd about it."""
    _log.info(
        "event=ledger_opened directory=%s segment=%s n=%d replayed=%d ghosts=%d torn_bytes=%d "
        "downtime_ms=%d rebooted=%s clock_skew_ms=%d",
        where,
        segment.name,
        found.n,
        found.replayed,
        ghosts,
        0 if found.torn is None else found.torn.size_bytes,
        clock.downtime_ms,
        str(clock.rebooted).lower(),
        clock.skew_ms(),
    )
    if found.torn is not None:
        _log.warning(
            "event=ledger_torn_tail file=%s/%s line=%d offset=%d bytes=%d action=%r",
            where,
            segment_name(found.segment),
            found.torn.line,
            found.torn.offset,
            found.torn.size_bytes,
            "none needed: the last process died while it wrote this, and nobody was told that "
            "it is durable; it stays in that file and counts for nothing",
        )
    if clock.rebooted and clock.downtime_ms > _LONG_DOWNTIME_MS:
        _log.warning(
            "event=ledger_long_downtime downtime_ms=%d action=%r",
            clock.downtime_ms,
            "if this host was not off for that long its clock is wrong and rolling windows "
            "have expired early; set ledger.on_reboot to freeze on such hosts",
        )


def rolled(segment: Segment, old: Segment) -> None:
    """A new segment begins. The digest is on record here, outside of the files."""
    _log.info(
        "event=ledger_rolled segment=%s n=%d previous=%s previous_bytes=%d previous_digest=%s",
        segment.name,
        segment.header.n,
        old.name,
        old.size_bytes,
        segment.header.prev,
    )


def history_gave_room(where: str, removed: Removed) -> None:
    """Closed segments were removed, or should have been, so that reservations have room."""
    if removed.numbers:
        _log.warning(
            "event=ledger_history_gave_room directory=%s first=%s last=%s segments=%d bytes=%d "
            "action=%r",
            where,
            segment_name(removed.numbers[0]),
            segment_name(removed.numbers[-1]),
            len(removed.numbers),
            removed.size_bytes,
            "make room on this disk: history goes before its time, and then requests get 503",
        )
    _history_stays(where, removed)


def history_removed(where: str, removed: Removed) -> None:
    """Closed segments were removed for their age or size, or should have been."""
    if removed.numbers:
        _log.info(
            "event=ledger_history_removed first=%s last=%s segments=%d bytes=%d",
            segment_name(removed.numbers[0]),
            segment_name(removed.numbers[-1]),
            len(removed.numbers),
            removed.size_bytes,
        )
    _history_stays(where, removed)


def _history_stays(where: str, removed: Removed) -> None:
    if removed.obstacle is not None:
        _log.warning(
            "event=ledger_history_stays directory=%s error=%r action=%r",
            where,
            str(removed.obstacle),
            "remove the oldest segments by hand; they are history, no balance depends on them",
        )


def history_unsynced(where: str, number: int, error: OSError) -> None:
    """The segment of the process before could not be made durable."""
    _log.warning(
        "event=ledger_history_unsynced file=%s/%s error=%r action=%r",
        where,
        segment_name(number),
        error.strerror or str(error),
        "look at the kernel log: this disk fails; no balance depends on this file",
    )


def low_on_room(where: str, free_bytes: int, needed_bytes: int) -> None:
    """Nothing more is reserved until there is room."""
    _log.error(
        "event=ledger_low_on_room directory=%s free_bytes=%d needed_bytes=%d action=%r",
        where,
        free_bytes,
        needed_bytes,
        "make room on this disk; until then requests get 503 and running ones still settle",
    )


def has_room_again(where: str, free_bytes: int) -> None:
    """Reservations are made again."""
    _log.info("event=ledger_has_room_again directory=%s free_bytes=%d", where, free_bytes)


def failed(where: str, what: str) -> None:
    """The disk failed: this process writes nothing more."""
    _log.error(
        "event=ledger_failed directory=%s error=%r action=%r",
        where,
        what,
        "cortexd ends now, no acknowledged budget is lost; check free space and the kernel log "
        "for this disk, then start it again",
    )
