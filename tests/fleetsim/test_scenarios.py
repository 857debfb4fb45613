"""The promises of cold starts, evictions and turns, one at a time, each by its name."""

import pytest

from cortexd.config.schema import CatalogueModel, Eviction, Neuron
from cortexd.config.schema import Waiting as WaitingSettings
from cortexd.fleet.lines import Waiting
from cortexd.fleet.orders import Load, Unload, Wake, Why
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause, Serving, Unserved
from cortexd.fleet.view import NeuronName
from tests.fleet.situations import neuron, on
from tests.support.small_fleet import SmallFleet

MAC = "02:00:00:00:00:01"
A, B, C = (CatalogueModel(name, vram_mb=6_000) for name in "abc")
N = NeuronName("n")


def one_card(
    *models: CatalogueModel,
    eviction: Eviction | None = None,
    waiting: WaitingSettings | None = None,
    configured: Neuron | None = None,
) -> SmallFleet:
    """One neuron with a card that holds one model of 6,000 MB at a time."""
    return SmallFleet(
        neuron("n", 10_000),
        models=models or (A, B, C),
        eviction=eviction,
        waiting=waiting,
        configured=() if configured is None else (configured,),
    )


def load(fleet: SmallFleet, model: str) -> Serving:
    """A model is loaded for somebody, who is being served then."""
    waiting = fleet.wait(model)
    fleet.carry_out(fleet.only_load())
    assert isinstance(waiting.answer, Serving)
    fleet.dispatcher.first_byte(waiting.answer)
    return waiting.answer


def test_five_hundred_first_requests_make_one_load_and_all_are_served() -> None:
    fleet = one_card()
    waiting = [fleet.wait("a", f"key{number % 7}") for number in range(500)]
    order = fleet.only_load()
    fleet.carry_out(order, took_ms=20_000)
    assert all(isinstance(each.answer, Serving) for each in waiting)
    assert fleet.notified == 500
    assert fleet.orders() == []


def test_the_load_goes_on_when_the_client_that_caused_it_hangs_up() -> None:
    fleet = one_card()
    first, second = fleet.wait("a"), fleet.wait("a")
    order = fleet.only_load()
    fleet.leave(first)
    fleet.carry_out(order)
    assert first.answer is None
    assert isinstance(second.answer, Serving)


def test_a_load_that_nobody_waits_for_any_more_is_finished_and_serves_the_next() -> None:
    fleet = one_card()
    fleet.leave(fleet.wait("a"))
    fleet.carry_out(fleet.only_load())
    assert isinstance(fleet.ask("a"), Serving)


def test_a_load_that_fails_is_told_to_all_and_not_tried_again_at_once() -> None:
    fleet = one_card()
    waiting = [fleet.wait("a") for _ in range(3)]
    fleet.fail(fleet.only_load(), "no such file")
    for each in waiting:
        assert isinstance(each.answer, Unserved)
        assert each.answer.cause is Cause.LOAD_FAILED
        assert each.answer.retry_in_ms == 5_000
    assert fleet.told("a").cause is Cause.LOAD_FAILED
    assert fleet.orders() == []
    fleet.pass_ms(5_000)
    fleet.wait("a")
    assert fleet.only_load().spec.model == "a"


def test_two_models_that_share_a_card_and_never_rest_both_go_on() -> None:
    """Two users who take turns at two models: each has its time, and swaps stay few."""
    rules = Eviction(min_residency_seconds=60, max_swap_wait_seconds=20, drain_seconds=5)
    fleet = one_card(A, B, eviction=rules)
    served = dict.fromkeys("ab", 0)
    serving = {"a": load(fleet, "a")}
    waiting: dict[str, Waiting] = {"b": fleet.wait("b")}
    swaps = 0
    for _ in range(600):  # a second each
        fleet.pass_ms(1_000)
        for model, each in list(serving.items()):
            fleet.end(each)
            del serving[model]
        for order in fleet.orders():
            assert isinstance(order, Load)
            swaps += 1
            fleet.carry_out(order, took_ms=2_000)
        for model in "ab":
            held = waiting.get(model)
            if held is not None and isinstance(held.answer, Serving):
                serving[model] = held.answer
                del waiting[model]
                served[model] += 1
            elif held is None and model not in serving:
                asked = fleet.ask(model)
                if isinstance(asked, Serving):
                    serving[model] = asked
                    served[model] += 1
                elif isinstance(asked, Waiting):
                    waiting[model] = asked
    assert min(served.values()) > 150
    assert 10 <= swaps <= 600 / 15


