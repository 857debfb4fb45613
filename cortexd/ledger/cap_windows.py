"""The windows a cap can have, as words; and the civil calendar some of them follow.

Owns the shape of a window, its spelling in the journal and the arithmetic of civil periods. Refuses
to know what was spent within a window: `windows.py` and `periods.py` keep that.
"""

import datetime
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

Unit: TypeAlias = Literal["tok", "req", "con"]
"""What a cap counts: tokens, requests, or requests in flight."""

WindowKind: TypeAlias = Literal["balance", "rolling", "fixed", "calendar", "held"]

CalendarPeriod: TypeAlias = Literal["day", "week", "month"]


class CapWindow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Over which time a cap counts.

    `balance`: for ever. `rolling`: any interval of `ms`. `fixed`: intervals of `ms` that follow
    each other from the beginning of 1970 on. `calendar`: civil days, weeks (from Monday) or months,
    as `period` says, in `time_zone`. `held`: only what is reserved at the moment.
    """

    kind: WindowKind
    ms: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] = 0
    period: CalendarPeriod | Literal[""] = ""
    time_zone: str = ""

    @property
    def words(self) -> str:
        """How the journal names it: `balance`, `rolling:3600000`, `calendar:day:Europe/Berlin`."""
        if self.kind == "calendar":
            return f"calendar:{self.period}:{self.time_zone}"
        return f"{self.kind}:{self.ms}" if self.ms else self.kind

    @property
    def makes_sense(self) -> bool:
        """Whether it has what its kind needs and nothing else. Says nothing about the zone."""
        return (0 < self.ms < 2**53) == (self.kind in ("rolling", "fixed")) and (
            bool(self.period) == bool(self.time_zone) == (self.kind == "calendar")
        )


_DAY_MS = 86_400_000

BALANCE: Final = CapWindow("balance")
HELD: Final = CapWindow("held")


def rolling(ms: int) -> CapWindow:
    """Any interval of `ms` milliseconds."""
    return CapWindow("rolling", ms)


def fixed(ms: int) -> CapWindow:
    """Intervals of `ms` milliseconds, one after the other."""
    return CapWindow("fixed", ms)


def calendar(period: CalendarPeriod, time_zone: str) -> CapWindow:
    """Civil days, weeks or months of a zone of the IANA time zone database."""
    return CapWindow("calendar", 0, period, time_zone)


def zone_of(name: str) -> datetime.tzinfo:
    """The time zone of that name. UTC is known on every host, also where no database is.

    Raises KeyError, ValueError or OSError for any other zone that this host does not know.
    """
    if name == "UTC":
        return datetime.UTC
    import zoneinfo  # half a megabyte, which most configurations have no use for

    return zoneinfo.ZoneInfo(name)


def civil_period(
    window: CapWindow, wall_ms: int, *, midnight_ms: int | None = None
) -> tuple[int, int]:
    """Begin and end (Unix milliseconds) of the civil period of a `calendar` window at `wall_ms`.

    The end is the next period's begin. `midnight_ms`: any midnight there, which stands in for a
    zone that this host does not know any more (its clocks then change no more); None: such a zone
    raises what `zone_of` raises.
    """
    try:
        zone = zone_of(window.time_zone)
    except (KeyError, ValueError, OSError):
        if midnight_ms is None:
            raise
        zone = _zone_with_midnight(midnight_ms)
    today = datetime.datetime.fromtimestamp(wall_ms // 1000, zone).date()
    match window.period:
        case "week":
            first = today - datetime.timedelta(days=today.weekday())
            after = first + datetime.timedelta(days=7)
        case "month":
            first = today.replace(day=1)
            after = (first + datetime.timedelta(days=31)).replace(day=1)
        case _:
            first = today
            after = today + datetime.timedelta(days=1)
    return _midnight_ms(first, zone), _midnight_ms(after, zone)


def _zone_with_midnight(midnight_ms: int) -> datetime.tzinfo:
    """The time that is ahead of UTC, by 14 hours at most, or behind, and has its midnight then."""
    ahead_ms = -midnight_ms % _DAY_MS
    if ahead_ms > 14 * _DAY_MS // 24:
        ahead_ms -= _DAY_MS
    return datetime.timezone(datetime.timedelta(milliseconds=ahead_ms))


def _midnight_ms(day: datetime.date, zone: datetime.tzinfo) -> int:
    midnight = datetime.datetime.combine(day, datetime.time(), zone)
    return int(midnight.timestamp()) * 1000
