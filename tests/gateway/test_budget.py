"""What is told of caps, from standings alone."""

import datetime
import json
from collections.abc import Sequence

import pytest

from cortexd.dialects.refusals import RefusalKind
from cortexd.gateway.auth import Principal
from cortexd.gateway.budget import (
    anthropic_budget_headers,
    budget,
    budget_headers,
    go_duration,
    over_cap,
)
from cortexd.ledger.cap_windows import BALANCE, HELD, CapWindow, Unit, calendar, fixed, rolling
from cortexd.ledger.entries import Refused, Standing, Totals, account_scope, key_scope

KEY, ACCOUNT = key_scope("ci"), account_scope("acme")
PRINCIPAL = Principal("acme", "ci", (ACCOUNT, KEY), capped=True, limited=True)
NOVEMBER_24 = 1_763_953_445_000  # 2025-11-24T03:04:05Z, a Monday
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
TO_MIDNIGHT_MS = DAY_MS - 11_045_000


def standing(
    window: CapWindow = BALANCE,
    unit: Unit = "tok",
    *,
    hard_cap: int = 100,
    spent: int = 80,
    reserved: int = 15,
    restored_in_ms: int | None = None,
    shadow: bool = False,
) -> Standing:
    """A cap of the key."""
    return Standing(KEY, hard_cap, window, spent, reserved, restored_in_ms, unit, shadow)


def message(refused: Refused) -> str:
    """The words of a refusal in the night to the 24th of November."""
    return over_cap(refused, wall_ms=NOVEMBER_24).message


@pytest.mark.parametrize(
    ("window", "restored_in_ms", "span"),
    [
        (BALANCE, None, "100 tokens in all;"),
        (rolling(3_600_000), 9_000, "100 tokens in any 3600 s;"),
        (rolling(1_500), 9_000, "100 tokens in any 1.5 s;"),
        (fixed(60_000), 9_000, "100 tokens per 60 s;"),
        (
            calendar("day", "UTC"),
            TO_MIDNIGHT_MS,
            "per calendar day (UTC), which begins again at 2025-11-25T00:00:00+00:00;",
        ),
        (
            calendar("week", "Europe/Berlin"),
            TO_MIDNIGHT_MS + 5 * DAY_MS + 23 * HOUR_MS,
            "per calendar week (Europe/Berlin), which begins again at 2025-12-01T00:00:00+01:00;",
        ),
        (
            calendar("month", "America/New_York"),
            TO_MIDNIGHT_MS + 6 * DAY_MS + 5 * HOUR_MS,
            "calendar month (America/New_York), which begins again at 2025-12-01T00:00:00-05:00;",
        ),
    ],
)
def test_a_refusal_names_the_window_of_the_cap_that_bit(
    window: CapWindow, restored_in_ms: int | None, span: str
) -> None:
    found = standing(window, restored_in_ms=restored_in_ms)
    assert span in message(Refused(found, 52, 9_000, exact=True))


@pytest.mark.parametrize("late_ms", [-20, -1, 0, 1, 20])
def test_a_few_milliseconds_between_two_clocks_move_no_midnight(late_ms: int) -> None:
    found = standing(calendar("day", "UTC"), restored_in_ms=TO_MIDNIGHT_MS + late_ms)
    assert "at 2025-11-25T00:00:00+00:00;" in message(Refused(found, 52, 9_000, exact=False))


def test_a_civil_period_begins_again_when_the_books_say_so() -> None:
    """The wall clock was moved, say: the ledger knows of nine tenths that have to pass first."""
    found = standing(calendar("day", "UTC"), restored_in_ms=DAY_MS)
    assert "at 2025-11-25T03:04:00+00:00;" in message(Refused(found, 52, DAY_MS, exact=False))


@pytest.mark.parametrize(
    ("time_zone", "restored_in_ms"),
    [("Mars/Olympus", TO_MIDNIGHT_MS), ("../etc", 1), ("UTC", 0), ("UTC", None)],
)
def test_when_a_period_begins_again_is_left_out_where_nobody_can_say_it(
    time_zone: str, restored_in_ms: int | None
) -> None:
    """A zone can vanish from a host; and where nothing is spent, nothing has to come back."""
    found = standing(calendar("day", time_zone), restored_in_ms=restored_in_ms)
    refused = over_cap(Refused(found, 52, 9_000, exact=True), wall_ms=NOVEMBER_24)
    assert f"100 tokens per calendar day ({time_zone}); 80 spent" in refused.message
    assert refused.retry_after_seconds == 9


