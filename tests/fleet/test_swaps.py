"""Swaps: each rule at its edges, and a graphics card that several models share, in virtual time."""

from heapq import heappop, heappush
from itertools import count

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.config.schema import Eviction
from cortexd.fleet.fair_queue import FairQueue, Ticket
from cortexd.fleet.reports import ModelId
from cortexd.fleet.swaps import (
    Decision,
    Hot,
    Step,
    SwapRules,
    displaceable_ms,
    first_in_line,
    next_step,
    rules_of,
    swap_due_ms,
)

RULES = SwapRules(max_swap_wait_ms=30_000, min_residency_ms=20_000, drain_ms=10_000)
LONG_RESIDENCY = msgspec.structs.replace(RULES, min_residency_ms=60_000)
NO_PROMISE = msgspec.structs.replace(RULES, max_swap_wait_ms=0)
BUSY = Hot(loaded_ms=1_000_000, in_flight=2, waiting=3)
IDLE = Hot(loaded_ms=1_000_000)


def step_at(now_ms: int, hot: Hot, cold_since_ms: int, rules: SwapRules = RULES) -> Step:
    """The step alone."""
    return next_step(hot, cold_since_ms, rules, now_ms).step


def test_rules_are_what_the_operator_wrote_in_milliseconds() -> None:
    settings = Eviction(max_swap_wait_seconds=0.5, min_residency_seconds=60)
    assert rules_of(settings, drain_seconds=7.5) == SwapRules(500, 60_000, 7500)
    off = Eviction(max_swap_wait_seconds=0, min_residency_seconds=0)
    assert rules_of(off, drain_seconds=0) == SwapRules(0, 0, 0)
    tiny = Eviction(max_swap_wait_seconds=1e-9, min_residency_seconds=1e-9)
    assert rules_of(tiny, drain_seconds=1e-9) == SwapRules(1, 1, 1)


def test_nobody_gives_way_to_nobody() -> None:
    drained = msgspec.structs.replace(BUSY, draining_since_ms=1_020_000)
    for hot in (BUSY, IDLE, drained):
        assert next_step(hot, None, RULES, 10**9) == Decision(Step.SERVE)


def test_a_busy_model_drains_so_early_that_the_swap_comes_in_time() -> None:
    assert swap_due_ms(BUSY, 1_100_000, RULES) == 1_120_000
    assert next_step(BUSY, 1_100_000, RULES, 1_119_999) == Decision(Step.SERVE, 1_120_000)
    assert next_step(BUSY, 1_100_000, RULES, 1_120_000) == Decision(Step.DRAIN, 1_130_000)
    assert step_at(1_120_000, msgspec.structs.replace(BUSY, in_flight=0), 1_100_000) is (
        Step.DISPLACE
    )


def test_the_wait_counts_from_when_the_hot_model_got_its_turn() -> None:
    """Or the third of three models would displace the second before it served anybody."""
    assert swap_due_ms(BUSY, 5, RULES) == 1_020_000


def test_drains_take_no_more_than_half_of_a_turn() -> None:
    patient = msgspec.structs.replace(RULES, drain_ms=10**9)
    assert swap_due_ms(BUSY, 5, patient) == 1_015_000


@pytest.mark.parametrize("wait_ms", range(1, 5))
def test_a_turn_always_serves_for_some_time(wait_ms: int) -> None:
    rules = SwapRules(wait_ms, 0, 10**9)
    assert rules.longest_service_ms >= 1


def test_an_idle_model_keeps_its_place_for_its_residency() -> None:
    assert displaceable_ms(IDLE, 1_019_000, RULES) == 1_020_000
    assert next_step(IDLE, 1_019_000, RULES, 1_019_999) == Decision(Step.SERVE, 1_020_000)
    assert next_step(IDLE, 1_019_000, RULES, 1_020_000) == Decision(Step.DISPLACE)
    assert step_at(2_000_000, IDLE, 2_000_000) is Step.DISPLACE


def test_who_waits_for_a_cold_model_outweighs_a_longer_residency() -> None:
    assert displaceable_ms(IDLE, 1_010_000, LONG_RESIDENCY) == 1_030_000
    assert displaceable_ms(IDLE, 1_059_000, LONG_RESIDENCY) == 1_060_000


def test_without_a_promise_a_busy_model_gives_way_to_nobody_and_an_idle_one_does() -> None:
    assert swap_due_ms(BUSY, 0, NO_PROMISE) is None
    assert next_step(BUSY, 0, NO_PROMISE, 10**12) == Decision(Step.SERVE)
    assert next_step(IDLE, 0, NO_PROMISE, 1_019_999) == Decision(Step.SERVE, 1_020_000)
    assert step_at(1_020_000, IDLE, 0, NO_PROMISE) is Step.DISPLACE


def test_a_draining_model_is_displaced_when_the_last_request_has_ended() -> None:
    draining = msgspec.structs.replace(BUSY, draining_since_ms=1_120_000)
    assert next_step(draining, 1_100_000, RULES, 1_125_000) == Decision(Step.DRAIN, 1_130_000)
    drained = msgspec.structs.replace(draining, in_flight=0)
    assert next_step(drained, 1_100_000, RULES, 1_125_000) == Decision(Step.DISPLACE)
    assert step_at(1_999_999, drained, 1_100_000) is Step.DISPLACE


