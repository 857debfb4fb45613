"""What a neuron does not tell: waited for, for a while, and shown to the operator."""

import msgspec
import pytest

from cortexd.config.schema import CatalogueModel
from cortexd.fleet.operator import FleetOperations
from cortexd.fleet.orders import Load
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause, Serving, Unserved
from cortexd.fleet.view import UNTOLD_POLLS_MAX, ModelView, NeuronName
from tests.fleet.situations import neuron, on
from tests.fleet.test_traffic import traffic_of
from tests.support.small_fleet import SmallFleet

MODELS = (CatalogueModel("a", vram_mb=6_000),)
A, N = ModelId("a"), NeuronName("n")
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