@pytest.mark.parametrize(
    ("window", "unit", "kind"),
    [
        (BALANCE, "tok", RefusalKind.INSUFFICIENT_QUOTA),
        (BALANCE, "req", RefusalKind.INSUFFICIENT_QUOTA),
        (rolling(60_000), "tok", RefusalKind.RATE_LIMIT_EXCEEDED),
        (fixed(60_000), "req", RefusalKind.RATE_LIMIT_EXCEEDED),
        (calendar("day", "UTC"), "req", RefusalKind.RATE_LIMIT_EXCEEDED),
        (HELD, "con", RefusalKind.RATE_LIMIT_EXCEEDED),
    ],
)
def test_only_a_balance_is_a_quota(window: CapWindow, unit: Unit, kind: RefusalKind) -> None:
    fits_in_ms = None if window is BALANCE else 1
    refused = Refused(standing(window, unit), 1, fits_in_ms, exact=True)
    assert over_cap(refused, wall_ms=NOVEMBER_24).kind is kind


@pytest.mark.parametrize(
    ("window", "unit", "asked", "fits_in_ms", "exact", "retry_after"),
    [
        (rolling(60_000), "tok", 52, 1, True, 1),
        (rolling(60_000), "tok", 52, 59_001, True, 60),
        (rolling(60_000), "tok", 101, None, False, 60),
        (rolling(60_000), "tok", 52, 1_000, False, 1),
        (fixed(90_000), "tok", 101, None, False, 90),
        (calendar("day", "UTC"), "tok", 52, 75_355_000, False, 75_355),
        (calendar("day", "UTC"), "tok", 101, None, False, 75_355),
        (calendar("day", "Mars/Olympus"), "tok", 101, None, False, 75_355),
        (calendar("day", "UTC"), "req", 101, None, False, 75_355),
        (HELD, "con", 1, 1_000, False, 1),
        (fixed(60_000), "req", 1, 30_500, True, 31),
        (BALANCE, "tok", 101, None, False, None),
    ],
)
def test_retry_after_is_when_it_fits_or_how_long_the_window_is(
    window: CapWindow,
    unit: Unit,
    asked: int,
    fits_in_ms: int | None,
    exact: bool,
    retry_after: int | None,
) -> None:
    found = standing(window, unit, restored_in_ms=TO_MIDNIGHT_MS)
    refused = over_cap(Refused(found, asked, fits_in_ms, exact), wall_ms=NOVEMBER_24)
    assert refused.retry_after_seconds == retry_after
    assert refused.is_final == (asked > 100 and window is not BALANCE)


@pytest.mark.parametrize(
    ("window", "days"),
    [
        (calendar("day", "UTC"), 1),
        (calendar("week", "UTC"), 7),
        (calendar("month", "Mars/Olympus"), 31),
    ],
)
def test_what_never_fits_an_untouched_civil_period_is_told_its_length(
    window: CapWindow, days: int
) -> None:
    untouched = standing(window, spent=0, reserved=0, restored_in_ms=0)
    refused = over_cap(Refused(untouched, 101, None, exact=False), wall_ms=NOVEMBER_24)
    assert refused.retry_after_seconds == days * 86_400
    assert refused.is_final


def test_open_requests_in_the_way_are_no_time_to_wait_for() -> None:
    blocked = Refused(standing(rolling(60_000)), 52, 1_000, exact=False)
    assert message(blocked).endswith("It may fit when open requests end.")
    soon = Refused(standing(rolling(60_000)), 52, 1_000, exact=True)
    assert message(soon).endswith("It fits in 1 s if nothing else is spent until then.")


def test_open_requests_are_blamed_only_where_there_are_some() -> None:
    """A civil period that should have ended: the clock was moved, and nobody knows how long."""
    found = standing(calendar("day", "UTC"), spent=100, reserved=0, restored_in_ms=1)
    overdue = Refused(found, 52, 1, exact=False)
    assert message(overdue).endswith("0 left; this request needs up to 52.")
    assert over_cap(overdue, wall_ms=NOVEMBER_24).retry_after_seconds == 1


def headers(*standings: Standing) -> dict[str, str]:
    """The headers of an answer, as texts."""
    return {name.decode(): value.decode() for name, value in budget_headers(standings)}


def test_the_headers_tell_of_the_tightest_cap_on_tokens_and_on_requests() -> None:
    assert headers() == {}
    found = headers(
        standing(spent=10, reserved=0),
        standing(rolling(60_000), spent=50, reserved=30, restored_in_ms=61_000),
        standing(fixed(60_000), "req", hard_cap=9, spent=8, reserved=0, restored_in_ms=1_500),
        standing(rolling(60_000), "req", hard_cap=9, spent=2, reserved=0, restored_in_ms=9_000),
        standing(HELD, "con", hard_cap=2, spent=0, reserved=2),
    )
    assert found == {
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "20",
        "x-ratelimit-reset-tokens": "1m1s",
        "x-ratelimit-limit-requests": "9",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "2s",
    }