def test_a_drain_that_takes_too_long_ends_and_the_wait_begins_anew() -> None:
    draining = msgspec.structs.replace(BUSY, draining_since_ms=1_120_000)
    assert step_at(1_129_999, draining, 1_100_000) is Step.DRAIN
    assert next_step(draining, 1_100_000, RULES, 1_130_000) == Decision(Step.RESUME)
    resumed = msgspec.structs.replace(BUSY, resumed_ms=1_130_000)
    assert next_step(resumed, 1_100_000, RULES, 1_130_000) == Decision(Step.SERVE, 1_150_000)


def test_a_drain_for_somebody_who_left_is_called_off_for_somebody_who_just_came() -> None:
    draining = msgspec.structs.replace(BUSY, draining_since_ms=1_120_000)
    assert next_step(draining, 1_124_000, RULES, 1_125_000) == Decision(Step.SERVE, 1_144_000)


def test_a_resumed_model_that_is_idle_is_not_protected_again() -> None:
    resumed = msgspec.structs.replace(IDLE, resumed_ms=1_130_000)
    assert step_at(1_130_000, resumed, 1_100_000) is Step.DISPLACE


def test_the_longest_waiting_is_first_in_line() -> None:
    a, b, c = ModelId("a"), ModelId("b"), ModelId("c")
    assert first_in_line({}) is None
    assert first_in_line({a: 30, c: 10, b: 20}) == c
    assert first_in_line({c: 10, b: 10, a: 11}) == b


class Asked(msgspec.Struct, frozen=True):
    """A request: when it comes, for which model, how long that works on it."""

    at_ms: int
    model: ModelId
    takes_ms: int


