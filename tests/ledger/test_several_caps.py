"""Several caps on one scope: all of them hold, in every unit and over every window."""

import zoneinfo
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cortexd.ledger import cap_windows, limit_table
from cortexd.ledger.accounts import Accounts
from cortexd.ledger.cap_windows import BALANCE, HELD, CapWindow, calendar, fixed, rolling
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import (
    Cap,
    Entry,
    Granted,
    LimitEntry,
    Refused,
    ReservationId,
    RollEntry,
    Scope,
    Settled,
    Snapshot,
)
from cortexd.ledger.history import History
from cortexd.ledger.invariants import check_accounts, check_answer

KEY, ACCOUNT = Scope("key:ci"), Scope("acct:acme")
SCOPES = (ACCOUNT, KEY)
DAY_MS = 86_400_000
NOON_MS = 20_000 * DAY_MS + DAY_MS // 2


class Books:
    """Accounts and a clock whose wall is right until somebody moves it."""

    def __init__(self, *caps: Cap) -> None:
        self.accounts = Accounts()
        self.history = History()
        self.now_ms = NOON_MS
        self.wall_error_ms = 0
        self.configure(*caps)

    def apply(self, *entries: Entry) -> None:
        for entry in entries:
            self.history.follow(entry)
            self.accounts.apply(entry)
        check_accounts(self.accounts)

    def configure(self, *caps: Cap) -> None:
        wall_ms = self.now_ms + self.wall_error_ms
        self.apply(*self.accounts.configure(self.now_ms, caps, wall_ms=wall_ms))

    def later(self, step_ms: int) -> None:
        self.now_ms += step_ms
        self.roll()

    def roll(self) -> tuple[RollEntry, ...]:
        entries = self.accounts.roll(self.now_ms, self.now_ms + self.wall_error_ms)
        self.apply(*entries)
        return entries

    def ask(self, tokens: int, *, least: int | None = None, step: int = 1) -> Granted | Refused:
        self.accounts.foresee(wall_ahead_ms=self.wall_error_ms)
        entries, answer = self.accounts.reserve(self.now_ms, SCOPES, tokens, least=least, step=step)
        self.apply(*entries)
        return answer

    def granted(self, tokens: int) -> ReservationId:
        answer = self.ask(tokens)
        assert isinstance(answer, Granted), answer
        return answer.reservation_id

    def refused(self, tokens: int) -> Refused:
        answer = self.ask(tokens)
        assert isinstance(answer, Refused)
        return answer

    def settle(self, number: ReservationId, tokens: int) -> None:
        cost = Charge(tokens, 0, tokens, "settle", 0)
        entries, answer = self.accounts.settle(self.now_ms, number, cost)
        assert isinstance(answer, Settled)
        self.apply(*entries)

    def spend(self, tokens: int) -> None:
        self.settle(self.granted(tokens), tokens)

    def spent(self) -> dict[str, int]:
        found = self.accounts.standings(SCOPES, self.now_ms)
        return {f"{each.unit}/{each.window.words}": each.spent for each in found}


HOUR = Cap(KEY, 200, rolling(3_600_000))
MONTH = Cap(KEY, 500, rolling(30 * DAY_MS))
EVER = Cap(KEY, 700)


def test_of_several_windows_the_tightest_one_bites_and_the_others_go_on_counting() -> None:
    books = Books(HOUR, MONTH, EVER)
    books.spend(200)
    assert books.refused(1).standing.window == HOUR.window
    for _ in range(2):
        books.later(4_000_000)
        books.spend(150)
    books.later(4_000_000)
    assert books.refused(1).standing.window == MONTH.window
    books.later(31 * DAY_MS)
    books.spend(200)
    assert books.refused(1).standing == msgspec.structs.replace(
        books.accounts.standings((KEY,), books.now_ms)[0]
    )
    assert books.refused(1).standing.window == BALANCE
    assert books.refused(1).fits_in_ms is None


def test_a_refusal_waits_for_all_caps_together() -> None:
    books = Books(HOUR, MONTH)
    books.spend(200)
    books.later(3_700_000)
    books.spend(200)
    first = books.refused(150)
    assert first.fits_in_ms is not None
    books.later(first.fits_in_ms - 1)
    assert isinstance(books.ask(150), Refused)
    books.later(1)
    assert isinstance(books.ask(150), Granted)


