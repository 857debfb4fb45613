"""How long loads take: what is guessed, what is learned, and what is left of one under way."""

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.fleet.load_times import (
    LONGEST_MS,
    PLACES_MAX,
    SAMPLES_MAX,
    SHORTEST_MS,
    LoadTimes,
    left_ms,
    prior_ms,
    recent_median,
    retry_after_seconds,
)
from cortexd.fleet.reports import ModelId
from cortexd.fleet.view import NeuronName

MODEL, OTHER = ModelId("model"), ModelId("other")
BEAST, MOUSE = NeuronName("beast"), NeuronName("mouse")
DURATIONS = st.integers(0, 2 * LONGEST_MS)


def learned(*seconds: int) -> LoadTimes:
    """What is known after loads of one model of 20 GB on one neuron."""
    times = LoadTimes()
    for each in seconds:
        times.loaded(MODEL, BEAST, took_ms=each * 1000, vram_mb=20_000)
    return times


def expected(times: LoadTimes) -> float:
    """How many seconds the next load of that model will take there."""
    return times.expected_ms(MODEL, BEAST, vram_mb=20_000) / 1000


def test_before_the_first_load_the_size_decides() -> None:
    assert expected(LoadTimes()) == 50
    times = LoadTimes()
    assert times.expected_ms(MODEL, BEAST, vram_mb=0) == 10_000
    assert times.expected_ms(MODEL, BEAST, vram_mb=None) == 42_000
    assert times.expected_ms(MODEL, BEAST, vram_mb=2**30) == LONGEST_MS


@pytest.mark.parametrize(
    ("seconds", "then"),
    [
        ((30,), 30),
        ((1200, 30), 30),  # the first one had to download
        ((30, 1200), 1200),
        ((1200, 30, 30), 30),
        ((30, 30, 1200), 30),
        ((30, 32, 31, 30, 1200), 31),
        ((30, 30, 30, 1200, 1200), 1200),
        ((30, 30, 30, 50, 40, 50), 50),  # with a sixth it would be 40
        ((1200, 1200, 1200, 30, 30, 30, 30), 30),
        ((0,), 1),
        ((86_400,), 1800),
    ],
)
def test_the_last_loads_decide_and_one_odd_one_does_not(
    seconds: tuple[int, ...], then: int
) -> None:
    assert expected(learned(*seconds)) == then


def test_a_neuron_that_was_twice_as_slow_as_guessed_is_so_with_other_models_too() -> None:
    times = learned(100)
    assert times.expected_ms(OTHER, BEAST, vram_mb=20_000) == 100_000
    assert times.expected_ms(OTHER, BEAST, vram_mb=5_000) == 40_000
    assert times.expected_ms(OTHER, BEAST, vram_mb=None) == 84_000


def test_a_neuron_that_never_loaded_anything_is_like_the_fleet() -> None:
    times = learned(100)
    assert times.expected_ms(MODEL, MOUSE, vram_mb=20_000) == 100_000
    times.loaded(OTHER, MOUSE, took_ms=25_000, vram_mb=20_000)
    assert times.expected_ms(MODEL, MOUSE, vram_mb=20_000) == 25_000
    assert expected(times) == 100


def test_a_pace_that_is_beyond_reason_gives_a_time_that_is_not() -> None:
    times = LoadTimes()
    times.loaded(MODEL, BEAST, took_ms=LONGEST_MS, vram_mb=0)
    assert times.expected_ms(OTHER, BEAST, vram_mb=100_000) == LONGEST_MS
    times = LoadTimes()
    times.loaded(MODEL, BEAST, took_ms=0, vram_mb=800_000)
    assert times.expected_ms(OTHER, BEAST, vram_mb=0) == SHORTEST_MS


def test_memory_is_bounded_and_what_was_loaded_last_stays() -> None:
    times = LoadTimes()
    for number in range(PLACES_MAX):
        times.loaded(ModelId(str(number)), BEAST, took_ms=7000, vram_mb=0)
    times.loaded(ModelId("0"), BEAST, took_ms=7000, vram_mb=0)
    for _ in range(SAMPLES_MAX):
        times.loaded(MODEL, BEAST, took_ms=90_000, vram_mb=0)
    assert times.expected_ms(ModelId("0"), BEAST, vram_mb=0) == 7000
    assert times.expected_ms(ModelId("1"), BEAST, vram_mb=0) == 90_000  # forgotten: as others there


