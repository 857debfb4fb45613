"""What a neuron does not tell: waited for, for a while, and shown to the operator."""

import msgspec
import pytest

from cortexd.config.schema import CatalogueModel
from cortexd.fleet.operator import FleetOperations
from cortexd.fleet.orders import Load
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause, Serving, Unserved
from cortexd.fleet.view import UNTOLD_POLLS_MAX, ModelView, NeuronName, NeuronView
from tests.fleet.situations import neuron, on
from tests.fleet.test_traffic import traffic_of
from tests.support.small_fleet import SmallFleet

MODELS = (CatalogueModel("a", vram_mb=6_000),)
A, N = ModelId("a"), NeuronName("n")
GARBLED = "/discovery: not JSON"
NO_ADDRESS = "it is loaded, but the neuron does not say at which address"


def unaddressed(polls: int) -> dict[ModelId, ModelView]:
    """The models of a neuron that has not told where its one is reached, in so many polls."""
    return {A: msgspec.structs.replace(on("a")[0], base_url=None, unaddressed=polls)}


def test_whoever_waits_for_a_load_waits_for_the_address_too() -> None:
    """One look-up that failed just after the load is no reason to send all of them away, nor to
    load the model elsewhere.
    """
    fleet = SmallFleet(neuron("n", 10_000), neuron("o", 10_000), models=MODELS)
    waiting = fleet.wait("a")
    order = fleet.only_load()
    fleet.outcomes.load_ended(order, None, fleet.now_ms, took_ms=0)
    fleet.poll("n", models=unaddressed(1))
    fleet.pass_ms(5_000)
    assert (waiting.answer, fleet.orders()) == (None, [])
    fleet.show("n", "a")
    assert isinstance(waiting.answer, Serving)


def test_an_address_that_is_never_told_is_not_waited_for_any_longer() -> None:
    fleet = SmallFleet(neuron("n", 10_000), models=MODELS)
    fleet.poll("n", models=unaddressed(UNTOLD_POLLS_MAX))
    waiting = fleet.wait("a")
    fleet.poll("n", models=unaddressed(UNTOLD_POLLS_MAX + 1))
    assert isinstance(waiting.answer, Unserved)
    assert (waiting.answer.cause, waiting.answer.why) == (Cause.UNSERVABLE, NO_ADDRESS)


def test_a_model_whose_address_is_never_told_is_loaded_where_there_is_room() -> None:
    fleet = SmallFleet(neuron("n", 10_000), neuron("o", 10_000), models=MODELS)
    fleet.poll("n", models=unaddressed(UNTOLD_POLLS_MAX + 1))
    fleet.wait("a")
    (order,) = fleet.orders()
    assert isinstance(order, Load)
    assert order.neuron == "o"


@pytest.mark.parametrize("polls", [1, UNTOLD_POLLS_MAX + 1])
async def test_an_operator_sees_which_model_has_no_address(polls: int) -> None:
    there = msgspec.structs.replace(neuron("n", 10_000), models=unaddressed(polls))
    (line,) = FleetOperations(traffic_of(there, models=MODELS)).models()
    assert (line.status, line.note) == ("loaded", "its neuron does not say at which address it is")


def undiscovered(polls: int) -> NeuronView:
    """A neuron whose discovery could not be read, so many times in a row."""
    return msgspec.structs.replace(
        neuron("n", 10_000, told=False), undiscovered=GARBLED, undiscovered_polls=polls
    )


def test_whoever_waits_for_a_neuron_to_tell_its_cards_does_not_wait_for_ever() -> None:
    """No load is begun meanwhile, so the limit on loads is none on this."""
    fleet = SmallFleet(undiscovered(UNTOLD_POLLS_MAX), models=MODELS)
    waiting = fleet.wait("a")
    errand = fleet.parts.errands.load(A, None, fleet.now_ms, lambda: None)
    fleet.poll("n", undiscovered_polls=UNTOLD_POLLS_MAX + 1)
    fleet.pass_ms(250)
    assert fleet.orders() == []
    for told in (waiting.answer, errand.failed):
        assert isinstance(told, Unserved)
        assert told.cause is Cause.UNHEALTHY
        assert told.why == "the neuron does not tell what cards it has"


def test_a_neuron_that_tells_its_cards_late_takes_loads_from_then_on() -> None:
    fleet = SmallFleet(undiscovered(UNTOLD_POLLS_MAX + 1), models=MODELS)
    assert fleet.told("a").cause is Cause.UNHEALTHY
    known = neuron("n", 10_000)
    fleet.poll(
        "n",
        undiscovered=None,
        undiscovered_polls=0,
        discovery=known.discovery,
        devices=known.devices,
    )
    fleet.wait("a")
    assert fleet.only_load().neuron == "n"


async def test_an_operator_sees_why_nothing_is_loaded_on_a_neuron() -> None:
    operations = FleetOperations(traffic_of(undiscovered(1), models=MODELS))
    (model,), (line,) = operations.models(), operations.neurons()
    assert model.note == "may run on n, once it tells what cards it has"
    assert line.note == f"nothing can be loaded: {GARBLED}"
    other = FleetOperations(traffic_of(undiscovered(1), neuron("o", 10_000), models=MODELS))
    assert other.models()[0].note == "can run on o"
