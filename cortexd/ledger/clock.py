"""Ledger time: milliseconds that never run backwards and that no change of the wall clock moves.

Within one boot it is CLOCK_BOOTTIME (which counts suspended time too) plus a fixed offset. The
offset is written into every segment header together with the boot's id, so that a restart within
the same boot goes on exactly. After a reboot the wall clock is the only witness of the downtime,
and it is believed only as far as a wrong one cannot make a rolling window expire too early:
windows may age late, never early. It knows nothing of the journal, which hands it what it wrote.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

OnReboot = Literal["wall", "freeze"]

# The wall time of the last record is extrapolated from the header of its segment, and a new
# segment is due once the wall clock has moved this far against ledger time. Smaller steps stay
# unseen, so a downtime is taken shorter by as much.
WALL_STEP_MS = 1_000

# A wall clock this far behind the ledger was wrong when the last record was written (a board
# without a battery, say): what it says now tells nothing about the downtime.
WALL_BEHIND_MS = 60_000

# 2023, before the first cortexd: a wall clock that said less at the last record had no battery. The
# rule above does not see it where ledger time itself began on such a clock.
WALL_BELIEVED_FROM_MS = 1_672_531_200_000

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class TimeSources(msgspec.Struct, frozen=True):
    """Where time comes from; tests bring their own.

    `boottime_ms` and `wall_ms` return milliseconds; `boot_id` is "" where the kernel does not
    tell, and then every start counts as a reboot.
    """

    boottime_ms: Callable[[], int]
    wall_ms: Callable[[], int]
    boot_id: str


class LastSeen(msgspec.Struct, frozen=True):
    """The newest moment that the journal knows of: the boot it belongs to and both times."""

    boot_id: str
    offset_ms: int
    ledger_ms: int
    wall_ms: int


class LedgerClock:
    """The clock of one journal.

    Without `last_seen` (a new journal) ledger time starts at the wall clock; then the two go
    their own ways. `downtime_ms` is how much ledger time passed between the last record and this
    clock's first moment, `rebooted` whether that had to be judged by the wall clock.
    """

    def __init__(
        self, sources: TimeSources, last_seen: LastSeen | None, on_reboot: OnReboot
    ) -> None:
        self._sources = sources
        self.boot_id = sources.boot_id
        boottime = sources.boottime_ms()
        self.rebooted = False
        if last_seen is None:
            self.offset_ms = sources.wall_ms() - boottime
            self._newest = boottime + self.offset_ms
            self.downtime_ms = 0
            return
        self.offset_ms = last_seen.offset_ms
        if not _is_same_boot(sources.boot_id, boottime, last_seen):
            self.rebooted = True
            passed = 0 if on_reboot == "freeze" else _downtime_ms(sources.wall_ms(), last_seen)
            self.offset_ms = last_seen.ledger_ms + passed - boottime
        self._newest = boottime + self.offset_ms
        self.downtime_ms = self._newest - last_seen.ledger_ms

    def now_ms(self) -> int:
        """Ledger time; never less than any earlier answer."""
        now_ms = self._sources.boottime_ms() + self.offset_ms
        if now_ms > self._newest:
            self._newest = now_ms
        return self._newest

    def wall_ms(self) -> int:
        """The host's wall clock: for headers and reports, never for a decision on a window."""
        return self._sources.wall_ms()

    def civil_ms(self) -> int:
        """Unix milliseconds for the civil calendar: the wall clock, where it can be believed.

        A clock that was never set (a board without a battery, before it has found a time server)
        would begin a period in 1970; ledger time has to do until then.
        """
        wall_ms = self._sources.wall_ms()
        return wall_ms if wall_ms >= WALL_BELIEVED_FROM_MS else self.now_ms()

    def skew_ms(self) -> int:
        """How far the wall clock is ahead of ledger time; steps of the wall clock show up here."""
        return self.wall_ms() - self.now_ms()


def system_time() -> TimeSources:
    """The time sources of the running kernel (Linux)."""
    return TimeSources(
        boottime_ms=lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000,
        wall_ms=lambda: time.time_ns() // 1_000_000,
        boot_id=_read_boot_id(_BOOT_ID),
    )


def _read_boot_id(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _is_same_boot(boot_id: str, boottime_ms: int, last_seen: LastSeen) -> bool:
    # A clock that would stand before the last record was moved by something else than a boot
    # (a restored machine image, a time namespace): the reboot rule is safe there as well.
    return (
        boot_id != ""
        and boot_id == last_seen.boot_id
        and boottime_ms + last_seen.offset_ms >= last_seen.ledger_ms
    )


def _downtime_ms(wall_ms: int, last_seen: LastSeen) -> int:
    if last_seen.wall_ms < max(WALL_BELIEVED_FROM_MS, last_seen.ledger_ms - WALL_BEHIND_MS):
        return 0
    believed = min(wall_ms - last_seen.wall_ms, wall_ms - last_seen.ledger_ms)
    return max(0, believed - WALL_STEP_MS)