class Card:
    """A graphics card with room for one of several models, run by the rules alone.

    `swaps`: when each model got the card. What the rules promise is checked at every step.
    """

    SLOTS = 2

    def __init__(self, rules: SwapRules, load_ms: int, asked: list[Asked]) -> None:
        self.rules, self.load_ms = rules, load_ms
        self.now_ms = 0
        self.hot: Hot | None = None
        self.hot_model: ModelId | None = None
        self.loading: ModelId | None = None
        self.queues: dict[ModelId, FairQueue[Asked]] = {}
        self.served: list[tuple[Asked, int]] = []
        self.swaps: list[int] = []
        self.steps = 0
        self.looks: set[int] = set()
        self.events: list[tuple[int, int, str, Asked | None]] = []
        self.numbers = count()
        for each in asked:
            self.post(each.at_ms, "asked", each)

    def post(self, at_ms: int, what: str, request: Asked | None = None) -> None:
        heappush(self.events, (at_ms, next(self.numbers), what, request))

    def run(self) -> None:
        """Until nothing more happens. A rule that never lets anybody on would run for ever."""
        while self.events:
            self.now_ms, _, what, request = heappop(self.events)
            self.steps += 1
            assert self.steps < 20_000, "nothing gets done"
            if what == "asked" and request is not None:
                queue = self.queues.setdefault(request.model, FairQueue(1, 1000))
                ticket = queue.add("k", request, cost_tokens=1, now_ms=self.now_ms)
                assert isinstance(ticket, Ticket)
            elif what == "done" and request is not None and self.hot is not None:
                self.served.append((request, self.now_ms))
                self.set(in_flight=self.hot.in_flight - 1)
            elif what == "loaded":
                self.hot, self.hot_model, self.loading = Hot(self.now_ms), self.loading, None
                self.swaps.append(self.now_ms)
            self.settle()

    def set(self, **changes: int | None) -> None:
        assert self.hot is not None
        self.hot = msgspec.structs.replace(self.hot, **changes)

    def waiting(self) -> dict[ModelId, int]:
        since = {model: queue.oldest_since_ms for model, queue in self.queues.items()}
        return {
            model: since_ms
            for model, since_ms in since.items()
            if since_ms is not None and model != self.hot_model
        }

    def settle(self) -> None:
        """Do what is to be done after a change."""
        cold = first_in_line(self.waiting())
        if self.loading is not None:
            return
        if self.hot is None:
            if cold is not None:
                self.load(cold)
            return
        self.step(self.hot, cold)
        self.admit()

    def load(self, model: ModelId) -> None:
        self.hot, self.hot_model, self.loading = None, None, model
        self.post(self.now_ms + self.load_ms, "loaded")

    def step(self, hot: Hot, cold: ModelId | None) -> None:
        assert self.hot_model is not None
        queue = self.queues.get(self.hot_model)
        self.hot = hot = msgspec.structs.replace(hot, waiting=len(queue) if queue else 0)
        since_ms = self.waiting()[cold] if cold is not None else None
        decision = next_step(hot, since_ms, self.rules, self.now_ms)
        if decision.ask_again_ms is not None:
            assert decision.ask_again_ms > self.now_ms, "asked again for ever"
            if decision.ask_again_ms not in self.looks:
                self.looks.add(decision.ask_again_ms)
                self.post(decision.ask_again_ms, "look")
        if decision.step is Step.SERVE:
            self.set(draining_since_ms=None)
        elif decision.step is Step.DRAIN and hot.draining_since_ms is None:
            self.set(draining_since_ms=self.now_ms)
        elif decision.step is Step.RESUME:
            self.set(draining_since_ms=None, resumed_ms=self.now_ms)
            self.check_wait(hot, since_ms)
            self.step(self.hot, cold)
        elif decision.step is Step.DISPLACE and cold is not None:
            assert hot.in_flight == 0
            shortest = min(self.rules.min_residency_ms, self.rules.longest_service_ms)
            if not self.rules.max_swap_wait_ms:
                shortest = self.rules.min_residency_ms
            assert self.now_ms - hot.loaded_ms >= shortest, "thrash"
            self.check_wait(hot, since_ms)
            self.load(cold)

    def check_wait(self, hot: Hot, cold_since_ms: int | None) -> None:
        """Nobody stands behind a hot model for longer than the promise, however busy that one is.

        The wait behind a turn ends with the turn, also if a drain that failed ended it.
        """
        if not self.rules.max_swap_wait_ms:
            return
        assert cold_since_ms is not None
        turn_ms = max(hot.loaded_ms, hot.resumed_ms or 0, cold_since_ms)
        late_ms = max(0, self.rules.drain_ms - self.rules.max_swap_wait_ms // 2)
        assert self.now_ms - turn_ms <= self.rules.max_swap_wait_ms + late_ms

    def admit(self) -> None:
        while (
            self.hot is not None
            and self.hot_model is not None
            and self.hot.draining_since_ms is None
            and self.hot.in_flight < self.SLOTS
            and (queue := self.queues.get(self.hot_model)) is not None
            and (request := queue.take()) is not None
        ):
            self.set(in_flight=self.hot.in_flight + 1)
            self.post(self.now_ms + request.takes_ms, "done", request)


SOME_RULES = st.builds(
    SwapRules,
    max_swap_wait_ms=st.sampled_from([0, 20, 50, 300, 1000]),
    min_residency_ms=st.sampled_from([0, 40, 500, 2000]),
    drain_ms=st.sampled_from([5, 20, 150, 600]),
)
TRAFFIC = st.lists(
    st.builds(
        Asked,
        at_ms=st.integers(0, 3000),
        model=st.sampled_from([ModelId(name) for name in "abc"]),
        takes_ms=st.one_of(st.integers(0, 60), st.integers(0, 900)),
    ),
    max_size=40,
)


@given(SOME_RULES, st.integers(0, 400), TRAFFIC)
def test_everybody_is_served_and_no_promise_is_broken(
    rules: SwapRules, load_ms: int, asked: list[Asked]
) -> None:
    card = Card(rules, load_ms, asked)
    card.run()
    assert sorted((each.at_ms, each.model, each.takes_ms) for each, _ in card.served) == sorted(
        (each.at_ms, each.model, each.takes_ms) for each in asked
    )


def two_users(rules: SwapRules, *, minutes: int, takes_ms: int) -> Card:
    """Two models on one card, each of which always has something to do."""
    until_ms = minutes * 60_000
    card = Card(
        rules,
        20_000,
        [
            Asked(at_ms, ModelId(model), takes_ms)
            for at_ms in range(0, until_ms, 2 * takes_ms)
            for model in "ab"
        ],
    )
    card.run()
    return card


def test_two_users_of_two_models_both_progress_with_few_swaps() -> None:
    rules = rules_of(Eviction(), drain_seconds=10)
    card = two_users(rules, minutes=10, takes_ms=4000)
    per_minute = len([at_ms for at_ms in card.swaps if at_ms < 600_000]) / 10
    assert 60 / 50 <= per_minute <= 60 / 40  # 20 to 30 s of service and 20 s of loading each
    early = [request.model for request, done_ms in card.served if done_ms < 120_000]
    assert early.count(ModelId("a")) >= 10
    assert early.count(ModelId("b")) >= 10


def test_a_single_request_behind_a_model_that_is_never_idle_waits_for_the_promise_and_a_load() -> (
    None
):
    rules = rules_of(Eviction(), drain_seconds=10)
    asked = [Asked(at_ms, ModelId("busy"), 3000) for at_ms in range(0, 600_000, 1000)]
    card = Card(rules, 20_000, [*asked, Asked(200_000, ModelId("quiet"), 100)])
    card.run()
    done_ms = next(done for request, done in card.served if request.model == "quiet")
    assert done_ms <= 200_000 + 30_000 + 20_000 + 100


def test_streams_that_outlast_every_drain_do_not_stop_both_models_for_good() -> None:
    rules = SwapRules(max_swap_wait_ms=1000, min_residency_ms=0, drain_ms=100)
    long = [Asked(at_ms, ModelId("long"), 5000) for at_ms in range(0, 50_000, 1000)]
    card = Card(rules, 100, [*long, Asked(100, ModelId("quiet"), 100)])
    card.run()
    assert len(card.served) == len(long) + 1
