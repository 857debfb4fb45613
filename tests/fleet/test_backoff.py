"""The pause after a failed load: how it grows, ends and is forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from cortexd.fleet.backoff import FIRST_MS, FORGOTTEN_AFTER_MS, LONGEST_MS, Backoff, Backoffs
from cortexd.fleet.reports import ModelId
from cortexd.fleet.view import NeuronName

MODEL, OTHER = ModelId("model"), ModelId("other")
BEAST, MOUSE = NeuronName("beast"), NeuronName("mouse")


def test_what_never_failed_is_ready() -> None:
    assert Backoff().wait_ms(0) == 0
    assert Backoff().wait_ms(10**12) == 0


def test_pauses_double_from_five_seconds_to_five_minutes() -> None:
    now_ms, backoff, pauses = 1000, Backoff(), []
    for _ in range(9):
        backoff = backoff.failed(now_ms)
        pauses.append(backoff.wait_ms(now_ms))
        now_ms = backoff.ready_at_ms
    assert pauses == [5000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000, 300_000]
    assert backoff.failures == 9


def test_it_is_ready_at_the_millisecond_that_was_said() -> None:
    backoff = Backoff().failed(1000)
    assert backoff.ready_at_ms == 6000
    assert (backoff.wait_ms(5999), backoff.wait_ms(6000), backoff.wait_ms(7000)) == (1, 0, 0)


def test_what_can_never_work_waits_the_longest_at_once() -> None:
    assert Backoff().failed(0, permanent=True) == Backoff(1, LONGEST_MS)


def test_a_success_begins_anew() -> None:
    backoff = Backoff().failed(0).failed(5000).succeeded()
    assert backoff == Backoff()
    assert backoff.failed(10_000).wait_ms(10_000) == FIRST_MS


def test_failures_of_long_ago_do_not_count() -> None:
    backoff = Backoff().failed(0).failed(5000)
    end_ms = backoff.ready_at_ms + FORGOTTEN_AFTER_MS
    assert backoff.failed(end_ms - 1) == Backoff(3, end_ms - 1 + 4 * FIRST_MS)
    assert backoff.failed(end_ms) == Backoff(1, end_ms + FIRST_MS)


def test_a_model_pauses_only_on_the_neuron_where_it_failed() -> None:
    backoffs = Backoffs()
    assert backoffs.failed(MODEL, BEAST, 0) == Backoff(1, FIRST_MS)
    assert backoffs.of(MODEL, BEAST).wait_ms(0) == FIRST_MS
    assert backoffs.of(MODEL, MOUSE) == backoffs.of(OTHER, BEAST) == Backoff()
    backoffs.succeeded(MODEL, MOUSE)
    assert backoffs.failed(MODEL, BEAST, FIRST_MS).failures == 2
    backoffs.succeeded(MODEL, BEAST)
    assert backoffs.of(MODEL, BEAST) == Backoff()
    assert len(backoffs) == 0


def test_a_permanent_failure_is_one_in_the_table_too() -> None:
    assert Backoffs().failed(MODEL, BEAST, 0, permanent=True).ready_at_ms == LONGEST_MS


def test_what_is_long_over_takes_no_memory() -> None:
    backoffs = Backoffs()
    for number in range(100):
        backoffs.failed(ModelId(str(number)), BEAST, number)
    assert len(backoffs) == 100
    backoffs.failed(MODEL, BEAST, FIRST_MS + FORGOTTEN_AFTER_MS + 49)
    assert len(backoffs) == 51


@given(st.lists(st.tuples(st.integers(0, 2 * FORGOTTEN_AFTER_MS), st.booleans()), max_size=60))
def test_a_pause_is_never_shorter_than_the_first_nor_longer_than_the_longest(
    steps: list[tuple[int, bool]],
) -> None:
    backoff, now_ms, in_a_row = Backoff(), 0, 0
    for later_ms, works in steps:
        now_ms += later_ms
        if works:
            backoff, in_a_row = backoff.succeeded(), 0
            assert backoff.wait_ms(now_ms) == 0
            continue
        in_a_row = 1 if now_ms >= backoff.ready_at_ms + FORGOTTEN_AFTER_MS else in_a_row + 1
        backoff = backoff.failed(now_ms)
        assert backoff.wait_ms(now_ms) == min(FIRST_MS * 2 ** (in_a_row - 1), LONGEST_MS)
