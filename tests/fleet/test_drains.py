"""Who makes room for whom, in good time, and goes on when that is wanted no more."""

from cortexd.config.schema import CatalogueModel, Eviction, Neuron
from cortexd.fleet.orders import Load, Unload
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause, Serving, Unserved
from cortexd.fleet.view import NeuronName
from tests.fleet.situations import neuron, on
from tests.support.small_fleet import SmallFleet

A, B = (CatalogueModel(name, vram_mb=6_000) for name in "ab")
N = NeuronName("n")
RULES = Eviction(min_residency_seconds=60, max_swap_wait_seconds=30, drain_seconds=15)


def with_a_hot_model(most: int | None = None) -> tuple[SmallFleet, Serving]:
    """A model on the only card, with a request that has its first byte; another model is cold."""
    limited = Neuron("n", "http://n:1", max_in_flight=most)
    fleet = SmallFleet(neuron("n", 10_000), models=(A, B), eviction=RULES, configured=(limited,))
    waiting = fleet.wait("a")
    order = fleet.orders()[0]
    assert isinstance(order, Load)
    fleet.carry_out(order)
    assert isinstance(waiting.answer, Serving)
    fleet.dispatcher.first_byte(waiting.answer)
    return fleet, waiting.answer


def test_when_the_cold_model_is_wanted_no_more_the_hot_one_serves_at_once() -> None:
    """Not only with the next poll: nothing else would have it look."""
    fleet, _ = with_a_hot_model()
    cold = fleet.wait("b")
    fleet.pass_ms(15_000)
    hot = fleet.wait("a")
    fleet.leave(cold)
    assert isinstance(hot.answer, Serving)


def test_a_drain_that_takes_too_long_is_told_and_the_hot_model_serves_at_once() -> None:
    fleet, _ = with_a_hot_model()
    cold = fleet.wait("b")
    fleet.pass_ms(15_000)
    hot = fleet.wait("a")
    fleet.pass_ms(15_000)
    assert isinstance(cold.answer, Unserved)
    assert cold.answer.cause is Cause.IN_USE
    assert cold.answer.retry_in_ms == 15_000
    assert isinstance(hot.answer, Serving)


def test_an_unload_that_is_given_up_lets_those_who_wait_go_on_at_once() -> None:
    fleet, _ = with_a_hot_model()
    fleet.parts.errands.unload(ModelId("a"), N, fleet.now_ms, lambda: None)
    fleet.pass_ms(0)
    hot = fleet.wait("a")
    fleet.pass_ms(60_000)
    assert isinstance(hot.answer, Serving)


def test_an_operators_load_that_is_dropped_makes_room_no_more() -> None:
    fleet, _ = with_a_hot_model()
    errand = fleet.parts.errands.load(ModelId("b"), N, fleet.now_ms, lambda: None)
    fleet.pass_ms(15_000)
    hot = fleet.wait("a")
    fleet.parts.errands.drop(errand)
    fleet.pass_ms(0)
    assert isinstance(hot.answer, Serving)


def test_an_idle_model_whose_time_is_up_admits_no_more_while_others_in_the_way_drain() -> None:
    """It would have requests again by the time that the others have none."""
    small = [CatalogueModel(name, vram_mb=4_000) for name in "xy"]
    there = neuron("n", 10_000, has=[on("x", mb=4_000), on("y", mb=4_000)])
    fleet = SmallFleet(there, models=(A, B, *small), eviction=RULES)
    serving = fleet.serve("x")
    large = CatalogueModel("l", vram_mb=9_000)
    fleet.outcomes.catalogue(fleet.parts.planner.catalogue.__class__((*small, large)), fleet.now_ms)
    fleet.wait("l")
    fleet.pass_ms(15_000)
    fleet.wait("y")
    fleet.end(serving)
    assert isinstance(fleet.orders()[0], Load)


def test_a_neuron_is_polled_when_only_its_last_report_keeps_a_drain_from_ending() -> None:
    """What it reports is our own request, which has ended; the poll may be longer away than the
    drain is allowed to take.
    """
    fleet, serving = with_a_hot_model()
    doubts: list[str] = []
    fleet.board.watch(N, lambda: doubts.append("n"))
    fleet.poll("n", models={ModelId("a"): on("a", in_flight=1)[0]})
    cold = fleet.wait("b")
    fleet.pass_ms(15_000)
    assert doubts == []
    fleet.end(serving)
    assert doubts == ["n"]
    fleet.poll("n", models={ModelId("a"): on("a")[0]})
    fleet.pass_ms(250)
    assert fleet.only_load().evict == ("a",)
    assert cold.answer is None


def test_a_drain_for_who_waits_longest_is_not_ended_for_one_that_came_later() -> None:
    """Two operators ask for the same model: their errands must not undo each other's steps."""
    fleet, _ = with_a_hot_model()
    errands = fleet.parts.errands
    errands.load(ModelId("b"), None, fleet.now_ms, lambda: None)
    fleet.pass_ms(10_000)
    errands.load(ModelId("b"), None, fleet.now_ms, lambda: None)
    fleet.pass_ms(5_000)
    stay = fleet.parts.residents.get(N, ModelId("a"))
    assert stay is not None
    assert stay.draining_for == "b"
    fleet.outcomes.tick(fleet.now_ms)
    assert stay.draining_for == "b"
    assert fleet.outcomes.wake_at_ms == fleet.now_ms + 15_000


def test_whoever_leaves_already_is_not_asked_to_make_room() -> None:
    fleet, serving = with_a_hot_model()
    fleet.end(serving)
    fleet.parts.errands.unload(ModelId("a"), N, fleet.now_ms, lambda: None)
    fleet.pass_ms(0)
    (order,) = fleet.orders()
    assert isinstance(order, Unload)
    fleet.wait("b")
    fleet.pass_ms(30_000)
    assert fleet.orders() == []
    fleet.carry_out(order)
    fleet.poll("n")
    fleet.pass_ms(250)
    assert fleet.only_load().evict == ()


def test_an_operators_load_begins_as_soon_as_the_last_request_in_its_way_has_ended() -> None:
    fleet, serving = with_a_hot_model()
    fleet.parts.errands.load(ModelId("b"), N, fleet.now_ms, lambda: None)
    fleet.pass_ms(15_000)
    assert fleet.orders() == []
    fleet.end(serving)
    assert fleet.only_load().evict == ("a",)


def test_whoever_is_in_the_way_no_more_serves_on() -> None:
    """Its neuron does not answer any more, so that another one has to make room."""
    models = tuple(CatalogueModel(name, vram_mb=6_000) for name in "abc")
    fleet = SmallFleet(
        neuron("n", 10_000, has=[on("a", mb=6_000)]),
        neuron("other", 10_000, has=[on("c", mb=6_000)]),
        models=models,
        eviction=RULES,
    )
    for model in "ac":
        fleet.serve(model)
    fleet.wait("b")
    fleet.pass_ms(15_000)
    draining = [stay.residency for stay in fleet.parts.residents if stay.draining_for == "b"]
    ((first, _),) = draining
    fleet.poll(first, healthy=False)
    fleet.pass_ms(250)
    draining = [stay.residency for stay in fleet.parts.residents if stay.draining_for == "b"]
    ((second, _),) = draining
    assert second != first


def test_a_model_that_is_wanted_by_less_than_a_turn_serves() -> None:
    fleet, _ = with_a_hot_model()
    fleet.wait("b")
    fleet.pass_ms(14_999)
    stay = fleet.parts.residents.get(N, ModelId("a"))
    assert stay is not None
    assert stay.admits
