"""One cap on one scope: its window, what is reserved on it, and what it says to a request.

Owns the question "does it fit, and if not, when?" for one cap, and which of several refusals to
tell. Refuses to know reservations one by one and the other caps: `limit_table.py` keeps those.
"""

from collections.abc import Sequence
from typing import Self, TypeAlias

import msgspec

from cortexd.ledger.cap_windows import Unit
from cortexd.ledger.entries import (
    AMOUNT_MAX,
    LimitBooks,
    LimitEntry,
    LimitId,
    OpenReservation,
    Refused,
    Scope,
    Standing,
    limit_id,
)
from cortexd.ledger.periods import Calendar, CalendarRoll, CivilClock, Fixed, Held
from cortexd.ledger.windows import BUCKETS, Balance, Rolling

Window: TypeAlias = Balance | Rolling | Fixed | Calendar | Held


class Limit:
    """A cap and its books. Open reservations count in full for as long as they are open.

    Amounts count in `unit`: a reservation costs a token limit its tokens, the others 1. Requests
    are charged when they are admitted and never given back; tokens when they are settled.

    `retired`: the configuration no longer asks for it. `shadow`: it refuses nothing, by wish of the
    operator. Both admit everything, and their books are kept up to date all the same, so that
    taking a cap away and bringing it back is no reset.
    """

    __slots__ = ("hard_cap", "limit_id", "reserved", "retired", "scope", "shadow", "unit", "window")

    def __init__(self, scope: Scope, hard_cap: int, window: Window, unit: Unit = "tok") -> None:
        self.limit_id: LimitId = limit_id(scope, window.window, unit)
        self.scope = scope
        self.unit = unit
        self.hard_cap = hard_cap
        self.window = window
        self.reserved = 0
        self.retired = False
        self.shadow = False

    def cost(self, tokens: int) -> int:
        """What a reservation of `tokens` costs in this limit's unit."""
        return tokens if self.unit == "tok" else 1

    def reserved_by(self, reservations: Sequence[OpenReservation]) -> int:
        """What these open reservations, all on its scope, keep reserved here."""
        if self.unit == "req":
            return 0
        return sum(self.cost(found.tokens) for found in reservations)

    def fits(self, now_ms: int, tokens: int) -> bool:
        """Whether there is room for `tokens` more at `now_ms`, whether or not it is enforced."""
        window = self.window
        room = self.hard_cap - self.reserved - (tokens if self.unit == "tok" else 1)
        return window.remembered <= room or window.spent_at(now_ms) <= room

    def hold(self, now_ms: int, tokens: int) -> None:
        """A reservation of `tokens` is made."""
        if self.unit == "tok":
            self.reserved += tokens
        elif self.unit == "con":
            self.reserved += 1
        else:
            self.window.charge(now_ms, 1)

    def close(self, now_ms: int, reserved: int, charged: int) -> None:
        """A reservation of `reserved` tokens ends and is charged `charged`."""
        if self.unit == "tok":
            self.reserved -= reserved
            self.window.charge(now_ms, charged)
        elif self.unit == "con":
            self.reserved -= 1

    def refusal(self, now_ms: int, tokens: int) -> Refused:
        """Explain why `tokens` are not admitted at `now_ms`, and when they will be."""
        asked = self.cost(tokens)
        fit = None
        if asked <= self.hard_cap:
            fit = self.window.fit(now_ms, self.hard_cap - self.reserved - asked)
        return Refused(
            standing=self.standing(now_ms),
            asked=asked,
            fits_in_ms=None if fit is None else fit.at_ms - now_ms,
            exact=fit is not None and fit.exact,
        )

    def standing(self, now_ms: int) -> Standing:
        """How the cap stands at `now_ms`."""
        window, reserved = self.window, self.reserved
        return Standing(  # by position, as each request asks for those of all its caps
            self.scope,
            self.hard_cap,
            window.window,
            window.spent_at(now_ms),
            reserved,
            window.restored_in_ms(now_ms, reserved=reserved),
            self.unit,
            self.shadow,
        )

    def books(self, now_ms: int) -> LimitBooks:
        """What a snapshot at `now_ms` keeps."""
        return LimitBooks(
            scope=self.scope,
            unit=self.unit,
            window=self.window.window,
            hard_cap=self.hard_cap,
            retired=self.retired,
            shadow=self.shadow,
            books=self.window.books_at(now_ms),
        )

    @classmethod
    def from_books(cls, found: LimitBooks, clock: CivilClock, *, buckets: int = BUCKETS) -> Self:
        """Undo `books`; what is reserved has to be added."""
        limit = cls(found.scope, found.hard_cap, _restored(found, clock, buckets), found.unit)
        limit.retired = found.retired
        limit.shadow = found.shadow
        return limit

    def check(self) -> str | None:
        """Say what is wrong with the books, if anything."""
        if not 0 <= self.hard_cap <= AMOUNT_MAX:
            return f"a cap of {self.hard_cap}"
        return self.window.check()