def test_a_request_under_one_cap_too_many_reserves_nothing_anywhere() -> None:
    books = Books(HOUR, MONTH, Cap(ACCOUNT, 0))
    before = books.accounts.dump()
    assert books.refused(1).standing.scope == ACCOUNT
    assert books.accounts.dump() == before


def test_requests_are_counted_when_they_are_let_in_and_never_given_back() -> None:
    books = Books(Cap(KEY, 2, rolling(60_000), "req"))
    cost = Charge(0, 0, 0, "release", 0)
    books.apply(*books.accounts.settle(books.now_ms, books.granted(10), cost)[0])
    books.granted(10)
    refused = books.refused(10)
    assert (refused.asked, refused.standing.unit, refused.standing.spent) == (1, "req", 2)
    assert refused.exact
    books.later(refused.fits_in_ms or 0)
    books.granted(10)


def test_a_balance_of_requests_begins_with_all_that_were_ever_made() -> None:
    books = Books()
    books.spend(5)
    books.spend(5)
    books.configure(Cap(KEY, 3, BALANCE, "req"))
    books.spend(5)
    assert books.refused(5).fits_in_ms is None
    assert books.spent() == {"req/balance": 3}


def test_in_flight_counts_what_is_open_and_nothing_else() -> None:
    books = Books()
    first = books.granted(5)
    books.configure(Cap(KEY, 2, HELD, "con"))
    books.granted(5)
    refused = books.refused(5)
    assert (refused.standing.reserved, refused.exact) == (2, False)
    books.settle(first, 5)
    books.granted(5)
    books.refused(5)


def test_ghosts_stay_in_flight_until_their_grace_is_over() -> None:
    books = Books(Cap(KEY, 1, HELD, "con"))
    books.granted(5)
    books.apply(*books.accounts.ghosts(books.now_ms, 30_000))
    books.refused(5)
    books.later(30_000)
    books.apply(*books.accounts.tick(books.now_ms))
    books.granted(5)


def test_a_fixed_window_begins_anew_for_everybody_at_once() -> None:
    books = Books(Cap(KEY, 100, fixed(3_600_000)))
    books.later(3_599_000)
    books.spend(100)
    assert books.refused(1).fits_in_ms == 1_000
    books.later(1_000)
    books.spend(100)


def test_an_open_reservation_counts_in_every_period_that_it_reaches_into() -> None:
    books = Books(Cap(KEY, 100, fixed(3_600_000)), Cap(KEY, 100, calendar("day", "UTC")))
    number = books.granted(60)
    books.later(DAY_MS)
    assert isinstance(books.ask(41), Refused)
    books.settle(number, 60)
    assert books.spent() == {"tok/fixed:3600000": 60, "tok/calendar:day:UTC": 60}


TODAY = Cap(KEY, 100, calendar("day", "UTC"))


