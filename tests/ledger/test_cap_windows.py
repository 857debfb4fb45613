"""Windows as words, and the civil calendar."""

import datetime
import zoneinfo
from pathlib import Path

import pytest

from cortexd.ledger.cap_windows import (
    BALANCE,
    HELD,
    CalendarPeriod,
    CapWindow,
    calendar,
    civil_period,
    fixed,
    rolling,
)


@pytest.mark.parametrize(
    ("window", "words"),
    [
        (BALANCE, "balance"),
        (HELD, "held"),
        (rolling(3_600_000), "rolling:3600000"),
        (fixed(5), "fixed:5"),
        (calendar("week", "Europe/Berlin"), "calendar:week:Europe/Berlin"),
    ],
)
def test_every_window_makes_sense_and_has_words_of_its_own(window: CapWindow, words: str) -> None:
    assert window.makes_sense
    assert window.words == words


@pytest.mark.parametrize(
    "window",
    [
        CapWindow("balance", 5),
        CapWindow("held", 5),
        CapWindow("rolling"),
        CapWindow("fixed", -1),
        CapWindow("rolling", 2**53),
        CapWindow("rolling", 5, "day", "UTC"),
        CapWindow("calendar"),
        CapWindow("calendar", 0, "day"),
        CapWindow("calendar", 0, "", "UTC"),
        CapWindow("calendar", 5, "day", "UTC"),
    ],
)
def test_a_window_with_too_much_or_too_little_makes_no_sense(window: CapWindow) -> None:
    assert not window.makes_sense


def at(text: str, zone: str) -> int:
    moment = datetime.datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(zone))
    return int(moment.timestamp() * 1000)


@pytest.mark.parametrize(
    ("period", "zone", "now", "begins", "ends"),
    [
        ("day", "UTC", "2026-11-24T12:30:00", "2026-11-24", "2026-11-25"),
        ("day", "UTC", "2026-11-24T00:00:00", "2026-11-24", "2026-11-25"),
        ("day", "UTC", "2026-11-24T23:59:59.999", "2026-11-24", "2026-11-25"),
        ("week", "Europe/Berlin", "2026-11-24T12:30:00", "2026-11-23", "2026-11-30"),
        ("week", "Europe/Berlin", "2026-11-23T00:00:00", "2026-11-23", "2026-11-30"),
        ("week", "Europe/Berlin", "2027-01-01T00:00:00", "2026-12-28", "2027-01-04"),
        ("month", "Asia/Kolkata", "2026-12-31T23:00:00", "2026-12-01", "2027-01-01"),
        ("month", "America/New_York", "2028-02-29T01:00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_civil_periods_begin_and_end_at_midnight_there(
    period: CalendarPeriod, zone: str, now: str, begins: str, ends: str
) -> None:
    assert civil_period(calendar(period, zone), at(now, zone)) == (at(begins, zone), at(ends, zone))


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_the_days_on_which_clocks_change_are_shorter_and_longer(day: str, hours: int) -> None:
    begins, ends = civil_period(calendar("day", "Europe/Berlin"), at(day, "Europe/Berlin"))
    assert ends - begins == hours * 3_600_000


def test_an_unknown_zone_is_an_error() -> None:
    with pytest.raises(zoneinfo.ZoneInfoNotFoundError):
        civil_period(calendar("day", "Europe/Atlantis"), 0)


@pytest.mark.parametrize(
    ("zone", "ahead_hours"),
    [("Europe/Berlin", 1), ("Pacific/Kiritimati", 14), ("America/New_York", -5), ("UTC", 0)],
)
def test_a_zone_that_this_host_lost_goes_on_from_the_midnight_that_it_had(
    zone: str, ahead_hours: int
) -> None:
    lost = calendar("day", "Europe/Atlantis")
    midnight_ms = at("2026-11-20T00:00:00", zone)
    now_ms = at("2026-11-24T12:30:00", zone)
    begins_ms, ends_ms = civil_period(lost, now_ms, midnight_ms=midnight_ms)
    assert begins_ms == at("2026-11-24T00:00:00", zone)
    assert ends_ms - begins_ms == 86_400_000
    assert -begins_ms % 86_400_000 == ahead_hours * 3_600_000 % 86_400_000
    week = calendar("week", "Europe/Atlantis")
    assert civil_period(week, now_ms, midnight_ms=midnight_ms)[0] == at("2026-11-23T00:00:00", zone)


def test_utc_needs_no_time_zone_database(tmp_path: Path) -> None:
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([str(tmp_path)])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        assert civil_period(calendar("day", "UTC"), 5) == (0, 86_400_000)
        with pytest.raises(zoneinfo.ZoneInfoNotFoundError):
            civil_period(calendar("day", "Europe/Berlin"), 5)
    finally:
        zoneinfo.reset_tzpath(before)
