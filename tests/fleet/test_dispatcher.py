"""Who is served, who waits, whose turn is next, and what they are told."""

from cortexd.config.schema import CatalogueModel, Eviction, Neuron
from cortexd.fleet.orders import Load
from cortexd.fleet.serving import Serving
from tests.fleet.situations import neuron
from tests.support.small_fleet import SmallFleet

MODELS = tuple(CatalogueModel(name, vram_mb=6_000) for name in "abc")


def test_a_backlog_that_is_older_does_not_have_every_turn() -> None:
    """Three models on one card: the one that never had a turn is next, though the requests that are
    left of another one are older.
    """
    fleet = SmallFleet(
        neuron("n", 10_000),
        models=MODELS,
        eviction=Eviction(max_swap_wait_seconds=10, drain_seconds=5),
        configured=(Neuron("n", "http://n:1", max_in_flight=1),),
    )
    waiting = [fleet.wait("a") for _ in range(100)]
    fleet.carry_out(fleet.only_load())
    waiting += [fleet.wait("b") for _ in range(100)]
    fleet.pass_ms(1)
    third = fleet.wait("c")
    turns: list[str] = []
    while third.answer is None:
        serving = [each for each in waiting if isinstance(each.answer, Serving)]
        waiting = [each for each in waiting if each.answer is None]
        fleet.pass_ms(1_000)
        for each in serving:
            assert isinstance(each.answer, Serving)
            fleet.dispatcher.first_byte(each.answer)
            fleet.end(each.answer)
        for order in fleet.orders():
            assert isinstance(order, Load)
            turns.append(order.spec.model)
            fleet.carry_out(order)
    assert turns == ["b", "c"]