def test_a_civil_cap_begins_anew_at_midnight() -> None:
    books = Books(TODAY)
    books.spend(100)
    refused = books.refused(1)
    assert (refused.fits_in_ms, refused.exact) == (DAY_MS // 2, False)
    books.later(DAY_MS // 2 - 1)
    assert isinstance(books.ask(1), Refused)
    books.later(1)
    books.spend(100)
    assert books.refused(1).fits_in_ms == DAY_MS


def test_a_day_that_begins_before_1970_can_be_written_down() -> None:
    """A board without a battery wakes up there."""
    accounts = Accounts()
    for entry in accounts.configure(5, [Cap(KEY, 9, calendar("day", "Europe/Berlin"))]):
        accounts.apply(msgspec.json.decode(msgspec.json.encode(entry), type=LimitEntry))
    check_accounts(accounts)


def test_a_wall_clock_that_jumps_forward_begins_no_day_before_its_time() -> None:
    books = Books(TODAY)
    books.spend(100)
    books.wall_error_ms = 3 * DAY_MS
    assert books.roll() == ()
    assert isinstance(books.ask(1), Refused)
    books.later(DAY_MS // 10 * 4)
    books.spend(100)
    books.later(DAY_MS // 10 * 8)
    assert isinstance(books.ask(1), Refused), "a day has nine tenths of a day at least"


def test_a_wall_clock_that_jumps_back_begins_no_day_twice() -> None:
    books = Books(TODAY)
    books.later(DAY_MS // 2)
    books.spend(100)
    books.wall_error_ms = -DAY_MS
    books.later(DAY_MS * 8 // 10)
    assert isinstance(books.ask(1), Refused), "not before nine tenths of this day have passed"
    books.later(DAY_MS // 10)
    books.spend(100)
    books.later(DAY_MS * 8 // 10)
    assert isinstance(books.ask(1), Refused)


def test_a_cap_that_was_made_while_the_clock_was_years_ahead_begins_anew_the_next_day() -> None:
    books = Books()
    books.wall_error_ms = 3_650 * DAY_MS
    books.configure(TODAY)
    books.wall_error_ms = 0
    books.spend(100)
    books.later(DAY_MS)
    books.spend(100)


def test_retry_after_follows_the_wall_clock_when_it_is_moved() -> None:
    books = Books(TODAY)
    books.spend(100)
    assert books.refused(1).fits_in_ms == DAY_MS // 2
    books.wall_error_ms = -3_600_000
    assert books.refused(1).fits_in_ms == DAY_MS // 2 + 3_600_000
    books.wall_error_ms = DAY_MS
    earliest_ms = DAY_MS // 2 - DAY_MS // 10
    refused = books.refused(1)
    assert (refused.fits_in_ms, refused.standing.restored_in_ms) == (earliest_ms, earliest_ms)
    books.later(earliest_ms)
    books.spend(100)


def test_a_zone_that_the_host_has_forgotten_goes_on_with_the_midnight_it_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    berlin, gone = Cap(KEY, 100, calendar("day", "Europe/Berlin")), Cap(ACCOUNT, 9, TODAY.window)
    books = Books(berlin, gone)
    books.configure(berlin)
    monkeypatch.setattr(cap_windows, "zone_of", no_zone)
    books.spend(100)
    books.later(DAY_MS // 2 - 7_200_000 - 1)
    assert isinstance(books.ask(1), Refused)
    books.later(1)
    books.spend(100)
    books.later(31 * DAY_MS)
    books.spend(100)


def no_zone(name: str) -> object:
    raise zoneinfo.ZoneInfoNotFoundError(name)


def test_two_thousand_civil_caps_begin_anew_with_one_look_at_the_calendar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It happens in the task that every stream waits for."""
    looks = []
    ask = cap_windows.civil_period

    def count(window: CapWindow, wall_ms: int, **more: int | None) -> tuple[int, int]:
        looks.append(wall_ms)
        return ask(window, wall_ms, **more)

    accounts = Accounts()
    caps = [Cap(Scope(f"key:{number}"), 1, TODAY.window) for number in range(2_000)]
    for entry in accounts.configure(NOON_MS, caps):
        accounts.apply(entry)
    monkeypatch.setattr(limit_table, "civil_period", count)
    rolls = accounts.roll(NOON_MS + DAY_MS, NOON_MS + DAY_MS)
    for roll in rolls:
        accounts.apply(roll)
    assert (len(rolls), len(looks)) == (2_000, 1)
    accounts.foresee(wall_ahead_ms=0)
    monkeypatch.setattr(accounts._limits, "_calendars", None)  # nothing is looked through again
    assert accounts.roll(NOON_MS + DAY_MS, NOON_MS + DAY_MS) == ()


def test_a_new_window_begins_with_what_the_best_rolling_one_remembers() -> None:
    books = Books(HOUR, MONTH)
    books.spend(50)
    books.later(DAY_MS)
    books.spend(20)
    books.configure(HOUR, MONTH, TODAY, Cap(KEY, 100, fixed(DAY_MS)), Cap(KEY, 9, rolling(DAY_MS)))
    assert books.spent() == {
        "tok/rolling:3600000": 20,
        "tok/rolling:2592000000": 70,
        "tok/calendar:day:UTC": 20,
        f"tok/fixed:{DAY_MS}": 20,
        f"tok/rolling:{DAY_MS}": 70,
    }


def test_a_window_that_was_taken_away_and_comes_back_goes_on_where_it_would_have_been() -> None:
    books = Books(HOUR, TODAY)
    books.spend(70)
    books.configure(HOUR)
    books.spend(30)
    books.configure(HOUR, TODAY)
    assert books.spent()["tok/calendar:day:UTC"] == 100
    books.configure()
    books.later(DAY_MS)
    books.configure(HOUR, TODAY)
    assert books.spent()["tok/calendar:day:UTC"] == 0


def test_a_shadow_counts_and_tells_and_refuses_nothing() -> None:
    books = Books(msgspec.structs.replace(HOUR, shadow=True), Cap(ACCOUNT, 400))
    answer = books.ask(200)
    assert isinstance(answer, Granted)
    assert answer.would_refuse is None
    answer = books.ask(150)
    assert isinstance(answer, Granted)
    assert answer.would_refuse is not None
    assert answer.would_refuse.standing.shadow
    assert answer.would_refuse.standing.reserved == 200
    assert books.refused(51).standing.scope == ACCOUNT, "another cap is no shadow"
    books.configure(HOUR, Cap(ACCOUNT, 400))
    assert books.refused(1).standing.scope == KEY, "it counted all the time"


@pytest.mark.parametrize(
    ("left", "least", "step", "granted"),
    [
        (400, 120, 1, 300),
        (300, 120, 1, 300),
        (299, 120, 1, 299),
        (299, 120, 50, 270),
        (120, 120, 1, 120),
        (121, 120, 2, 120),
        (119, 120, 1, None),
        (299, 300, 1, None),
        (299, 301, 1, None),
    ],
)
def test_a_clamped_request_gets_what_is_left_in_whole_steps_but_not_less_than_it_needs(
    left: int, least: int, step: int, granted: int | None
) -> None:
    books = Books(Cap(ACCOUNT, 10_000), Cap(KEY, left))
    answer = books.ask(300, least=least, step=step)
    if granted is None:
        assert isinstance(answer, Refused)
        assert answer.asked == min(least, 300)
    else:
        assert isinstance(answer, Granted)
        assert answer.tokens == granted
        assert sum(each.tokens for each in books.accounts.reservations()) == granted


def test_no_clamping_gets_past_a_cap_on_requests() -> None:
    books = Books(Cap(KEY, 100), Cap(KEY, 0, rolling(1000), "req"))
    answer = books.ask(300, least=10)
    assert isinstance(answer, Refused)
    assert answer.standing.unit == "req"


def test_the_journal_names_every_limit_by_scope_unit_and_window() -> None:
    caps = (HOUR, EVER, TODAY, Cap(ACCOUNT, 3, HELD, "con"))
    entries = Accounts().configure(NOON_MS, caps)
    assert [entry.l for entry in entries] == [
        "key:ci/tok/rolling:3600000",
        "key:ci/tok/balance",
        "key:ci/tok/calendar:day:UTC",
        "acct:acme/con/held",
    ]
    civil = entries[2]
    assert isinstance(civil, LimitEntry)
    midnight_ms = NOON_MS + DAY_MS // 2
    assert (civil.b, civil.g, civil.e) == (midnight_ms - DAY_MS, midnight_ms - DAY_MS, midnight_ms)
    assert civil.r == midnight_ms - DAY_MS // 10


def test_a_day_whose_first_request_is_late_ends_at_midnight_all_the_same() -> None:
    books = Books(TODAY)
    books.spend(100)
    books.later(DAY_MS)
    books.spend(100)
    books.later(DAY_MS // 2)
    books.spend(100)


# Everything at once

POOL = (
    Cap(KEY, 30, rolling(90)),
    Cap(KEY, 60, rolling(400)),
    Cap(KEY, 40, fixed(200)),
    Cap(KEY, 200),
    Cap(KEY, 70, calendar("day", "UTC")),
    Cap(KEY, 4, rolling(150), "req"),
    Cap(KEY, 9, fixed(300), "req"),
    Cap(ACCOUNT, 60, rolling(120)),
    Cap(ACCOUNT, 40, BALANCE, "req"),
    Cap(ACCOUNT, 3, HELD, "con"),
    Cap(ACCOUNT, 20, rolling(100), shadow=True),
)
STEPS_MS = st.sampled_from([0, 1, 30, 90, 150, 401, DAY_MS // 3, DAY_MS])


class SeveralCaps(RuleBasedStateMachine):
    """Requests, restarts and an operator, under any selection of caps, judged by the history."""

    def __init__(self) -> None:
        super().__init__()
        self.accounts = Accounts(buckets=3)
        self.history = History()
        self.now_ms = NOON_MS
        self.wall_error_ms = 0
        self.open: list[tuple[ReservationId, int]] = []
        self.waiting_ms = 0

    def apply(self, *entries: Entry) -> None:
        for entry in entries:
            self.history.follow(entry)
            self.accounts.apply(entry)

    @rule(chosen=st.sets(st.sampled_from(POOL)), lowered=st.booleans())
    def configure(self, chosen: set[Cap], lowered: bool) -> None:
        caps = sorted(chosen, key=lambda cap: cap.limit_id)
        if lowered:
            caps = [msgspec.structs.replace(cap, hard_cap=cap.hard_cap // 2) for cap in caps]
        wall_ms = self.now_ms + self.wall_error_ms
        self.apply(*self.accounts.configure(self.now_ms, caps, wall_ms=wall_ms))
        assert self.accounts.configure(self.now_ms, caps, wall_ms=wall_ms) == ()
        standings = self.accounts.standings(SCOPES, self.now_ms)
        assert {(each.scope, each.unit, each.window, each.hard_cap) for each in standings} == {
            (cap.scope, cap.unit, cap.window, cap.hard_cap) for cap in caps
        }

    @rule(step_ms=STEPS_MS)
    def time_passes(self, step_ms: int) -> None:
        self.now_ms += step_ms
        self.apply(*self.accounts.roll(self.now_ms, self.now_ms + self.wall_error_ms))

    @rule(error_ms=st.sampled_from([0, -DAY_MS, DAY_MS, 40 * DAY_MS]))
    def somebody_moves_the_wall_clock(self, error_ms: int) -> None:
        self.wall_error_ms = error_ms

    @rule()
    def wait_as_told(self) -> None:
        self.time_passes(self.waiting_ms)
        self.waiting_ms = 0

    @rule(
        scopes=st.sampled_from([SCOPES, (KEY,), (ACCOUNT,)]),
        tokens=st.integers(1, 25),
        least=st.none() | st.integers(1, 25),
        step=st.integers(1, 3),
    )
    def ask(self, scopes: tuple[Scope, ...], tokens: int, least: int | None, step: int) -> None:
        check_answer(self.accounts, self.now_ms, scopes, tokens)
        entries, answer = self.accounts.reserve(self.now_ms, scopes, tokens, least=least, step=step)
        self.apply(*entries)
        if isinstance(answer, Refused):
            self.waiting_ms = answer.fits_in_ms or 0
            standing = answer.standing
            assert standing.scope in scopes
            assert not standing.shadow
            assert answer.asked > standing.available, "refused without need"
            return
        assert answer.tokens == tokens or (least is not None and least <= answer.tokens < tokens)
        self.open.append((answer.reservation_id, answer.tokens))

    @rule(data=st.data(), more=st.sampled_from([0, 0, 0, 7]))
    def settle(self, data: st.DataObject, more: int) -> None:
        if not self.open:
            return
        number, tokens = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        used = data.draw(st.integers(0, tokens)) + more
        cost = Charge(used, 0, used, "settle", max(0, used - tokens))
        self.apply(*self.accounts.settle(self.now_ms, number, cost)[0])

    @rule()
    def restart(self) -> None:
        whole = msgspec.json.encode(self.accounts.dump())
        snapshot = msgspec.json.decode(whole, type=Snapshot)
        self.accounts = Accounts.load(snapshot, buckets=3)
        self.history = History(snapshot)
        self.apply(*self.accounts.ghosts(self.now_ms, 40))
        self.open = []

    @rule()
    def charge_ghosts(self) -> None:
        self.apply(*self.accounts.tick(self.now_ms))

    @invariant()
    def the_books_are_sound(self) -> None:
        check_accounts(self.accounts)
        for standing in self.accounts.standings(SCOPES, self.now_ms):
            assert min(standing.spent, standing.reserved, standing.available) >= 0


TestSeveralCaps: Callable[..., object] = SeveralCaps.TestCase
SeveralCaps.TestCase.settings = settings(
    max_examples=max(100, settings().max_examples), stateful_step_count=50
)
