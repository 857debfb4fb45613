"""From a need to a load: what is planned, begun, waited for, and unloaded again."""

from cortexd.config.schema import Catalogue, CatalogueModel, Neuron
from cortexd.fleet.breaker import Verdict
from cortexd.fleet.orders import Unload, Wake, Why
from cortexd.fleet.planner import Held, Need, Ride
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause, Serving, Unserved
from cortexd.fleet.view import NeuronName, Status
from tests.fleet.situations import neuron, on
from tests.support.small_fleet import SmallFleet

N, OTHER = NeuronName("n"), NeuronName("other")
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
    fleet = SmallFleet(there, neuron("other", 8_000), models=(unknown,))
    decision = fleet.parts.planner.decide(Need(ModelId("a"), 0, OTHER), {}, fleet.now_ms)
    assert isinstance(decision, Unserved)
    assert decision.cause is Cause.NOWHERE
    assert fleet.orders() == []


def decided(fleet: SmallFleet, model: str = "a") -> Ride | Held | Unserved:
    return fleet.parts.planner.decide(Need(ModelId(model), 0), {}, fleet.now_ms)


def test_a_model_that_comes_back_is_waited_for() -> None:
    there = neuron("n", 10_000, has=[on("a", status=Status.RECOVERING)])
    assert decided(SmallFleet(there, models=(A,))) == Ride(N)


def test_a_model_that_its_neuron_cannot_serve_is_refused() -> None:
    there = neuron("n", 10_000, has=[on("a", mb=6_000, servable=False)])
    answer = decided(SmallFleet(there, models=(A,)))
    assert isinstance(answer, Unserved)
    assert answer.cause is Cause.UNSERVABLE


def test_a_neuron_that_has_not_told_its_cards_is_waited_for() -> None:
    assert decided(SmallFleet(neuron("n", 10_000, told=False), models=(A,))) == Held()


def test_where_a_load_failed_it_is_not_tried_again_before_its_pause_is_over() -> None:
    fleet = SmallFleet(neuron("n", 10_000), models=(A,))
    fleet.wait("a")
    fleet.fail(fleet.only_load())
    answer = decided(fleet)
    assert isinstance(answer, Unserved)
    assert (answer.cause, answer.retry_in_ms) == (Cause.LOAD_FAILED, 5_000)
    fleet.pass_ms(5_000)
    assert isinstance(decided(fleet), Ride)


def test_a_sleeping_host_with_room_is_woken_when_the_others_have_none() -> None:
    full = neuron("n", 10_000, strangers_mb=9_000)
    asleep = neuron("other", 10_000, healthy=False)
    mac = Neuron("other", "http://other:1", mac="02:00:00:00:00:01")
    fleet = SmallFleet(full, asleep, models=(A,), configured=(mac,))
    assert decided(fleet) == Held(fleet.now_ms + 10_000)
    assert fleet.orders() == [Wake(OTHER)]


def test_a_sleeping_host_is_not_woken_for_what_it_could_not_run() -> None:
    small = neuron("other", 4_000, healthy=False)
    mac = Neuron("other", "http://other:1", mac="02:00:00:00:00:01")
    fleet = SmallFleet(small, models=(A,), configured=(mac,))
    assert isinstance(decided(fleet), Unserved)
    assert isinstance(decided(fleet, "unknown"), Unserved)
    assert fleet.orders() == []


def test_a_sleeping_host_is_woken_for_what_it_had() -> None:
    had = neuron("other", 10_000, has=[on("found")], healthy=False)
    mac = Neuron("other", "http://other:1", mac="02:00:00:00:00:01")
    fleet = SmallFleet(had, models=(A,), configured=(mac,))
    assert decided(fleet, "found") == Held(fleet.now_ms + 10_000)


def test_an_entry_is_what_the_catalogue_says() -> None:
    planner = SmallFleet(neuron("n", 10_000), models=(A,)).parts.planner
    assert planner.entry(ModelId("a")) == A
    assert planner.entry(ModelId("b")) is None


def test_loads_that_are_in_the_way_are_waited_for_and_nobody_drains() -> None:
    models = tuple(CatalogueModel(name, vram_mb=6_000) for name in "abc")
    fleet = SmallFleet(neuron("n", 10_000), models=models)
    fleet.wait("a")
    fleet.only_load()
    assert decided(fleet, "b") == Held()


def test_an_idle_model_that_waits_for_its_first_byte_stays() -> None:
    fleet = SmallFleet(neuron("n", 10_000), models=(idle_after(5),))
    waiting = fleet.wait("a")
    fleet.carry_out(fleet.only_load())
    assert isinstance(waiting.answer, Serving)
    fleet.pass_ms(20_000)
    assert fleet.orders() == []
    fleet.end(waiting.answer)
    fleet.pass_ms(5_000)
    assert fleet.orders() == [Unload(N, ModelId("a"), Why.IDLE)]
