"""Windows alone: what counts, for how long, in how much memory, and when something will fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.ledger.entries import AMOUNT_MAX, WindowBooks
from cortexd.ledger.windows import ASK_AGAIN_MS, Balance, Fit, Rolling

CHARGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=80)


def test_a_balance_never_forgets_and_never_fits_again() -> None:
    balance = Balance(5)
    balance.charge(1, 10)
    assert balance.spent_at(10**15) == 15
    assert balance.fit(1, 14) is None
    assert balance.restored_in_ms(1, reserved=3) is None
    assert balance.books_at(1) == WindowBooks(15)
    assert balance.check() is None


def test_a_broken_balance_says_so() -> None:
    assert Balance(-1).check() == "balance of -1"


def test_amounts_saturate_where_no_cap_can_lie_above() -> None:
    for window in (Balance(), Rolling(1000)):
        window.charge(1, AMOUNT_MAX)
        window.charge(2, AMOUNT_MAX)
        assert window.spent_at(2) == AMOUNT_MAX
        assert window.check() is None


def test_a_charge_counts_for_the_window_and_its_clock_tolerance_and_not_a_tick_longer() -> None:
    window = Rolling(3_600_000)
    window.charge(1000, 70)
    expires_ms = 1000 + 3_600_000 + 3_600_000 // 1024 + 1
    assert window.spent_at(expires_ms - 1) == 70
    assert window.spent_at(expires_ms) == 0


def test_charges_of_one_grain_share_the_stamp_of_the_newest() -> None:
    window = Rolling(600, buckets=6)
    window.charge(100, 1)
    window.charge(199, 2)
    window.charge(200, 4)
    assert window.charges_at(200) == ((199, 3), (200, 4))


def test_what_expires_within_a_grain_counts_no_more_though_it_is_still_remembered() -> None:
    window = Rolling(600, buckets=6)
    for stamp, tokens in ((100, 1), (700, 2), (710, 4)):
        window.charge(stamp, tokens)
    assert (window.remembered, window.spent_at(710)) == (7, 6)
    assert window.charges_at(710) == ((710, 6),)
    assert window.fit(710, 6) == Fit(710, exact=True)
    assert window.check() is None
    window.charge(800, 8)
    assert (window.remembered, window.spent_at(800)) == (14, 14)


def test_nothing_charged_leaves_no_trace_and_moves_no_stamp() -> None:
    window = Rolling(600, buckets=6)
    window.charge(100, 1)
    window.charge(150, 0)
    assert window.charges_at(150) == ((100, 1),)


def test_restored_is_when_the_last_charge_expires() -> None:
    window = Rolling(600)
    assert window.restored_in_ms(0, reserved=0) == 0
    window.charge(100, 1)
    assert window.restored_in_ms(200, reserved=0) == 501
    assert window.restored_in_ms(700, reserved=0) == 1
    assert window.restored_in_ms(900, reserved=0) == 0
    assert window.restored_in_ms(900, reserved=1) == 601


def test_fit_waits_for_as_many_charges_as_it_needs() -> None:
    window = Rolling(600, buckets=600)
    for stamp in (100, 200, 300):
        window.charge(stamp, 10)
    assert window.fit(300, 30) == Fit(300, exact=True)
    assert window.fit(300, 20) == Fit(701, exact=True)
    assert window.fit(300, 19) == Fit(801, exact=True)
    assert window.fit(300, 0) == Fit(901, exact=True)
    assert window.fit(300, -1) == Fit(300 + ASK_AGAIN_MS, exact=False)
    assert window.fit(750, 20) == Fit(750, exact=True)


def test_a_window_of_nothing_is_a_bug() -> None:
    with pytest.raises(ValueError, match="0 ms"):
        Rolling(0)


@given(st.integers(1, 5000), st.sampled_from([1, 3, 60]), CHARGES)
def test_memory_is_bounded_and_the_books_add_up(
    window_ms: int, buckets: int, charges: list[tuple[int, int]]
) -> None:
    window = Rolling(window_ms, buckets=buckets)
    now_ms = 0
    for step, tokens in charges:
        now_ms += step * window_ms // 600
        window.charge(now_ms, tokens)
        assert window.check() is None
        assert len(window.charges_at(now_ms)) <= buckets + 2


def test_a_full_window_of_charges_all_the_time_fits_in_62_entries() -> None:
    window = Rolling(6000)
    for now_ms in range(0, 13_000, 9):
        window.charge(now_ms, 1)
        assert len(window.charges_at(now_ms)) <= 62
    assert window.check() is None


@given(st.integers(1, 200), st.sampled_from([1, 3, 60]), CHARGES, st.integers(0, 300))
def test_what_counts_lies_between_the_window_and_the_window_with_its_slack(
    window_ms: int, buckets: int, charges: list[tuple[int, int]], later_ms: int
) -> None:
    window = Rolling(window_ms, buckets=buckets)
    facts: list[tuple[int, int]] = []
    now_ms = 0
    for step, tokens in charges:
        now_ms += step
        window.charge(now_ms, tokens)
        facts.append((now_ms, tokens))
    now_ms += later_ms
    longest_ms = window_ms + window_ms // 1024 + 1 + -(-window_ms // buckets)
    at_least = sum(tokens for stamp, tokens in facts if stamp > now_ms - window_ms)
    at_most = sum(tokens for stamp, tokens in facts if stamp > now_ms - longest_ms)
    assert at_least <= window.spent_at(now_ms) <= min(at_most, window.remembered)


@given(st.integers(1, 200), CHARGES, st.integers(0, 100), st.integers(0, 300))
def test_fit_is_the_first_millisecond_with_room(
    window_ms: int, charges: list[tuple[int, int]], room: int, later_ms: int
) -> None:
    window = Rolling(window_ms, buckets=3)
    now_ms = 0
    for step, tokens in charges:
        now_ms += step
        window.charge(now_ms, tokens)
    now_ms += later_ms
    fit = window.fit(now_ms, room)
    assert fit is not None
    assert fit.exact
    assert window.spent_at(fit.at_ms) <= room
    assert fit.at_ms == now_ms or window.spent_at(fit.at_ms - 1) > room


@given(st.integers(1, 200), CHARGES, st.integers(0, 300))
def test_a_window_made_of_its_own_charges_is_the_same_window(
    window_ms: int, charges: list[tuple[int, int]], later_ms: int
) -> None:
    window = Rolling(window_ms, buckets=3)
    now_ms = 0
    for step, tokens in charges:
        now_ms += step
        window.charge(now_ms, tokens)
    kept = window.charges_at(now_ms)
    again = Rolling(window_ms, kept, buckets=3)
    assert again.charges_at(now_ms) == kept
    now_ms += later_ms
    for each in (window, again):
        each.charge(now_ms, 5)
    assert again.charges_at(now_ms) == window.charges_at(now_ms)


def test_broken_rolling_books_say_what_is_wrong() -> None:
    def broken(**books: object) -> str | None:
        window = Rolling(600, buckets=3)
        window.charge(100, 1)
        for name, value in books.items():
            setattr(window, name, value)
        return window.check()

    assert broken() is None
    assert broken(remembered=2) == "a sum of 2 that is none"
    assert broken(_charges=[(100, 1), (100, 0)]) == "entries out of order"
    assert broken(_charges=[(100, 1), (101, 0)]) == "an entry out of range"
    assert broken(_charges=[(stamp, 1) for stamp in range(6)]) == "6 entries"
