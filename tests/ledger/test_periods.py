"""Windows that begin anew: what counts in them, and when something will fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.ledger.cap_windows import HELD, calendar, fixed
from cortexd.ledger.entries import AMOUNT_MAX, WindowBooks
from cortexd.ledger.periods import Calendar, CalendarRoll, CivilClock, Fixed, Held
from cortexd.ledger.windows import ASK_AGAIN_MS, Fit

DAYS = calendar("day", "UTC")
DAY = CalendarRoll(76_000, 77_000, 1_900)
CLOCK = CivilClock()
CLOCK.ahead_ms = 75_000


def test_a_fixed_period_forgets_everything_at_its_end_and_nothing_before() -> None:
    window = Fixed(fixed(100), 250)
    window.charge(250, 7)
    window.charge(299, 5)
    assert window.spent_at(299) == 12
    assert window.spent_at(300) == 0
    window.charge(300, 1)
    assert window.spent_at(399) == 1
    assert window.check() is None


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=30),
    st.integers(0, 60),
)
def test_a_fixed_window_counts_exactly_its_period(
    length_ms: int, charges: list[tuple[int, int]], later_ms: int
) -> None:
    now_ms = 5
    window = Fixed(fixed(length_ms), now_ms)
    facts = []
    for step_ms, tokens in charges:
        now_ms += step_ms
        window.charge(now_ms, tokens)
        facts.append((now_ms, tokens))
    now_ms += later_ms
    here = now_ms // length_ms
    expected = sum(tokens for at_ms, tokens in facts if at_ms // length_ms == here)
    assert window.spent_at(now_ms) == expected
    books = window.books_at(now_ms)
    again = Fixed(fixed(length_ms), books.begins_ms, books.spent)
    assert again.books_at(now_ms) == books
    assert again.spent_at(now_ms) == expected
    assert again.spent_at(now_ms - now_ms % length_ms + length_ms) == 0


def test_what_fits_a_fixed_window_fits_when_the_next_period_begins() -> None:
    window = Fixed(fixed(100), 250)
    window.charge(250, 70)
    assert window.fit(260, 70) == Fit(260, exact=True)
    assert window.fit(260, 69) == Fit(300, exact=True)
    assert window.fit(260, 0) == Fit(300, exact=True)
    assert window.fit(260, -1) == Fit(260 + ASK_AGAIN_MS, exact=False)
    assert window.fit(310, 0) == Fit(310, exact=True)


def test_a_fixed_window_is_restored_at_the_end_of_its_period() -> None:
    window = Fixed(fixed(100), 250)
    assert window.restored_in_ms(260, reserved=0) == 0
    assert window.restored_in_ms(260, reserved=1) == 40
    window.charge(260, 1)
    assert window.restored_in_ms(260, reserved=0) == 40
    assert window.restored_in_ms(300, reserved=0) == 0
    assert window.restored_in_ms(305, reserved=1) == 95


def test_a_civil_period_ends_when_it_is_said_to() -> None:
    window = Calendar(DAYS, DAY, CLOCK)
    window.charge(1_500, 7)
    assert window.spent_at(5_000) == 7, "nobody said that it is over"
    window.begin(CalendarRoll(77_000, 78_000, 2_900))
    assert window.spent_at(2_000) == 0
    assert window.books_at(2_000) == WindowBooks(0, (), 77_000, 78_000, 2_900)


@pytest.mark.parametrize(
    ("now_ms", "wall_ms", "over"),
    [
        (2_000, 77_000, True),
        (2_000, 76_999, False),
        (1_900, 77_000, True),
        (1_899, 77_000, False),
        (1_100, 10**15, False),
        (1_900, 76_000, False),
        (1_900, 75_999, True),
        (1_899, 75_999, False),
    ],
)
def test_a_civil_period_needs_the_wall_clock_and_nine_tenths_of_its_time(
    now_ms: int, wall_ms: int, over: bool
) -> None:
    assert Calendar(DAYS, DAY, CLOCK).is_over(now_ms, wall_ms) is over


def test_what_fits_a_civil_window_fits_as_far_as_one_can_foresee() -> None:
    window = Calendar(DAYS, DAY, CLOCK, spent=70)
    assert window.fit(1_500, 70) == Fit(1_500, exact=True)
    assert window.fit(1_500, 69) == Fit(2_000, exact=False)
    assert window.fit(2_500, 69) == Fit(2_501, exact=False), "the wall clock is behind"
    assert window.fit(1_500, -1) == Fit(1_500 + ASK_AGAIN_MS, exact=False)
    moved = CivilClock()
    assert Calendar(DAYS, DAY, moved, spent=70).fit(1_500, 69) == Fit(77_000, exact=False)
    moved.ahead_ms = 90_000
    assert Calendar(DAYS, DAY, moved, spent=70).fit(1_500, 69) == Fit(1_900, exact=False)
    assert window.restored_in_ms(1_500, reserved=0) == 500
    assert window.restored_in_ms(2_500, reserved=0) == 0
    assert Calendar(DAYS, DAY, CLOCK).restored_in_ms(1_500, reserved=0) == 0
    assert Calendar(DAYS, DAY, CLOCK).restored_in_ms(1_500, reserved=1) == 500


def test_in_flight_only_what_is_reserved_counts() -> None:
    window = Held()
    window.charge(1, 5)
    assert (window.window, window.spent_at(9), window.books_at(9)) == (HELD, 0, WindowBooks())
    assert window.fit(1, 0) == Fit(1, exact=True)
    assert window.fit(1, -1) == Fit(1 + ASK_AGAIN_MS, exact=False)
    assert window.restored_in_ms(1, reserved=0) == 0
    assert window.restored_in_ms(1, reserved=2) is None
    assert window.check() is None


def test_amounts_saturate_where_no_cap_can_lie_above() -> None:
    for window in (Fixed(fixed(100), 0), Calendar(DAYS, DAY, CLOCK)):
        window.charge(1, AMOUNT_MAX)
        window.charge(2, AMOUNT_MAX)
        assert window.spent_at(2) == AMOUNT_MAX


def test_broken_periods_say_so() -> None:
    assert Fixed(fixed(100), 0, -1).check() == "-1 in a period"
    assert Calendar(DAYS, DAY, CLOCK, -1).check() == "-1 in a period"
    with pytest.raises(ValueError, match="fixed window of 0 ms"):
        Fixed(fixed(0), 0)
