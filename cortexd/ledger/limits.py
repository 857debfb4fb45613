"""One cap on one scope: its window, what is reserved on it, and what it says to a request.

Owns the question "does it fit, and if not, when?" for one cap, and which of several refusals to
tell. Refuses to know reservations one by one and the other caps: `accounts.py` keeps those.
"""

from collections.abc import Sequence
from typing import Self

import msgspec

from cortexd.ledger.entries import AMOUNT_MAX, LimitBooks, Refused, Scope, Standing
from cortexd.ledger.windows import BUCKETS, Window, window_of


class Limit:
    """A cap and its books. Open reservations count in full for as long as they are open.

    `retired`: the configuration no longer asks for it. It admits everything, and its books are kept
    up to date all the same, so that taking a cap away and bringing it back is no reset.
    """

    __slots__ = ("hard_cap", "reserved", "retired", "scope", "window")

    def __init__(self, scope: Scope, hard_cap: int, window: Window, *, reserved: int = 0) -> None:
        self.scope = scope
        self.hard_cap = hard_cap
        self.window = window
        self.reserved = reserved
        self.retired = False

    def admits(self, now_ms: int, tokens: int) -> bool:
        """Whether `tokens` more can be reserved at `now_ms`."""
        if self.retired:
            return True
        return self.window.spent_at(now_ms) + self.reserved + tokens <= self.hard_cap

    def refusal(self, now_ms: int, tokens: int) -> Refused:
        """Explain why `tokens` are not admitted at `now_ms`, and when they will be."""
        fit = None
        if tokens <= self.hard_cap:
            fit = self.window.fit(now_ms, self.hard_cap - self.reserved - tokens)
        return Refused(
            standing=self.standing(now_ms),
            asked=tokens,
            fits_in_ms=None if fit is None else fit.at_ms - now_ms,
            exact=fit is not None and fit.exact,
        )

    def standing(self, now_ms: int) -> Standing:
        """How the cap stands at `now_ms`."""
        return Standing(
            scope=self.scope,
            hard_cap=self.hard_cap,
            window_ms=self.window.window_ms,
            spent=self.window.spent_at(now_ms),
            reserved=self.reserved,
            restored_in_ms=self.window.restored_in_ms(now_ms, reserved=self.reserved),
        )

    def books(self, now_ms: int) -> LimitBooks:
        """What a snapshot at `now_ms` keeps."""
        rolling = self.window.window_ms is not None
        return LimitBooks(
            scope=self.scope,
            hard_cap=self.hard_cap,
            window_ms=self.window.window_ms,
            spent=0 if rolling else self.window.spent_at(now_ms),
            charges=self.window.charges_at(now_ms),
            retired=self.retired,
        )

    @classmethod
    def from_books(cls, books: LimitBooks, *, reserved: int, buckets: int = BUCKETS) -> Self:
        """Undo `books`; `reserved` is the sum of the open reservations on the scope."""
        window = window_of(
            books.window_ms, spent=books.spent, charges=books.charges, buckets=buckets
        )
        limit = cls(books.scope, books.hard_cap, window, reserved=reserved)
        limit.retired = books.retired
        return limit

    def check(self) -> str | None:
        """Say what is wrong with the books, if anything."""
        if not 0 <= self.hard_cap <= AMOUNT_MAX:
            return f"a cap of {self.hard_cap}"
        return self.window.check()


def worst(refusals: Sequence[Refused]) -> Refused:
    """Choose which of several refusals to tell: the one that lasts longest.

    What waiting cannot cure comes first (a balance before a rolling cap that is too small for the
    request, as only the latter will ever admit a smaller one); else the cap that takes longest. The
    answer is exact only if all are: until then a reservation may be in the way of another cap.
    """
    never = [refused for refused in refusals if refused.fits_in_ms is None]
    if never:
        return min(never, key=lambda refused: refused.standing.window_ms is not None)
    latest = max(refusals, key=lambda refused: refused.fits_in_ms or 0)
    return msgspec.structs.replace(latest, exact=all(refused.exact for refused in refusals))
