"""Who is asked what about models that are loaded nowhere."""

from __future__ import annotations

import msgspec

from cortexd.config.schema import Catalogue, CatalogueModel
from cortexd.fleet.curiosity import AGAIN_MS, Curiosity
from cortexd.fleet.feasibility import NO_PINS
from cortexd.fleet.reports import ModelId
from cortexd.fleet.view import FleetView, NeuronName
from tests.fleet.situations import NOW_MS, fleet, neuron, on

OAK = ModelId("oak")
A, B = NeuronName("a"), NeuronName("b")
CATALOGUE = Catalogue((CatalogueModel("oak"), CatalogueModel("fern", capabilities=("text",))))


def asked(
    curiosity: Curiosity,
    view: FleetView,
    catalogue: Catalogue = CATALOGUE,
    *,
    now_ms: int = NOW_MS,
) -> list[tuple[str, str]]:
    return [(*each,) for each in curiosity.questions(view, catalogue, NO_PINS, now_ms)]


def test_only_models_are_asked_about_of_which_nobody_said_anything() -> None:
    assert asked(Curiosity(), fleet(neuron("a", 24_000))) == [("oak", "a")]


def test_a_model_that_a_neuron_lists_with_its_capabilities_is_not_asked_about() -> None:
    view, mb = on("oak")
    telling = msgspec.structs.replace(view, capabilities=("vision",))
    assert asked(Curiosity(), fleet(neuron("a", 24_000, has=[(telling, mb)]))) == []
    assert asked(Curiosity(), fleet(neuron("a", 24_000, has=[(view, mb)]))) == [("oak", "a")]


def test_what_was_told_is_known_and_not_asked_again() -> None:
    curiosity = Curiosity()
    curiosity.answered((OAK, A), ("text", "vision"), NOW_MS)
    assert curiosity.known == {OAK: ("text", "vision")}
    assert asked(curiosity, fleet(neuron("a", 24_000))) == []


def test_a_neuron_that_could_not_tell_is_left_alone_for_ten_minutes_and_another_is_asked() -> None:
    curiosity = Curiosity()
    both = fleet(neuron("a", 24_000), neuron("b", 24_000))
    curiosity.answered((OAK, A), None, NOW_MS)
    assert asked(curiosity, both) == [("oak", "b")]
    curiosity.answered((OAK, B), None, NOW_MS)
    assert asked(curiosity, both, now_ms=NOW_MS + AGAIN_MS - 1) == []
    assert asked(curiosity, both, now_ms=NOW_MS + AGAIN_MS) == [("oak", "a")]


def test_neurons_that_do_not_answer_or_could_not_run_it_are_not_asked() -> None:
    curiosity = Curiosity()
    assert asked(curiosity, fleet(neuron("a", 24_000, healthy=False))) == []
    large = Catalogue((CatalogueModel("oak", vram_mb=99_000),))
    assert asked(curiosity, fleet(neuron("a", 24_000)), large) == []
    assert asked(curiosity, fleet(neuron("a", 24_000, kind="openai"))) == []


def test_what_leaves_the_catalogue_is_forgotten() -> None:
    curiosity = Curiosity()
    curiosity.answered((OAK, A), ("vision",), NOW_MS)
    curiosity.answered((OAK, B), None, NOW_MS)
    curiosity.keep(Catalogue())
    assert curiosity.known == {}
    assert asked(curiosity, fleet(neuron("b", 24_000))) == [("oak", "b")]
