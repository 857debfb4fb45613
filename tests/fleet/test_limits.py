"""Names and limits of models: the catalogue and the neurons' word together."""

from __future__ import annotations

from cortexd.config.schema import Catalogue, CatalogueModel, Limit, Neuron
from cortexd.dialects.upper_bound import ModelLimits
from cortexd.fleet.catalogue import ModelId, resolve
from cortexd.fleet.limits import limits_of
from cortexd.fleet.reports import ModelReport
from cortexd.fleet.view import Answered, FleetView, Missed, before_the_first_poll, fold

A = ModelId("a")
WRITTEN = CatalogueModel(
    "a",
    limit=Limit(context=8192, output=2048),
    template_tokens=7,
    image_tokens_max=1,
    audio_tokens_max=2,
    file_tokens_max=3,
    image_steps=4,
    tokens_per_image_unit=5,
    tokens_per_audio_second=6,
    tokens_per_speech_character=8,
)
CATALOGUE = Catalogue((WRITTEN,), {"small": "a", "a2": "small"})


def fleet(*limits: Limit) -> FleetView:
    view = before_the_first_poll([Neuron(f"n{i}", "http://n") for i in range(len(limits))])
    return FleetView(
        {
            name: fold(neuron, Answered((ModelReport(A, "loaded", limit=limit),)))
            for (name, neuron), limit in zip(view.neurons.items(), limits, strict=True)
        }
    )


def test_an_alias_is_resolved_once_and_any_other_name_is_an_id() -> None:
    assert resolve(CATALOGUE, "small") == "a"
    assert resolve(CATALOGUE, "a2") == "small"
    assert resolve(CATALOGUE, "a") == "a"
    assert resolve(CATALOGUE, "unheard/of") == "unheard/of"


def test_a_model_that_nobody_knows_has_no_limits() -> None:
    assert limits_of(ModelId("b"), None, fleet(Limit(9))) is None


def test_the_catalogue_alone_is_enough() -> None:
    assert limits_of(A, WRITTEN, fleet()) == ModelLimits(8192, 8192, 2048, 7, 1, 2, 3, 4, 5, 6, 8)


def test_a_neuron_alone_is_enough() -> None:
    assert limits_of(A, None, fleet(Limit(4096, None, 512))) == ModelLimits(4096, 4096, 512)
    assert limits_of(A, None, fleet(Limit())) == ModelLimits(None, None, None)


def test_of_several_statements_the_extremes_are_kept() -> None:
    view = fleet(Limit(4096, None, 4096), Limit(), Limit(32768, None, 1024))
    merged = limits_of(A, WRITTEN, view)
    assert merged == ModelLimits(4096, 32768, 1024, 7, 1, 2, 3, 4, 5, 6, 8)


def test_a_neuron_that_is_down_still_counts() -> None:
    """A request bounded now may be routed when it is back."""
    [(name, neuron)] = fleet(Limit(4096)).neurons.items()
    for _ in range(3):
        neuron = fold(neuron, Missed("x"))
    merged = limits_of(A, None, FleetView({name: neuron}))
    assert merged == ModelLimits(4096, 4096, None)
