"""What an operator asked for and waits for: a model to be loaded, or to be gone."""

from cortexd.config.schema import CatalogueModel, Neuron
from cortexd.fleet.errands import Errand
from cortexd.fleet.orders import Unload, Why
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Serving
from cortexd.fleet.view import NeuronName
from tests.fleet.situations import neuron, on
from tests.support.small_fleet import SmallFleet

A, B = (CatalogueModel(name, vram_mb=6_000) for name in "ab")
N, OTHER = NeuronName("n"), NeuronName("o")
UNLOAD_A = Unload(N, ModelId("a"), Why.OPERATOR)


class Told:
    """A fleet with an operator, who counts how often an errand was over."""

    def __init__(self, fleet: SmallFleet) -> None:
        self.fleet = fleet
        self.times = 0

    def load(self, model: str, name: NeuronName | None = None) -> Errand:
        errand = self.fleet.parts.errands.load(ModelId(model), name, self.fleet.now_ms, self._over)
        self.fleet.pass_ms(0)
        return errand

    def unload(self, model: str, name: NeuronName | None = None) -> Errand:
        errand = self.fleet.parts.errands.unload(
            ModelId(model), name, self.fleet.now_ms, self._over
        )
        self.fleet.pass_ms(0)
        return errand

    def _over(self) -> None:
        self.times += 1


def with_a() -> Told:
    return Told(SmallFleet(neuron("n", 10_000, has=[on("a", mb=6_000)]), models=(A, B)))


def test_a_server_of_another_kind_is_never_told_to_unload() -> None:
    fleet = SmallFleet(neuron("n", has=[], kind="openai"), models=(A,))
    fleet.poll("n", models={ModelId("a"): on("a")[0]})
    errand = Told(fleet).unload("a")
    assert errand.failed == "n cannot unload models"
    assert fleet.orders() == []
    assert isinstance(fleet.ask("a"), Serving)


def test_a_neuron_that_does_not_answer_is_told_to_unload_when_it_does_again() -> None:
    told = with_a()
    told.fleet.poll("n", healthy=False)
    errand = told.unload("a")
    told.fleet.pass_ms(59_000)
    assert told.fleet.orders() == []
    assert not errand.is_over
    told.fleet.poll("n", healthy=True)
    told.fleet.pass_ms(250)
    assert told.fleet.orders() == [UNLOAD_A]


def test_an_unload_from_a_neuron_that_stays_away_is_given_up_with_that_reason() -> None:
    told = with_a()
    told.fleet.poll("n", healthy=False)
    errand = told.unload("a")
    told.fleet.pass_ms(60_000)
    assert errand.failed == "its neuron does not answer, for 60 s"


def test_what_is_listed_while_it_still_loads_is_not_unloaded_before_its_load_ends() -> None:
    fleet = SmallFleet(neuron("n", 10_000), models=(A,))
    fleet.leave(fleet.wait("a"))
    fleet.only_load()
    fleet.show("n", "a")
    told = Told(fleet)
    told.unload("a")
    fleet.pass_ms(250)
    assert fleet.orders() == []


def test_what_was_loaded_for_some_serves_one_of_them_before_an_operator_has_it_gone() -> None:
    """Else it would be loaded for them again at once."""
    fleet = SmallFleet(
        neuron("n", 10_000), models=(A,), configured=(Neuron("n", "http://n:1", max_in_flight=1),)
    )
    waiting = [fleet.wait("a") for _ in range(2)]
    fleet.carry_out(fleet.only_load())
    told = Told(fleet)
    errand = told.unload("a")
    assert isinstance(waiting[0].answer, Serving)
    fleet.end(waiting[0].answer)
    assert isinstance(waiting[1].answer, Serving), "it is not shut before it was of use"
    fleet.dispatcher.first_byte(waiting[1].answer)
    fleet.pass_ms(250)
    late = fleet.wait("a")
    fleet.end(waiting[1].answer)
    fleet.pass_ms(250)
    assert fleet.orders() == [UNLOAD_A]
    assert (errand.is_over, late.answer) == (False, None)
