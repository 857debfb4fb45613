"""What polls show and orders lead to."""

from cortexd.config.schema import CatalogueModel, Eviction
from cortexd.fleet.loads import SHOWN_WITHIN_MS
from cortexd.fleet.observer import Nobody
from cortexd.fleet.orders import Failure, Why
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause, Serving, Unserved
from cortexd.fleet.view import NeuronName
from tests.fleet.situations import neuron, on
from tests.support.small_fleet import SmallFleet

MODELS = tuple(CatalogueModel(name, vram_mb=6_000) for name in "ab")
N, A = NeuronName("n"), ModelId("a")
NO_RESIDENCY = Eviction(min_residency_seconds=0, defrag_after_cycles=2)


class Listener(Nobody):
    """Writes down what is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def load_ended(self, model: ModelId, neuron: NeuronName, took_ms: int) -> None:
        self.heard.append(f"{model} on {neuron} after {took_ms}")

    def unloaded(self, model: ModelId, neuron: NeuronName, why: Why, cycles: int) -> None:
        self.heard.append(f"{model} left: {why.value}, {cycles}")

    def unload_failed(self, model: ModelId, neuron: NeuronName, why: Why, failure: Failure) -> None:
        self.heard.append(f"{model} did not leave: {failure.reason}")

    def restart_advised(self, neuron: NeuronName, cycles: int) -> None:
        self.heard.append(f"restart {neuron} after {cycles}")

    def restarted(self, neuron: NeuronName) -> None:
        self.heard.append(f"{neuron} restarted")


def listened() -> tuple[SmallFleet, Listener]:
    listener = Listener()
    there = neuron("n", 10_000, has=[on("b", mb=6_000)])
    fleet = SmallFleet(there, models=MODELS, eviction=NO_RESIDENCY, observer=listener)
    return fleet, listener


def test_a_load_ends_when_its_neuron_lists_the_model() -> None:
    fleet, listener = listened()
    waiting = fleet.wait("a")
    fleet.carry_out(fleet.only_load(), took_ms=4_000)
    assert listener.heard == ["b left: makes_room, 1", "a on n after 4000"]
    assert isinstance(waiting.answer, Serving)


def test_a_model_that_does_not_appear_in_time_was_not_loaded() -> None:
    fleet, _ = listened()
    waiting = fleet.wait("a")
    order = fleet.only_load()
    fleet.outcomes.load_ended(order, None, fleet.now_ms, took_ms=0)
    fleet.pass_ms(SHOWN_WITHIN_MS - 1)
    assert waiting.answer is None
    fleet.pass_ms(1)
    assert isinstance(waiting.answer, Unserved)
    assert waiting.answer.cause is Cause.LOAD_FAILED


def test_who_was_to_leave_for_a_load_that_failed_serves_on() -> None:
    fleet, listener = listened()
    fleet.wait("a")
    order = fleet.only_load()
    fleet.wait("b")
    stay = fleet.parts.residents.get(N, ModelId("b"))
    assert stay is not None
    assert stay.leaving
    fleet.outcomes.unload_ended(N, ModelId("b"), Why.MAKES_ROOM, Failure("busy"), fleet.now_ms)
    assert not stay.leaving
    fleet.fail(order, "no room was made")
    assert listener.heard == ["b did not leave: busy"]
    assert isinstance(fleet.ask("b"), Serving)


def test_a_load_may_fail_after_who_made_room_for_it_has_left() -> None:
    fleet, _ = listened()
    fleet.wait("a")
    order = fleet.only_load()
    fleet.outcomes.unload_ended(N, ModelId("b"), Why.MAKES_ROOM, None, fleet.now_ms)
    fleet.fail(order)
    assert fleet.told("a").cause is Cause.LOAD_FAILED


def test_an_unload_that_fails_for_a_model_that_is_gone_meanwhile_changes_nothing() -> None:
    fleet, listener = listened()
    fleet.hide("n", "b")
    fleet.outcomes.unload_ended(N, ModelId("b"), Why.IDLE, Failure("no answer"), fleet.now_ms)
    assert listener.heard == ["b did not leave: no answer"]


def test_a_neuron_that_has_unloaded_often_should_be_restarted_and_then_counts_anew() -> None:
    fleet, listener = listened()
    for model in "bb":
        fleet.show("n", model)
        fleet.outcomes.unload_ended(N, ModelId(model), Why.IDLE, None, fleet.now_ms)
    assert listener.heard[-1] == "restart n after 2"
    for uptime in (500.0, 600.0, 3.0):
        fleet.poll("n", uptime_seconds=uptime)
    assert listener.heard[-1] == "n restarted"
    assert fleet.parts.cycles.count(N) == 0


def test_a_late_answer_to_a_load_that_failed_with_its_neuron_has_the_neuron_polled() -> None:
    fleet, _ = listened()
    doubts: list[str] = []
    fleet.board.watch(N, lambda: doubts.append("n"))
    fleet.wait("a")
    order = fleet.only_load()
    fleet.poll("n", healthy=False)
    fleet.outcomes.load_ended(order, None, fleet.now_ms, took_ms=0)
    assert doubts == ["n"]
