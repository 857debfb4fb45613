"""What counts against a cap whose window begins anew from time to time: fixed and civil periods.

Owns the memory of one period. Refuses to know the wall clock and the calendar: a fixed period
follows from ledger time alone, a civil one is told when it begins (`CalendarRoll`).

A charge belongs to the period in which it is settled, and open reservations count in every period
they reach into, so no more is consumed in any period than the cap, for the reason that `windows.py`
gives.
"""

import msgspec

from cortexd.ledger.cap_windows import HELD, CapWindow
from cortexd.ledger.entries import AMOUNT_MAX, WindowBooks
from cortexd.ledger.windows import ASK_AGAIN_MS, Fit


class CalendarRoll(msgspec.Struct, frozen=True):
    """A civil period: begin and end on the wall clock, in Unix milliseconds.

    `not_before_ms`: until then, in ledger time, no next period begins, whatever that clock says.
    """

    begins_wall_ms: int
    ends_wall_ms: int
    not_before_ms: int


class CivilClock:
    """How far the wall clock is ahead of ledger time, as far as anybody has said.

    For forecasts alone: what counts and what is admitted does not depend on it.
    """

    __slots__ = ("ahead_ms",)

    def __init__(self) -> None:
        self.ahead_ms = 0


class Fixed:
    """Charges that count until the end of their period of `window.ms`, in ledger time."""

    __slots__ = ("_begins_ms", "remembered", "window")

    def __init__(self, window: CapWindow, now_ms: int, spent: int = 0) -> None:
        if window.ms < 1:
            raise ValueError(f"a fixed window of {window.ms} ms")
        self.window = window
        self._begins_ms = self._begin(now_ms)
        self.remembered = spent

    def spent_at(self, now_ms: int) -> int:
        """What counts at `now_ms`, which is not before the last charge."""
        return 0 if now_ms >= self._begins_ms + self.window.ms else min(self.remembered, AMOUNT_MAX)

    def charge(self, now_ms: int, amount: int) -> None:
        """Count `amount` until the end of the period of `now_ms`."""
        if now_ms >= self._begins_ms + self.window.ms:
            self._begins_ms = self._begin(now_ms)
            self.remembered = 0
        self.remembered += amount

    def fit(self, now_ms: int, room: int) -> Fit | None:
        """When no more than `room` will count, if nothing more is charged."""
        if self.spent_at(now_ms) <= room:
            return Fit(now_ms, exact=True)
        if room < 0:
            return Fit(now_ms + ASK_AGAIN_MS, exact=False)
        return Fit(self._begins_ms + self.window.ms, exact=True)

    def restored_in_ms(self, now_ms: int, *, reserved: int) -> int | None:
        """How long until nothing counts, if what is `reserved` were charged now."""
        if not reserved and not self.spent_at(now_ms):
            return 0
        return self._begin(now_ms) + self.window.ms - now_ms

    def books_at(self, now_ms: int) -> WindowBooks:
        """What a snapshot at `now_ms` keeps."""
        return WindowBooks(self.spent_at(now_ms), begins_ms=self._begin(now_ms))

    def check(self) -> str | None:
        """Say what is wrong with the books, if anything."""
        return None if self.remembered >= 0 else f"{self.remembered} in a period"

    def _begin(self, now_ms: int) -> int:
        return now_ms - now_ms % self.window.ms


class Calendar:
    """Charges that count until the civil period ends, which somebody has to say: `begin`."""

    __slots__ = ("_clock", "remembered", "roll", "window")

    def __init__(
        self, window: CapWindow, roll: CalendarRoll, clock: CivilClock, spent: int = 0
    ) -> None:
        self.window = window
        self.roll = roll
        self._clock = clock
        self.remembered = spent

    def begin(self, roll: CalendarRoll) -> None:
        """A new period begins: nothing counts in it yet."""
        self.roll = roll
        self.remembered = 0

    def is_over(self, now_ms: int, wall_ms: int) -> bool:
        """Whether the wall clock says another period, and nearly all of this one has passed.

        A wall clock that is moved, forward or back, begins no period that time has not earned; and
        one that comes back after it was ahead keeps no cap shut until that time has come again.
        """
        roll = self.roll
        is_another = not roll.begins_wall_ms <= wall_ms < roll.ends_wall_ms
        return is_another and now_ms >= roll.not_before_ms

    def spent_at(self, now_ms: int) -> int:
        """What counts in this period."""
        return min(self.remembered, AMOUNT_MAX)

    def charge(self, now_ms: int, amount: int) -> None:
        """Count `amount` until the period ends."""
        self.remembered += amount

    def fit(self, now_ms: int, room: int) -> Fit | None:
        """When no more than `room` will count: in the next period, as far as one can foresee."""
        if self.spent_at(now_ms) <= room:
            return Fit(now_ms, exact=True)
        if room < 0:
            return Fit(now_ms + ASK_AGAIN_MS, exact=False)
        return Fit(max(self._ends_ms(), now_ms + 1), exact=False)

    def restored_in_ms(self, now_ms: int, *, reserved: int) -> int | None:
        """How long until nothing counts, if what is `reserved` were charged now."""
        if not reserved and not self.remembered:
            return 0
        return max(0, self._ends_ms() - now_ms)

    def books_at(self, now_ms: int) -> WindowBooks:
        """What a snapshot at `now_ms` keeps."""
        roll = self.roll
        return WindowBooks(
            self.spent_at(now_ms),
            begins_ms=roll.begins_wall_ms,
            ends_ms=roll.ends_wall_ms,
            not_before_ms=roll.not_before_ms,
        )

    def _ends_ms(self) -> int:
        """When the next period begins, in ledger time, if nobody moves the wall clock any more."""
        roll, ahead_ms = self.roll, self._clock.ahead_ms
        return max(roll.ends_wall_ms - ahead_ms, roll.not_before_ms)

    def check(self) -> str | None:
        """Say what is wrong with the books, if anything."""
        return None if self.remembered >= 0 else f"{self.remembered} in a period"


class Held:
    """Nothing is ever charged: only what is reserved at the moment counts."""

    __slots__ = ()

    window = HELD
    remembered = 0

    def spent_at(self, now_ms: int) -> int:
        """Nothing."""
        return 0

    def charge(self, now_ms: int, amount: int) -> None:
        """Nothing to remember."""

    def fit(self, now_ms: int, room: int) -> Fit | None:
        """Nobody knows when another request ends."""
        return Fit(now_ms, exact=True) if room >= 0 else Fit(now_ms + ASK_AGAIN_MS, exact=False)

    def restored_in_ms(self, now_ms: int, *, reserved: int) -> int | None:
        """Unknown, as long as something is reserved."""
        return None if reserved else 0

    def books_at(self, now_ms: int) -> WindowBooks:
        """Nothing to keep: the open reservations say it all."""
        return WindowBooks()

    def check(self) -> str | None:
        """Nothing can be wrong."""
        return None
