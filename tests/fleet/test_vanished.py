"""Models that a list lacks for a moment, while requests for them are in flight."""

import pytest

from cortexd.config.schema import CatalogueModel, Eviction, Neuron
from cortexd.fleet.orders import Unload, Why
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Serving
from cortexd.fleet.view import NeuronName, Status
from tests.fleet.situations import neuron, on
from tests.support.small_fleet import SmallFleet

MODELS = tuple(CatalogueModel(name, vram_mb=6_000) for name in "ab")
N, A = NeuronName("n"), ModelId("a")
SWAPS_AT_ONCE = Eviction(min_residency_seconds=0, max_swap_wait_seconds=2, drain_seconds=60)


def with_a(*, most: int | None = None) -> SmallFleet:
    limited = Neuron("n", "http://n:1", max_in_flight=most)
    there = neuron("n", 10_000, has=[on("a", mb=6_000)])
    return SmallFleet(there, models=MODELS, eviction=SWAPS_AT_ONCE, configured=(limited,))


def unlist(fleet: SmallFleet, how: str) -> None:
    """The picture lacks the model until the next poll."""
    if how == "a 404":
        fleet.board.withdraw(N, A)
    elif how == "a poll without it":
        fleet.hide("n", "a")
    else:
        fleet.poll("n", models={A: on("a", status=Status.RELOADING)[0]})


@pytest.mark.parametrize("how", ["a 404", "a poll without it", "a reload"])
def test_a_model_with_a_stream_in_flight_makes_no_room_although_it_was_missed(how: str) -> None:
    fleet = with_a()
    stream = fleet.serve("a")
    unlist(fleet, how)
    fleet.show("n", "a")
    fleet.wait("b")
    fleet.pass_ms(10_000)
    assert fleet.orders() == []
    fleet.end(stream)
    fleet.pass_ms(250)
    assert fleet.only_load().evict == ("a",)


def test_a_model_that_was_missed_gets_no_more_requests_at_once_than_it_may() -> None:
    fleet = with_a(most=1)
    stream = fleet.serve("a")
    unlist(fleet, "a poll without it")
    fleet.show("n", "a")
    waiting = fleet.wait("a")
    assert waiting.answer is None
    fleet.end(stream)
    assert isinstance(waiting.answer, Serving)


def test_an_unload_waits_for_the_requests_of_a_model_that_was_missed() -> None:
    fleet = with_a()
    stream = fleet.serve("a")
    unlist(fleet, "a poll without it")
    fleet.show("n", "a")
    fleet.parts.errands.unload(A, None, fleet.now_ms, lambda: None)
    fleet.pass_ms(5_000)
    assert fleet.orders() == []
    fleet.end(stream)
    assert fleet.orders() == [Unload(N, A, Why.OPERATOR)]