def test_a_key_with_one_request_waits_for_one_turn_of_a_key_with_two_hundred() -> None:
    fleet = one_card(
        configured=Neuron("n", "http://n:1", max_in_flight=1),
        waiting=WaitingSettings(quantum_tokens=100),
    )
    busy = load(fleet, "a")
    many = [fleet.wait("a", "many", cost=100) for _ in range(200)]
    one = fleet.wait("a", "one", cost=100)
    turns = 0
    while one.answer is None:
        fleet.end(busy)
        turns += 1
        answers = [each.answer for each in (*many, one)]
        (busy,) = [
            each for each in answers if isinstance(each, Serving) and each.resident.in_flight
        ][turns - 1 :]
    assert turns == 2


def test_a_cold_model_behind_a_hot_one_has_its_turn_within_the_swap_wait() -> None:
    fleet = one_card(eviction=Eviction(max_swap_wait_seconds=30, drain_seconds=15))
    hot = load(fleet, "a")
    cold = fleet.wait("b")
    fleet.pass_ms(14_999)
    second = fleet.serve("a")
    fleet.pass_ms(1)
    late = fleet.wait("a")
    fleet.end(hot)
    assert fleet.orders() == []
    fleet.end(second)
    order = fleet.only_load()
    assert (order.spec.model, order.evict) == ("b", ("a",))
    fleet.carry_out(order)
    assert isinstance(cold.answer, Serving)
    assert late.answer is None, "it waits for its own next turn"


def test_a_model_with_a_backlog_does_not_have_every_turn() -> None:
    """Three models on one card: the backlogs of two are older than the one request for the third,
    which has its turn all the same.
    """
    rules = Eviction(max_swap_wait_seconds=10, drain_seconds=5)
    limited = Neuron("n", "http://n:1", max_in_flight=1)
    fleet = one_card(eviction=rules, configured=limited)
    serving = [load(fleet, "a")]
    waiting = [fleet.wait(model) for _ in range(100) for model in "ab"]
    fleet.pass_ms(1)
    third = fleet.wait("c")
    turns: list[str] = []
    while third.answer is None:
        fleet.pass_ms(1_000)
        fleet.dispatcher.first_byte(serving[0])
        fleet.end(serving.pop())
        for order in fleet.orders():
            assert isinstance(order, Load)
            turns.append(order.spec.model)
            fleet.carry_out(order)
        serving += [each.answer for each in waiting if isinstance(each.answer, Serving)]
        waiting = [each for each in waiting if each.answer is None]
    assert turns == ["b", "c"]


def test_when_requests_in_flight_do_not_end_who_waits_is_told_and_the_hot_model_goes_on() -> None:
    fleet = one_card(eviction=Eviction(max_swap_wait_seconds=30, drain_seconds=15))
    load(fleet, "a")
    cold = fleet.wait("b")
    fleet.pass_ms(15_000)
    hot = fleet.wait("a")
    fleet.pass_ms(15_000)
    assert isinstance(cold.answer, Unserved)
    assert cold.answer.cause is Cause.IN_USE
    assert isinstance(hot.answer, Serving), "at once, not with the next poll"
    assert isinstance(fleet.ask("a"), Serving)


def test_when_the_cold_model_is_wanted_no_more_the_hot_one_goes_on_at_once() -> None:
    fleet = one_card(eviction=Eviction(max_swap_wait_seconds=30, drain_seconds=15))
    load(fleet, "a")
    cold = fleet.wait("b")
    fleet.pass_ms(15_000)
    hot = fleet.wait("a")
    fleet.leave(cold)
    assert isinstance(hot.answer, Serving)


def test_a_host_that_sleeps_is_woken_and_then_loads() -> None:
    asleep = neuron("n", 10_000, healthy=False)
    fleet = SmallFleet(asleep, models=(A,), configured=(Neuron("n", "http://n:1", mac=MAC),))
    waiting = fleet.wait("a")
    assert fleet.orders() == [Wake(N)]
    fleet.pass_ms(9_999)
    assert fleet.orders() == []
    fleet.pass_ms(1)
    assert fleet.orders() == [Wake(N)], "a packet may be lost"
    fleet.poll("n", healthy=True)
    fleet.pass_ms(250)
    fleet.carry_out(fleet.only_load())
    assert isinstance(waiting.answer, Serving)


def test_when_a_neuron_dies_in_mid_load_all_are_told_and_another_one_loads_it_next() -> None:
    fleet = SmallFleet(neuron("n", 10_000), neuron("o", 8_000), models=(A,))
    waiting = fleet.wait("a")
    order = fleet.only_load()
    assert order.neuron == "n"
    fleet.poll("n", healthy=False)
    assert isinstance(waiting.answer, Unserved)
    assert waiting.answer.cause is Cause.LOAD_FAILED
    fleet.wait("a")
    assert fleet.only_load().neuron == "o"


