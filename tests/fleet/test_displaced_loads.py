"""Loads on an engine that makes room by itself, and may have made it before a poll could tell."""

from cortexd.config.schema import CatalogueModel
from cortexd.fleet.reports import ModelId
from cortexd.fleet.view import NeuronName, Status
from tests.fleet.situations import neuron, on
from tests.support.small_fleet import SmallFleet

OAK, BEAST = ModelId("org/oak"), NeuronName("beast")
MODELS = (CatalogueModel(OAK, vram_mb=16_000),)


def test_a_model_that_its_engine_displaced_before_a_poll_is_loaded_again_at_once() -> None:
    """A router with room for one model: taken for a failed load, its clients would wait for 5 s."""
    here = [on(OAK, status=Status.UNLOADED)]
    fleet = SmallFleet(neuron("beast", 24_000, has=here, kind="llama-router"), models=MODELS)
    fleet.ask(OAK)
    done = fleet.only_load()
    fleet.outcomes.load_ended(done, None, fleet.now_ms, took_ms=100)
    fleet.board.publish(fleet.board.view.neurons[BEAST])
    assert fleet.parts.loads.pause_ms(OAK, BEAST, fleet.now_ms) == 0
    assert fleet.only_load().spec.model == OAK
