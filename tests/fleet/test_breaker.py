"""Circuit breakers: when a neuron is left alone, and how it comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.fleet.breaker import (
    Breaker,
    Breakers,
    BreakerSettings,
    State,
    Ticket,
    Verdict,
    verdict_on_status,
)
from cortexd.fleet.view import NeuronName

WORKED, FAILED, UNKNOWN = Verdict.WORKED, Verdict.FAILED, Verdict.UNKNOWN
SETTINGS = BreakerSettings(
    failures_to_open=3, open_ms=100, open_ms_max=1_000, probe_ms=500, calm_ms=5_000
)
BEAST, BENJY = NeuronName("beast"), NeuronName("benjy")


def after(breaker: Breaker, *verdicts: Verdict, now_ms: int = 0) -> Breaker:
    """Requests one after the other, each with its verdict at once."""
    for verdict in verdicts:
        breaker, ticket = breaker.begin(now_ms, SETTINGS)
        breaker = breaker.end(ticket, verdict, now_ms, SETTINGS)
    return breaker


def opened(now_ms: int = 0) -> Breaker:
    return after(Breaker(), FAILED, FAILED, FAILED, now_ms=now_ms)


def test_failures_in_a_row_open_it() -> None:
    assert after(Breaker(), FAILED, FAILED).state(0) is State.CLOSED
    assert opened().state(0) is State.OPEN


def test_one_success_starts_the_count_again() -> None:
    assert after(Breaker(), *(FAILED, FAILED, WORKED) * 9).state(0) is State.CLOSED


def test_clients_that_hang_up_prove_nothing() -> None:
    """Neither may a thousand of them open it, nor one hide a failing neuron."""
    assert after(Breaker(), *(UNKNOWN,) * 1_000) == Breaker()
    assert after(Breaker(), FAILED, UNKNOWN, FAILED, UNKNOWN, FAILED).state(0) is State.OPEN


def test_many_requests_that_die_at_once_open_it_once() -> None:
    breaker = Breaker()
    tickets: list[Ticket] = []
    for _ in range(50):
        breaker, ticket = breaker.begin(0, SETTINGS)
        tickets.append(ticket)
    for ticket in tickets:
        breaker = breaker.end(ticket, FAILED, 10, SETTINGS)
    assert breaker.retry_in_ms(10) == SETTINGS.open_ms


def test_an_answer_that_was_asked_for_before_the_trouble_does_not_end_it() -> None:
    breaker, early = Breaker().begin(0, SETTINGS)
    breaker = after(breaker, FAILED, FAILED, FAILED)
    assert breaker.end(early, WORKED, 50, SETTINGS) is breaker
    probing, probe = breaker.begin(100, SETTINGS)
    assert probing.end(early, FAILED, 150, SETTINGS) is probing
    assert probing.end(probe, WORKED, 150, SETTINGS).state(150) is State.CLOSED


def test_one_probe_at_a_time_goes_out_when_its_time_is_over() -> None:
    breaker = opened()
    assert breaker.state(99) is State.OPEN
    assert breaker.state(100) is State.HALF_OPEN
    breaker, _ = breaker.begin(100, SETTINGS)
    assert breaker.state(100) is State.PROBING
    assert not breaker.state(599).admits
    assert breaker.retry_in_ms(400) == 200


def test_a_probe_that_works_closes_it() -> None:
    breaker = after(opened(), WORKED, now_ms=100)
    assert breaker.state(100) is State.CLOSED
    assert after(breaker, FAILED, FAILED, now_ms=100).state(100) is State.CLOSED, "counts anew"


def test_each_probe_that_fails_opens_it_for_longer_up_to_the_limit() -> None:
    breaker, now_ms, waits = opened(), 0, list[int]()
    for _ in range(50):
        waits.append(breaker.retry_in_ms(now_ms))
        now_ms += waits[-1]
        breaker = after(breaker, FAILED, now_ms=now_ms)
    assert waits[:6] == [100, 200, 400, 800, 1_000, 1_000]
    assert set(waits[4:]) == {1_000}


def test_a_client_that_hangs_up_on_a_probe_frees_its_place() -> None:
    breaker = after(opened(), UNKNOWN, now_ms=100)
    assert breaker.state(100) is State.HALF_OPEN
    assert after(breaker, FAILED, now_ms=100).retry_in_ms(100) == 200, "no longer for it"


def test_a_silent_probe_lets_another_one_go_and_may_still_be_heard() -> None:
    breaker, silent = opened().begin(100, SETTINGS)
    assert breaker.state(600) is State.HALF_OPEN
    breaker, second = breaker.begin(600, SETTINGS)
    assert silent != second
    assert breaker.end(silent, UNKNOWN, 700, SETTINGS).state(700) is State.PROBING
    assert breaker.end(silent, WORKED, 700, SETTINGS).state(700) is State.CLOSED
    reopened = breaker.end(silent, FAILED, 700, SETTINGS)
    assert reopened.retry_in_ms(700) == 200
    assert reopened.end(second, FAILED, 800, SETTINGS) is reopened


def test_a_neuron_that_works_only_for_moments_is_left_alone_for_longer_each_time() -> None:
    breaker = after(opened(), WORKED, now_ms=100)
    breaker = after(breaker, FAILED, FAILED, FAILED, now_ms=5_099)
    assert breaker.retry_in_ms(5_099) == 200


def test_after_a_calm_time_it_opens_as_if_for_the_first_time() -> None:
    breaker = after(opened(), WORKED, now_ms=100)
    breaker = after(breaker, FAILED, FAILED, FAILED, now_ms=5_100)
    assert breaker.retry_in_ms(5_100) == 100


@pytest.mark.parametrize("now_ms", [50, 150])
def test_a_request_through_an_open_breaker_is_a_bug(now_ms: int) -> None:
    breaker, _ = opened().begin(100, SETTINGS)
    with pytest.raises(AssertionError, match="open breaker"):
        breaker.begin(now_ms, SETTINGS)


@pytest.mark.parametrize(
    ("status", "did_no_work", "says_when", "verdict"),
    [
        (200, False, False, WORKED),
        (400, True, False, WORKED),
        (404, True, False, WORKED),
        (429, True, True, WORKED),
        (500, True, False, FAILED),
        (500, False, False, UNKNOWN),
        (501, True, False, WORKED),
        (502, True, True, FAILED),
        (503, True, False, FAILED),
        (503, True, True, UNKNOWN),
        (504, False, True, UNKNOWN),
    ],
)
def test_a_status_counts_when_it_tells_about_the_neuron(
    status: int, did_no_work: bool, says_when: bool, verdict: Verdict
) -> None:
    assert verdict_on_status(status, did_no_work=did_no_work, says_when=says_when) is verdict


class Plain:
    """The same breaker, told as a story: what happened in this era, and nothing worked out."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []
        self.opened_at: int | None = None
        self.lasts = 0
        self.closed_at = -(10**9)
        self.openings = 0
        self.probes: list[list[int | bool]] = []
        self.era = 0

    def may_begin(self, now: int) -> bool:
        if self.opened_at is None:
            return True
        out = bool(self.probes) and not self.probes[-1][1]
        waits = out and now - self.probes[-1][0] < SETTINGS.probe_ms
        return now - self.opened_at >= self.lasts and not waits

    def begin(self, now: int) -> tuple[int, int]:
        if self.opened_at is not None:
            self.probes.append([now, False])
        return self.era, len(self.probes)

    def end(self, ticket: tuple[int, int], verdict: Verdict, now: int) -> None:
        era, probe = ticket
        if era != self.era:
            return
        if self.opened_at is None:
            self.verdicts += [verdict] if verdict is not UNKNOWN else []
            if self.verdicts[-3:] == [FAILED] * 3:
                self.open(now)
        elif verdict is FAILED:
            self.open(now)
        elif verdict is WORKED:
            self.opened_at, self.closed_at, self.era = None, now, self.era + 1
            self.verdicts, self.probes = [], []
        else:
            self.probes[probe - 1][1] = True

    def open(self, now: int) -> None:
        calm = self.opened_at is None and now - self.closed_at >= SETTINGS.calm_ms
        self.openings = 1 if calm else self.openings + 1
        self.lasts = min([100, 200, 400, 800, 1_000][min(self.openings, 5) - 1], 1_000)
        self.opened_at, self.era, self.verdicts, self.probes = now, self.era + 1, [], []