def test_anthropics_headers_tell_of_the_same_caps_and_name_instants() -> None:
    found = anthropic_budget_headers(
        (
            standing(rolling(60_000), spent=50, reserved=30, restored_in_ms=61_000),
            standing(spent=10, reserved=0),
            standing(BALANCE, "req", hard_cap=9, spent=8, reserved=0),
            standing(HELD, "con", hard_cap=2, spent=0, reserved=2),
        ),
        wall_ms=NOVEMBER_24,
    )
    back_at = datetime.datetime.fromtimestamp(NOVEMBER_24 / 1000 + 61, datetime.UTC)
    assert found == (
        (b"anthropic-ratelimit-tokens-limit", b"100"),
        (b"anthropic-ratelimit-tokens-remaining", b"20"),
        (b"anthropic-ratelimit-tokens-reset", back_at.strftime("%Y-%m-%dT%H:%M:%SZ").encode()),
        (b"anthropic-ratelimit-requests-limit", b"9"),
        (b"anthropic-ratelimit-requests-remaining", b"1"),
    )


def test_a_shadow_is_in_no_header() -> None:
    assert headers(standing(shadow=True)) == {}
    assert anthropic_budget_headers((standing(shadow=True),), wall_ms=0) == ()


@pytest.mark.parametrize(
    ("milliseconds", "written"),
    [(0, "0ms"), (999, "999ms"), (1_001, "2s"), (360_000, "6m0s"), (3_600_000, "1h0m0s")],
)
def test_durations_are_written_as_go_reads_them(milliseconds: int, written: str) -> None:
    assert go_duration(milliseconds) == written


def told(*standings: Standing) -> dict[str, object]:
    """The answer of GET /v1/budget."""
    answer: dict[str, object] = json.loads(budget(PRINCIPAL, standings, Totals(7, 3)))
    return answer


def test_one_cap_is_told_as_it_always_was() -> None:
    window = {"kind": "balance"}
    numbers = {"hard_cap": 100, "window": window, "spent": 80, "reserved": 15, "available": 5}
    assert told(standing()) == {
        "object": "budget",
        "account_id": "acme",
        "key_id": "ci",
        **numbers,
        "caps": [{"scope": "key", **numbers}],
    }


def test_the_top_level_is_the_keys_own_cap_with_the_least_left() -> None:
    of_account = Standing(ACCOUNT, 10, BALANCE, 9, 0, None)
    loose, tight = standing(rolling(60_000), spent=0), standing(fixed(60_000), spent=60)
    in_flight = standing(HELD, "con", hard_cap=1, spent=0, reserved=1)
    answer = told(of_account, loose, tight, in_flight)
    assert (answer["window"], answer["available"]) == ({"kind": "fixed", "seconds": 60}, 25)
    assert [cap["scope"] for cap in as_list(answer["caps"])] == ["account", "key", "key"]


def as_list(value: object) -> Sequence[dict[str, object]]:
    """A value that has to be a list of objects."""
    assert isinstance(value, list)
    return value


def test_a_key_without_a_token_cap_of_its_own_shows_what_it_ever_spent() -> None:
    answer = told(Standing(ACCOUNT, 10, BALANCE, 9, 0, None), standing(fixed(1_000), "req"))
    assert (answer["hard_cap"], answer["window"], answer["available"]) == (None, None, None)
    assert (answer["spent"], answer["reserved"]) == (7, 3)


def test_caps_on_requests_stand_in_lists_of_their_own() -> None:
    answer = told(
        standing(calendar("day", "UTC"), "req", spent=80, reserved=0, shadow=True),
        standing(HELD, "con", hard_cap=4, spent=0, reserved=3),
    )
    assert answer["caps"] == []
    assert answer["max_requests"] == [
        {
            "scope": "key",
            "count": 100,
            "window": {"kind": "calendar", "period": "day", "time_zone": "UTC"},
            "spent": 80,
            "available": 20,
            "shadow": True,
        }
    ]
    assert answer["max_in_flight"] == [
        {"scope": "key", "max_in_flight": 4, "in_flight": 3, "available": 1}
    ]


def test_a_shadow_is_marked_where_it_stands() -> None:
    answer = told(standing(shadow=True))
    assert answer["shadow"] is True
    assert as_list(answer["caps"])[0]["shadow"] is True
