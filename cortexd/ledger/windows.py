"""What counts against a cap, and until when: balances and true sliding windows.

Owns the memory of charges. Refuses to know open reservations (`limits.py` adds them), caps beyond
the room that is asked about, and clocks: every call is told the ledger time.

A charge is stamped when it is settled, never when it was reserved, and counts for one window from
then. With open reservations always counting, that is what makes "no window of this length ever
exceeds the cap" true for tokens really consumed: of all requests that touch an interval, take the
one admitted last; at its admission every other one was either still reserved, or settled less than
a window ago, so the check that admitted it saw them all.
"""

from collections import deque
from collections.abc import Iterable

import msgspec

from cortexd.ledger.cap_windows import BALANCE, rolling
from cortexd.ledger.entries import AMOUNT_MAX, WindowBooks

BUCKETS = 60
"""Grains of a rolling window: charges this close together may share an entry."""

ASK_AGAIN_MS = 1000
"""When to ask again where only open reservations are in the way and nobody knows their end."""


class Fit(msgspec.Struct, frozen=True):
    """When a request will fit. `exact`: then and no millisecond sooner, if nothing else happens."""

    at_ms: int
    exact: bool


class Balance:
    """Charges that count for ever.

    `remembered`, here as in every window: all that was charged and is not forgotten yet, so no less
    than what counts at any time, and for most questions that is answer enough.
    """

    __slots__ = ("remembered",)

    window = BALANCE

    def __init__(self, spent: int = 0) -> None:
        self.remembered = spent

    def spent_at(self, now_ms: int) -> int:
        """Tokens that count at `now_ms`: all of them."""
        return self.remembered if self.remembered < AMOUNT_MAX else AMOUNT_MAX

    def charge(self, now_ms: int, tokens: int) -> None:
        """Count `tokens` from `now_ms` on."""
        self.remembered += tokens

    def fit(self, now_ms: int, room: int) -> Fit | None:
        """When no more than `room` tokens will count: None, as time gives nothing back."""
        return None

    def restored_in_ms(self, now_ms: int, *, reserved: int) -> int | None:
        """How long until nothing counts: None, never."""
        return None

    def books_at(self, now_ms: int) -> WindowBooks:
        """What a snapshot at `now_ms` keeps: the sum, a balance does not remember when."""
        return WindowBooks(self.spent_at(now_ms))

    def check(self) -> str | None:
        """Say what is wrong with the books, if anything."""
        return None if self.remembered >= 0 else f"balance of {self.remembered}"


class Rolling:
    """Charges that count for `window_ms` each: a true sliding window in bounded memory.

    A charge joins the newest entry when both lie in one grain (a `buckets`-th of the window), and
    the entry's stamp then moves forward to the newer one: tokens may count a grain too long, never
    too short. An entry counts a little longer than the window, by one part in 1024 and a
    millisecond, so that a ledger clock that runs fast cannot shorten anybody's window. At most
    `buckets + 2` entries are alive; expired ones go when a charge begins a grain, never in a query.
    """

    __slots__ = (
        *("_buckets", "_charges", "_counts_ms", "_grain_ms", "_newest_grain"),
        *("remembered", "window"),
    )

    def __init__(
        self, window_ms: int, charges: Iterable[tuple[int, int]] = (), *, buckets: int = BUCKETS
    ) -> None:
        """`charges`: pairs (stamp, tokens) from another window, oldest first, to begin with."""
        if window_ms < 1:
            raise ValueError(f"a rolling window of {window_ms} ms")
        self.window = rolling(window_ms)
        self._buckets = buckets
        self._counts_ms = window_ms + window_ms // 1024 + 1
        self._grain_ms = -(-window_ms // buckets)
        self._charges: deque[tuple[int, int]] = deque()
        self._newest_grain = -1
        self.remembered = 0
        for stamp, tokens in charges:
            self.charge(stamp, tokens)

    def spent_at(self, now_ms: int) -> int:
        """Tokens that count at `now_ms`, which is not before the last charge."""
        spent = self.remembered
        for stamp, tokens in self._charges:
            if stamp + self._counts_ms > now_ms:
                break
            spent -= tokens
        return spent if spent < AMOUNT_MAX else AMOUNT_MAX

    def charge(self, now_ms: int, tokens: int) -> None:
        """Count `tokens` from `now_ms` on; `now_ms` never runs backwards."""
        if not tokens:
            return
        charges = self._charges
        merged = 0
        grain = now_ms // self._grain_ms
        if grain == self._newest_grain:  # its entry is still there: it outlives the grain
            merged = charges.pop()[1]
        else:
            self._newest_grain = grain
            while charges and charges[0][0] + self._counts_ms <= now_ms:
                self.remembered -= charges.popleft()[1]
        total = merged + tokens
        if total > AMOUNT_MAX:
            total = AMOUNT_MAX
        charges.append((now_ms, total))
        self.remembered += total - merged

    def fit(self, now_ms: int, room: int) -> Fit | None:
        """When no more than `room` tokens will count, if nothing more is charged.

        A negative `room` says that open reservations alone are too much; no charge that ages helps.
        """
        spent = self.remembered
        if spent <= room:
            return Fit(now_ms, exact=True)
        for stamp, tokens in self._charges:
            spent -= tokens
            if spent <= room:
                return Fit(max(now_ms, stamp + self._counts_ms), exact=True)
        return Fit(now_ms + ASK_AGAIN_MS, exact=False)

    def restored_in_ms(self, now_ms: int, *, reserved: int) -> int | None:
        """How long until nothing counts, if what is `reserved` were charged now."""
        if reserved:
            return self._counts_ms
        if not self._charges:
            return 0
        return max(0, self._charges[-1][0] + self._counts_ms - now_ms)

    def charges_at(self, now_ms: int) -> tuple[tuple[int, int], ...]:
        """The entries that still count at `now_ms`, oldest first."""
        counts_ms = self._counts_ms
        return tuple(entry for entry in self._charges if entry[0] + counts_ms > now_ms)

    def books_at(self, now_ms: int) -> WindowBooks:
        """What a snapshot at `now_ms` keeps: the entries that still count."""
        return WindowBooks(charges=self.charges_at(now_ms))

    def check(self) -> str | None:
        """Say what is wrong with the books, if anything."""
        stamps = [stamp for stamp, _ in self._charges]
        if len(stamps) > self._buckets + 2:
            return f"{len(stamps)} entries"
        if stamps != sorted(set(stamps)):
            return "entries out of order"
        if any(not 0 < tokens <= AMOUNT_MAX for _, tokens in self._charges):
            return "an entry out of range"
        if self.remembered != sum(tokens for _, tokens in self._charges):
            return f"a sum of {self.remembered} that is none"
        return None