def test_a_neuron_that_restarts_empty_loads_again_for_who_comes_next() -> None:
    fleet = one_card()
    load(fleet, "a")
    fleet.hide("n", "a")
    fleet.wait("a")
    assert fleet.only_load().spec.model == "a"


def test_a_model_is_unloaded_when_nobody_used_it_for_its_idle_time() -> None:
    idle = CatalogueModel("a", vram_mb=6_000, idle_unload_seconds=60)
    fleet = one_card(idle)
    fleet.end(load(fleet, "a"))
    fleet.pass_ms(59_999)
    assert fleet.orders() == []
    fleet.pass_ms(1)
    (order,) = fleet.orders()
    assert order == Unload(N, ModelId("a"), Why.IDLE)
    fleet.carry_out(order)
    fleet.pass_ms(1_000)
    assert fleet.outcomes.wake_at_ms is None


def test_a_pinned_model_is_loaded_where_it_is_pinned_and_nowhere_else() -> None:
    pinned = CatalogueModel("a", vram_mb=6_000, pinned_on=("o",))
    fleet = SmallFleet(neuron("n", 48_000), neuron("o", 8_000), models=(pinned,))
    fleet.wait("a")
    assert fleet.only_load().neuron == "o"
    fleet.parts.planner.pins[ModelId("a")] = frozenset((NeuronName("elsewhere"),))
    fleet.outcomes.changed(fleet.now_ms)
    fleet.poll("o", healthy=False)
    assert fleet.told("a").cause is Cause.NOWHERE


def test_where_no_set_makes_room_clients_are_told_and_nothing_is_displaced() -> None:
    """Other programs hold the memory: to unload the idle model would not help."""
    small = CatalogueModel("s", vram_mb=1_000)
    busy = neuron("n", 10_000, has=[on("s", mb=1_000)], strangers_mb=5_000)
    fleet = SmallFleet(busy, models=(A, small), eviction=Eviction(min_residency_seconds=0))
    assert fleet.told("a").cause is Cause.NO_ROOM
    assert fleet.orders() == []


def test_a_model_is_not_displaced_by_one_of_a_lower_class() -> None:
    chosen = CatalogueModel("a", vram_mb=6_000, residency_priority=200)
    fleet = one_card(chosen, B)
    fleet.end(load(fleet, "a"))
    fleet.pass_ms(3_600_000)
    answer = fleet.told("b")
    assert answer.cause is Cause.NO_ROOM
    assert "higher residency class" in answer.why


def test_an_idle_model_stays_for_its_residency_unless_a_turn_is_shorter() -> None:
    fleet = one_card(eviction=Eviction(min_residency_seconds=60, max_swap_wait_seconds=0))
    fleet.end(load(fleet, "a"))
    fleet.wait("b")
    fleet.pass_ms(59_999)
    assert fleet.orders() == []
    fleet.pass_ms(1)
    assert fleet.only_load().evict == ("a",)


@pytest.mark.parametrize(("strategy", "evicted"), [("lru", "a"), ("priority", "b")])
def test_who_leaves_is_chosen_by_the_strategy(strategy: str, evicted: str) -> None:
    """Of two idle models one was used longer ago, the other one is of a lower class."""
    old = CatalogueModel("a", vram_mb=4_000, residency_priority=100)
    low = CatalogueModel("b", vram_mb=4_000, residency_priority=50)
    rules = Eviction(strategy=strategy, min_residency_seconds=0)  # type: ignore[arg-type]
    fleet = one_card(old, low, C, eviction=rules)
    for model in "ab":
        fleet.end(load(fleet, model))
        fleet.pass_ms(1_000)
    fleet.wait("c")
    assert fleet.only_load().evict == (evicted,)


def test_an_operators_load_ends_when_the_model_can_serve() -> None:
    fleet = one_card()
    over: list[str] = []
    errand = fleet.parts.errands.load(ModelId("a"), N, fleet.now_ms, lambda: over.append("a"))
    fleet.pass_ms(0)
    fleet.carry_out(fleet.only_load())
    fleet.pass_ms(1_000)
    assert (over, errand.failed) == (["a"], None)


def test_an_operators_unload_lets_requests_end_and_admits_no_more() -> None:
    fleet = one_card()
    serving = load(fleet, "a")
    errand = fleet.parts.errands.unload(ModelId("a"), None, fleet.now_ms, lambda: None)
    fleet.pass_ms(1_000)
    assert fleet.orders() == []
    fleet.wait("a")
    fleet.end(serving)
    fleet.pass_ms(250)
    (order,) = fleet.orders()
    assert order == Unload(N, ModelId("a"), Why.OPERATOR)
    fleet.carry_out(order)
    fleet.pass_ms(250)
    assert errand.is_over
    assert errand.failed is None
