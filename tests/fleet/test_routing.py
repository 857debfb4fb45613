"""Which neuron serves a request, how many it is given at once, and who hears that one is free."""

from cortexd.config.schema import CatalogueModel, Neuron
from cortexd.fleet.breaker import Verdict
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Serving
from cortexd.fleet.view import NeuronName
from tests.fleet.situations import neuron, on
from tests.support.small_fleet import SmallFleet

A = ModelId("a")
FAILURES_TO_OPEN = 5


def fleet_of(*most: int | None, models: str = "a") -> SmallFleet:
    """A neuron for each number, each with these models loaded; the number is what it is given."""
    names = "nopqr"[: len(most)]
    return SmallFleet(
        *(neuron(name, 48_000, has=[on(model, mb=1_000) for model in models]) for name in names),
        models=tuple(CatalogueModel(model, vram_mb=1_000) for model in models),
        configured=tuple(
            Neuron(name, f"http://{name}:1", max_in_flight=many)
            for name, many in zip(names, most, strict=True)
        ),
    )


def open_the_breaker(fleet: SmallFleet, model: str = "a") -> None:
    for _ in range(FAILURES_TO_OPEN):
        fleet.end(fleet.serve(model), Verdict.FAILED)


def test_who_waits_when_a_breaker_opens_is_served_as_soon_as_it_lets_one_pass() -> None:
    fleet = fleet_of(1)
    for _ in range(FAILURES_TO_OPEN - 1):
        fleet.end(fleet.serve("a"), Verdict.FAILED)
    serving = fleet.serve("a")
    waiting = fleet.wait("a")
    fleet.end(serving, Verdict.FAILED)
    fleet.pass_ms(999)
    assert waiting.answer is None
    fleet.pass_ms(1)
    assert isinstance(waiting.answer, Serving)


def test_who_waits_for_another_model_of_a_neuron_hears_that_its_breaker_closed() -> None:
    """A breaker is the neuron's, whichever model's request closes it."""
    fleet = fleet_of(None, models="ab")
    open_the_breaker(fleet)
    waiting = [fleet.wait(model) for model in "ab"]
    fleet.pass_ms(1_000)
    (probe,) = [each.answer for each in waiting if each.answer is not None]
    assert isinstance(probe, Serving)
    fleet.end(probe, Verdict.WORKED)
    assert all(isinstance(each.answer, Serving) for each in waiting)


def test_who_waits_is_served_by_a_breaker_that_reopens_while_another_neuron_is_full() -> None:
    fleet = fleet_of(None, 1)
    for _ in range(FAILURES_TO_OPEN):
        serving = fleet.dispatcher.elsewhere(fleet.wanted("a"), {NeuronName("o")}, fleet.now_ms)
        assert serving is not None
        fleet.end(serving, Verdict.FAILED)
    assert fleet.serve("a").route.neuron == "o"
    waiting = fleet.wait("a")
    fleet.pass_ms(1_000)
    assert isinstance(waiting.answer, Serving)
    assert waiting.answer.route.neuron == "n"
