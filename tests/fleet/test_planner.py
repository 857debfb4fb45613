"""From a need to a load: what is planned, begun, waited for, and unloaded again."""

from cortexd.config.schema import Catalogue, CatalogueModel
from cortexd.fleet.breaker import Verdict
from cortexd.fleet.orders import Unload, Why
from cortexd.fleet.planner import Need
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause, Serving, Unserved
from cortexd.fleet.view import NeuronName
from tests.fleet.situations import neuron, on
from tests.support.small_fleet import SmallFleet

N, OTHER = NeuronName("n"), NeuronName("o")
A = CatalogueModel("a", vram_mb=6_000)


def idle_after(seconds: float, name: str = "a") -> CatalogueModel:
    return CatalogueModel(name, vram_mb=1_000, idle_unload_seconds=seconds)


def test_a_model_that_comes_later_is_not_idle_for_longer_because_another_one_may_be() -> None:
    fleet = SmallFleet(
        neuron("n", 48_000, has=[on("slow", mb=1_000)]),
        models=(idle_after(3_600, "slow"), idle_after(10)),
    )
    fleet.pass_ms(1_000)
    fleet.show("n", "a")
    fleet.pass_ms(10_000)
    assert fleet.orders() == [Unload(N, ModelId("a"), Why.IDLE)]


def test_a_shorter_idle_time_counts_as_soon_as_it_is_written() -> None:
    fleet = SmallFleet(neuron("n", 48_000, has=[on("a", mb=1_000)]), models=(idle_after(3_600),))
    fleet.pass_ms(60_000)
    fleet.outcomes.catalogue(Catalogue((idle_after(10),)), fleet.now_ms)
    fleet.pass_ms(0)
    assert fleet.orders() == [Unload(N, ModelId("a"), Why.IDLE)]


def test_a_model_that_somebody_waits_for_is_not_idle() -> None:
    """Its neuron's breaker is open, for longer than the model may be idle."""
    fleet = SmallFleet(neuron("n", 48_000, has=[on("a", mb=1_000)]), models=(idle_after(5),))
    for pause_ms in (0, 1_000, 2_000, 4_000):
        fleet.pass_ms(pause_ms)
        for _ in range(5 if pause_ms == 0 else 1):
            fleet.end(fleet.serve("a"), Verdict.FAILED)
    waiting = fleet.wait("a")
    fleet.pass_ms(7_999)
    assert fleet.orders() == []
    fleet.pass_ms(1)
    assert isinstance(waiting.answer, Serving)


def test_a_server_that_cannot_unload_has_nobody_look_for_what_is_idle_on_it() -> None:
    fleet = SmallFleet(neuron("n", has=[], kind="openai"), models=(idle_after(10),))
    fleet.poll("n", models={ModelId("a"): on("a")[0]})
    fleet.pass_ms(60_000)
    assert fleet.orders() == []
    assert fleet.outcomes.wake_at_ms is None


def test_a_load_on_one_neuron_goes_by_the_size_that_another_one_reports() -> None:
    unknown = CatalogueModel("a")
    there = neuron("n", 48_000, has=[on("a", vram_used_mb=20_000)])
    fleet = SmallFleet(there, neuron("o", 8_000), models=(unknown,))
    decision = fleet.parts.planner.decide(Need(ModelId("a"), 0, OTHER), {}, fleet.now_ms)
    assert isinstance(decision, Unserved)
    assert decision.cause is Cause.NOWHERE
    assert fleet.orders() == []
