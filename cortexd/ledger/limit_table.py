"""All caps: by name for the journal, by scope for requests, and their civil periods.

Owns which limits there are, what a new one begins with, and when civil periods begin. Refuses to
know who asks and what is reserved one by one: it is told what matters when a limit is new.
"""

import math
from collections.abc import Iterable, Sequence

import msgspec

from cortexd.ledger.cap_windows import CapWindow, Unit, civil_period
from cortexd.ledger.entries import (
    AMOUNT_MAX,
    Cap,
    DropEntry,
    LimitBooks,
    LimitEntry,
    LimitId,
    OpenReservation,
    RollEntry,
    Scope,
)
from cortexd.ledger.limits import Limit, begun
from cortexd.ledger.periods import Calendar, CalendarRoll, CivilClock
from cortexd.ledger.reservations import IllegalEntry
from cortexd.ledger.windows import Rolling


class OnScopes(msgspec.Struct, frozen=True):
    """The limits on the scopes of one request, in their order; those on one scope by name.

    `asked_for`: without the retired ones. `enforcing`: those of them that can refuse, `shadows`:
    those that only say what they would.
    """

    every: tuple[Limit, ...]
    asked_for: tuple[Limit, ...]
    enforcing: tuple[Limit, ...]
    shadows: tuple[Limit, ...]


class LimitsOn(dict[tuple[Scope, ...], OnScopes]):
    """The limits on the scopes of one request, by these scopes; looked up when asked for.

    `by_scope`: where all of them are, by one scope each.
    """

    def __init__(self, by_scope: dict[Scope, list[Limit]]) -> None:
        super().__init__()
        self._by_scope = by_scope

    def __missing__(self, scopes: tuple[Scope, ...]) -> OnScopes:
        every = tuple(limit for scope in scopes for limit in self._by_scope.get(scope, ()))
        asked_for = tuple(limit for limit in every if not limit.retired)
        found = self[scopes] = OnScopes(
            every,
            asked_for,
            enforcing=tuple(limit for limit in asked_for if not limit.shadow),
            shadows=tuple(limit for limit in asked_for if limit.shadow),
        )
        return found