def test_the_median_of_nothing_is_a_bug() -> None:
    with pytest.raises(ValueError, match="nothing"):
        recent_median(())


@given(st.lists(DURATIONS, min_size=1, max_size=SAMPLES_MAX))
def test_the_estimate_is_the_median_of_samples_repeated_by_recency(samples: list[int]) -> None:
    repeated = [it for weight, it in enumerate(samples, start=1) for _ in range(weight)]
    found = recent_median(tuple(samples))
    assert found in samples
    below, above = (sum(it < found for it in repeated), sum(it > found for it in repeated))
    assert max(below, above) <= len(repeated) / 2
    assert found <= median(repeated)


@given(st.lists(st.integers(30_000, 40_000), min_size=4, max_size=8), st.integers(0, 7), DURATIONS)
def test_one_odd_load_among_the_last_five_moves_nothing_out_of_the_usual(
    usual: list[int], where: int, odd: int
) -> None:
    times = LoadTimes()
    samples = [*usual[:where], odd, *usual[where:]]
    for took_ms in samples:
        times.loaded(MODEL, BEAST, took_ms=took_ms, vram_mb=None)
    assert min(usual) <= times.expected_ms(MODEL, BEAST, vram_mb=None) <= max(usual)


@given(DURATIONS, st.integers(0, 2**30), st.integers(0, 2**30))
def test_larger_models_are_never_expected_sooner(took_ms: int, small_mb: int, more_mb: int) -> None:
    assert prior_ms(small_mb) <= prior_ms(small_mb + more_mb)
    times = LoadTimes()
    times.loaded(OTHER, BEAST, took_ms=took_ms, vram_mb=small_mb)
    sooner = times.expected_ms(MODEL, BEAST, vram_mb=small_mb)
    later = times.expected_ms(MODEL, BEAST, vram_mb=small_mb + more_mb)
    assert SHORTEST_MS <= sooner <= later <= LONGEST_MS


def test_what_is_left_counts_on_an_eighth_more_than_expected() -> None:
    assert left_ms(80_000, since_ms=5000, now_ms=5000) == 90_000
    assert left_ms(80_000, since_ms=5000, now_ms=35_000) == 60_000
    assert left_ms(80_000, since_ms=5000, now_ms=85_000) == 10_000


def test_a_late_load_is_asked_about_the_more_rarely_the_later_it_is() -> None:
    assert left_ms(80_000, since_ms=0, now_ms=160_000) == 20_000
    assert left_ms(80_000, since_ms=0, now_ms=800_000) == 100_000
    assert left_ms(80_000, since_ms=10, now_ms=0) == 90_000  # clocks that were read in turn


@given(
    st.integers(SHORTEST_MS, LONGEST_MS),
    st.integers(0, 3 * LONGEST_MS),
    st.lists(st.integers(0, 3 * LONGEST_MS), max_size=5),
)
def test_who_keeps_to_retry_after_finds_the_model_loaded_after_few_tries(
    expected_ms: int, takes_ms: int, arrivals: list[int]
) -> None:
    for arrived_ms in arrivals:
        now_ms, tries = arrived_ms, 0
        while now_ms < takes_ms:
            now_ms += 1000 * retry_after_seconds(left_ms(expected_ms, since_ms=0, now_ms=now_ms))
            tries += 1
        # Once if it is as expected; else each try waits an eighth of the time that has gone by.
        on_time = takes_ms <= expected_ms * 9 // 8
        assert tries <= (1 if on_time else 64)
        assert on_time or now_ms <= max(arrived_ms, takes_ms * 9 // 8 + 2000)


def test_retry_after_is_in_whole_seconds_never_early_and_never_0() -> None:
    waits = [-5, 0, 1, 1000, 1001, 90_000]
    assert [retry_after_seconds(wait_ms) for wait_ms in waits] == [1, 1, 1, 1, 2, 90]