def begun(
    entry: LimitEntry,
    clock: CivilClock,
    *,
    spent_ever: int,
    charges: Sequence[tuple[int, int]],
    buckets: int,
) -> Window:
    """The window of a limit that is new.

    `spent_ever`: what its scope has spent since its first request, which is how a balance begins.
    `charges`: what is remembered with a stamp, oldest first; all others begin with what counts of
    it. Raises ValueError for a window that cannot be.
    """
    window = entry.window
    match window.kind:
        case "balance":
            return Balance(spent_ever)
        case "rolling":
            return Rolling(window.ms, charges, buckets=buckets)
        case "fixed":
            begins_ms = entry.t - entry.t % window.ms
            return Fixed(window, entry.t, _since(begins_ms, charges))
        case "calendar":
            roll = CalendarRoll(entry.g, entry.e, entry.r)
            return Calendar(window, roll, clock, _since(entry.b, charges))
        case "held":
            return Held()


def _restored(found: LimitBooks, clock: CivilClock, buckets: int) -> Window:
    books, window = found.books, found.window
    match window.kind:
        case "balance":
            return Balance(books.spent)
        case "rolling":
            return Rolling(window.ms, books.charges, buckets=buckets)
        case "fixed":
            return Fixed(window, books.begins_ms, books.spent)
        case "calendar":
            roll = CalendarRoll(books.begins_ms, books.ends_ms, books.not_before_ms)
            return Calendar(window, roll, clock, books.spent)
        case "held":
            return Held()


def _since(begins_ms: int, charges: Sequence[tuple[int, int]]) -> int:
    return sum(amount for stamp, amount in charges if stamp >= begins_ms)


def clamped(limits: Sequence[Limit], now_ms: int, tokens: int, *, least: int, step: int) -> int:
    """What is left for a request whose `tokens` do not fit under all of `limits`.

    At least `least`, whether or not these fit; more only in steps of `step`.
    """
    refusing = [limit for limit in limits if not limit.fits(now_ms, tokens)]
    left = [limit.standing(now_ms).available for limit in refusing if limit.unit == "tok"]
    more = min(left, default=tokens) - least
    return least + max(0, more // step * step)


def worst(refusals: Sequence[Refused]) -> Refused:
    """Choose which of several refusals to tell: the one that lasts longest.

    What waiting cannot cure comes first (a balance before another cap that is too small for the
    request, as only the latter will ever admit a smaller one; of several, the smallest); else the
    cap that takes longest. The
    answer is exact only if all are: until then a reservation may be in the way of another cap.
    """
    never = [refused for refused in refusals if refused.fits_in_ms is None]
    if never:
        return min(never, key=_hopelessness)
    latest = max(refusals, key=lambda refused: refused.fits_in_ms or 0)
    return msgspec.structs.replace(latest, exact=all(refused.exact for refused in refusals))


def _hopelessness(refused: Refused) -> tuple[bool, int]:
    return refused.standing.window.kind != "balance", refused.standing.hard_cap


def refusal(limits: Sequence[Limit], now_ms: int, tokens: int) -> Refused | None:
    """Why `tokens` do not fit under all of `limits`, and when they will; None if they do."""
    refusing = [limit for limit in limits if not limit.fits(now_ms, tokens)]
    return worst([limit.refusal(now_ms, tokens) for limit in refusing]) if refusing else None