class LimitTable:
    """Every limit that was ever asked for. `buckets`: grains of a rolling window.

    `on[scopes]`: the limits on the scopes of one request.
    """

    __slots__ = (
        *("_by_id", "_by_scope", "_calendars", "_clock", "_same_periods"),
        *("buckets", "on"),
    )

    def __init__(self, *, buckets: int) -> None:
        self.buckets = buckets
        self._clock = CivilClock()
        self._by_id: dict[LimitId, Limit] = {}
        self._by_scope: dict[Scope, list[Limit]] = {}
        # As many as there are keys, for each request asks four times; until a cap changes.
        self.on = LimitsOn(self._by_scope)
        self._calendars: list[tuple[Limit, Calendar]] = []
        # The wall clock times at which all civil periods are the current ones; None: not known.
        self._same_periods: tuple[float, float] | None = None

    def every(self) -> tuple[Limit, ...]:
        """All limits, by name."""
        return tuple(self._by_id[name] for name in sorted(self._by_id))

    # From the caps that an operator wants to the entries that make it so.

    def configure(
        self, caps: Iterable[Cap], *, now_ms: int, wall_ms: int
    ) -> tuple[LimitEntry | DropEntry, ...]:
        """List what makes exactly `caps` enforced: nothing for those that are as they should be.

        Raises ValueError for two caps of one unit and window on one scope, or a cap that cannot be
        (a bug: the configuration was checked before it came here).
        """
        wanted: dict[LimitId, Cap] = {}
        for cap in caps:
            is_possible = cap.window.makes_sense and 0 <= cap.hard_cap <= AMOUNT_MAX
            if cap.limit_id in wanted or not is_possible:
                raise ValueError(f"a cap that cannot be, or is there twice: {cap}")
            wanted[cap.limit_id] = cap
        entries: list[LimitEntry | DropEntry] = [
            _limit_entry(cap, now_ms, wall_ms, is_new=name not in self._by_id)
            for name, cap in wanted.items()
            if not self._is_as_wanted(name, cap)
        ]
        entries += [
            DropEntry(now_ms, name)
            for name, limit in self._by_id.items()
            if not limit.retired and name not in wanted
        ]
        return tuple(entries)

    def _is_as_wanted(self, name: LimitId, cap: Cap) -> bool:
        limit = self._by_id.get(name)
        return (
            limit is not None
            and not limit.retired
            and (limit.hard_cap, limit.shadow) == (cap.hard_cap, cap.shadow)
        )

    def foresee(self, *, wall_ahead_ms: int) -> None:
        """Take note of how far the wall clock is ahead, and of when a civil period is due."""
        self._clock.ahead_ms = wall_ahead_ms
        if self._same_periods is None:
            self._same_periods = self._find_same_periods()

    def rolls(self, now_ms: int, wall_ms: int) -> tuple[RollEntry, ...]:
        """Begin the civil periods that are due."""
        begin_ms, end_ms = self._same_periods or self._find_same_periods()
        if begin_ms <= wall_ms < end_ms:
            return ()
        periods: dict[CapWindow, _Period] = {}
        entries: list[RollEntry] = []
        for limit, calendar in self._calendars:
            if calendar.is_over(now_ms, wall_ms):
                window, earlier = calendar.window, calendar.roll
                if window not in periods:
                    periods[window] = _Period(window, now_ms, wall_ms, earlier.ends_wall_ms)
                period = periods[window]
                not_before_ms = period.not_before_ms(earlier.not_before_ms)
                entries.append(
                    RollEntry(
                        now_ms,
                        limit.limit_id,
                        period.begins_wall_ms,
                        period.ends_wall_ms,
                        not_before_ms,
                    )
                )
        return tuple(entries)

    def _find_same_periods(self) -> tuple[float, float]:
        rolls = [calendar.roll for _, calendar in self._calendars]
        return (
            max((roll.begins_wall_ms for roll in rolls), default=-math.inf),
            min((roll.ends_wall_ms for roll in rolls), default=math.inf),
        )

    # What entries do. Each raises IllegalEntry, having changed nothing, if it cannot be.

    def apply_limit(
        self, entry: LimitEntry, *, spent_ever: int, reservations: Sequence[OpenReservation]
    ) -> None:
        """A cap is new, changed, or back. `reservations`: the open ones on its scope."""
        limit = self._by_id.get(entry.l)
        if limit is None:
            limit = self._new(entry, spent_ever)
            limit.reserved = limit.reserved_by(reservations)
            self._add(limit)
        limit.hard_cap = entry.c
        limit.shadow = entry.h
        limit.retired = False
        self.on.clear()

    def apply_drop(self, entry: DropEntry) -> None:
        """A cap is no longer enforced."""
        limit = self._by_id.get(entry.l)
        if limit is None or limit.retired:
            raise IllegalEntry(f"limit {entry.l} is dropped but was not enforced")
        limit.retired = True
        self.on.clear()

    def apply_roll(self, entry: RollEntry) -> None:
        """A civil period begins."""
        limit = self._by_id.get(entry.l)
        if limit is None or not isinstance(limit.window, Calendar):
            raise IllegalEntry(f"a period that cannot begin: {entry}")
        limit.window.begin(CalendarRoll(entry.g, entry.e, entry.r))
        self._same_periods = None

    def restore(self, found: LimitBooks, reservations: Sequence[OpenReservation]) -> None:
        """Take a limit from a snapshot. `reservations`: the open ones on its scope."""
        limit = Limit.from_books(found, self._clock, buckets=self.buckets)
        limit.reserved = limit.reserved_by(reservations)
        self._add(limit)

    def _new(self, entry: LimitEntry, spent_ever: int) -> Limit:
        remembered = self._remembered(entry.s, entry.u, entry.window, entry.t)
        if not entry.window.makes_sense or (entry.u == "con") != (entry.m == "held"):
            raise IllegalEntry(f"a limit that makes no sense: {entry}")
        if entry.m == "calendar" and entry.e <= entry.g:
            raise IllegalEntry(f"a limit without a period: {entry}")
        window = begun(
            entry, self._clock, spent_ever=spent_ever, charges=remembered, buckets=self.buckets
        )
        limit = Limit(entry.s, entry.c, window, entry.u)
        if limit.limit_id != entry.l:
            raise IllegalEntry(f"a limit under a wrong name: {entry}")
        return limit

    def _remembered(
        self, scope: Scope, unit: Unit, window: CapWindow, now_ms: int
    ) -> tuple[tuple[int, int], ...]:
        """What the rolling window that remembers best says of the past of a new window.

        That is the shortest one that is long enough (its grains are the finest), else the longest.
        """
        known = [
            limit.window
            for limit in self._by_scope.get(scope, ())
            if limit.unit == unit and isinstance(limit.window, Rolling)
        ]
        if not known:
            return ()
        enough = [each for each in known if each.window.ms >= window.ms > 0]
        best = min(enough, key=_length) if enough else max(known, key=_length)
        return best.charges_at(now_ms)

    def _add(self, limit: Limit) -> None:
        self._by_id[limit.limit_id] = limit
        on_scope = self._by_scope.setdefault(limit.scope, [])
        on_scope.append(limit)
        on_scope.sort(key=lambda each: each.limit_id)
        if isinstance(limit.window, Calendar):
            self._calendars.append((limit, limit.window))
            self._same_periods = None


def _length(window: Rolling) -> int:
    return window.window.ms


class _Period:
    """The civil period of `wall_ms`, and when it begins in ledger time, which may be before that.

    `midnight_ms`: as in `civil_period`.
    """

    __slots__ = ("begins_ms", "begins_wall_ms", "ends_wall_ms", "length_ms")

    def __init__(
        self, window: CapWindow, now_ms: int, wall_ms: int, midnight_ms: int | None = None
    ) -> None:
        begins_wall_ms, self.ends_wall_ms = civil_period(window, wall_ms, midnight_ms=midnight_ms)
        self.length_ms = self.ends_wall_ms - begins_wall_ms
        # The first day of 1970 began before 1970 where clocks are ahead of UTC.
        self.begins_wall_ms = max(0, begins_wall_ms)
        self.begins_ms = max(0, now_ms - (wall_ms - begins_wall_ms))

    def not_before_ms(self, earlier_ms: int) -> int:
        """When the next one may begin: when nine tenths of this one have passed in ledger time.

        This one cannot have begun before it might, which was `earlier_ms`.
        """
        return max(self.begins_ms, earlier_ms) + self.length_ms * 9 // 10


def _limit_entry(cap: Cap, now_ms: int, wall_ms: int, *, is_new: bool) -> LimitEntry:
    window = cap.window
    entry = LimitEntry(
        t=now_ms,
        l=cap.limit_id,
        s=cap.scope,
        u=cap.unit,
        m=window.kind,
        c=cap.hard_cap,
        v=window.ms,
        p=window.period,
        z=window.time_zone,
        h=cap.shadow,
    )
    if window.kind != "calendar" or not is_new:
        return entry
    period = _Period(window, now_ms, wall_ms)
    return msgspec.structs.replace(
        entry,
        b=period.begins_ms,
        g=period.begins_wall_ms,
        e=period.ends_wall_ms,
        r=period.not_before_ms(0),
    )
