"""The limits of a model wherever it may run: what the operator wrote and what neurons report.

Owns how several statements become one, and keeps what came of it until one of them changes. Refuses
to know what a request costs (dialects/upper_bound.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from cortexd.config.schema import CatalogueModel
from cortexd.dialects.upper_bound import ModelLimits

if TYPE_CHECKING:
    from cortexd.config.schema import Limit
    from cortexd.fleet.board import Board
    from cortexd.fleet.planner import Planner
    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.view import FleetView, NeuronName, NeuronView


class KnownLimits:
    """The limits of the models that were asked for, each worked out once.

    They are kept until the catalogue is another one, or a neuron says something else of any model:
    every request asks, and hardly a poll says anything new of limits. One thread.
    """

    def __init__(self, board: Board, planner: Planner) -> None:
        """Nothing has been asked yet."""
        self._board = board
        self._planner = planner
        self._said: dict[NeuronName, dict[ModelId, Limit]] = {}
        self._kept: dict[tuple[ModelId, int], ModelLimits] = {}

    def of(self, model: ModelId, *, template_tokens: int) -> ModelLimits | None:
        """The limits of a model, and no less than these template tokens; see `limits_of`."""
        kept = self._kept.get((model, template_tokens))
        if kept is not None:
            return kept
        limits = limits_of(model, self._planner.entry(model), self._board.view)
        if limits is None:
            return None  # not kept: anybody can ask for any name
        if limits.template_tokens < template_tokens:
            limits = replace(limits, template_tokens=template_tokens)
        self._kept[model, template_tokens] = limits
        return limits

    def heard(self, neuron: NeuronView) -> None:
        """A neuron has a new picture."""
        said = {id: offer.limit for id, offer in neuron.models.items()}
        if said != self._said.get(neuron.name):
            self._said[neuron.name] = said
            self._kept.clear()

    def forget(self) -> None:
        """The catalogue is another one."""
        self._kept.clear()


def limits_of(
    model: ModelId, written: CatalogueModel | None, view: FleetView
) -> ModelLimits | None:
    """Merge all that is known; None when neither the catalogue nor a neuron knows the model.

    `written`: what the catalogue says of it; None: nothing. Neurons that are unhealthy count too:
    they may be back by the time a request is routed. Of several contexts the smallest and the
    largest are kept, of several output limits the smallest.
    """
    reported = [
        neuron.models[model].limit for neuron in view.neurons.values() if model in neuron.models
    ]
    if written is None and not reported:
        return None
    stated: list[Limit] = reported if written is None else [written.limit, *reported]
    priced = written if written is not None else CatalogueModel(model)
    contexts = [limit.context for limit in stated if limit.context is not None]
    outputs = [limit.output for limit in stated if limit.output is not None]
    return ModelLimits(
        context_min=min(contexts, default=None),
        context_max=max(contexts, default=None),
        output=min(outputs, default=None),
        template_tokens=priced.template_tokens,
        image_tokens_max=priced.image_tokens_max,
        audio_tokens_max=priced.audio_tokens_max,
        file_tokens_max=priced.file_tokens_max,
        image_steps=priced.image_steps,
        tokens_per_image_unit=priced.tokens_per_image_unit,
        tokens_per_audio_second=priced.tokens_per_audio_second,
        tokens_per_speech_character=priced.tokens_per_speech_character,
        native_messages=any(neuron.anthropic for neuron in view.neurons.values()),
    )