STEPS = st.lists(
    st.one_of(
        st.just("begin"),
        st.sampled_from([1, 99, 100, 499, 500, 5_000]),
        st.tuples(st.integers(0, 5), st.sampled_from([FAILED, FAILED, FAILED, WORKED, UNKNOWN])),
    ),
    max_size=80,
)


@pytest.mark.slow
@given(STEPS)
def test_it_does_what_its_story_says(steps: list[object]) -> None:
    breaker, plain, now = Breaker(), Plain(), 0
    out: list[tuple[Ticket, tuple[int, int]]] = []
    for step in steps:
        match step:
            case int():
                now += step
            case "begin" if breaker.state(now).admits:
                breaker, ticket = breaker.begin(now, SETTINGS)
                out.append((ticket, plain.begin(now)))
            case (int(i), Verdict() as verdict) if out:
                ours, theirs = out.pop(i % len(out))
                breaker = breaker.end(ours, verdict, now, SETTINGS)
                plain.end(theirs, verdict, now)
        assert breaker.state(now).admits == plain.may_begin(now)
        wait = breaker.retry_in_ms(now)
        assert (wait == 0) == breaker.state(now).admits
        assert wait <= max(SETTINGS.open_ms_max, SETTINGS.probe_ms), "nobody is shut off for good"
        assert breaker.state(now + wait).admits
        assert all(not breaker.state(t).admits for t in (now, now + wait - 1) if wait)


def test_each_neuron_has_its_own_and_an_unknown_one_is_closed() -> None:
    breakers = Breakers(SETTINGS)
    changes = [breakers.end(BEAST, breakers.begin(BEAST, 0), FAILED, 0) for _ in range(3)]
    assert changes == [None, None, State.OPEN]
    assert breakers.not_closed == {BEAST}
    assert [breakers.state(each, 0) for each in (BEAST, BENJY)] == [State.OPEN, State.CLOSED]
    assert breakers.retry_in_ms([BEAST], 40) == 60
    assert breakers.retry_in_ms([BEAST, BENJY], 40) == 0
    assert breakers.retry_in_ms([], 40) is None
    assert breakers.not_closed == {BEAST}, "it is half-open now"
    assert breakers.end(BEAST, breakers.begin(BEAST, 100), WORKED, 120) is State.CLOSED
    assert breakers.not_closed == set()


def test_a_neuron_that_is_no_longer_configured_is_forgotten() -> None:
    breakers = Breakers()
    ticket = breakers.begin(BEAST, 0)
    breakers.begin(BENJY, 0)
    breakers.keep({BENJY})
    assert breakers.end(BEAST, ticket, FAILED, 0) is None
    assert breakers.state(BEAST, 0) is State.CLOSED


def test_an_open_breaker_of_a_neuron_that_is_no_longer_configured_is_forgotten() -> None:
    breakers = Breakers(SETTINGS)
    for each in (BEAST, BENJY):
        for _ in range(SETTINGS.failures_to_open):
            breakers.end(each, breakers.begin(each, 0), FAILED, 0)
    breakers.keep({BENJY})
    assert breakers.not_closed == {BENJY}
