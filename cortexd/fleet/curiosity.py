"""What to ask about models that are loaded nowhere: what they can do, and which neuron may know.

Owns who is asked next and when again. Refuses to know how a neuron is asked (traffic.py). What the
operator wrote is never asked for, and what a neuron lists need not be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortexd.fleet.feasibility import feasible_on
from cortexd.fleet.reports import ModelId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cortexd.config.schema import Catalogue
    from cortexd.fleet.feasibility import Pins
    from cortexd.fleet.view import FleetView, NeuronName

AGAIN_MS = 600_000
"""A neuron that could not tell is asked for the same model again after so long."""

Question = tuple[ModelId, "NeuronName"]


class Curiosity:
    """What was answered, and who could not tell when. One thread."""

    def __init__(self) -> None:
        """Nothing has been asked."""
        self.known: Mapping[ModelId, tuple[str, ...]] = {}
        self._asked_ms: dict[Question, int] = {}

    def questions(
        self, view: FleetView, catalogue: Catalogue, pins: Pins, now_ms: int
    ) -> list[Question]:
        """One question for each model of which nobody has told what it can do."""
        listed = {
            model.id
            for neuron in view.neurons.values()
            for model in neuron.models.values()
            if model.capabilities
        }
        found: list[Question] = []
        for entry in catalogue.models:
            model = ModelId(entry.id)
            if entry.capabilities or model in listed or model in self.known:
                continue
            for name in feasible_on(entry, view, pins):
                asked_ms = self._asked_ms.get((model, name))
                rested = asked_ms is None or now_ms >= asked_ms + AGAIN_MS
                if rested and view.neurons[name].healthy:
                    found.append((model, name))
                    break
        return found

    def answered(self, question: Question, told: tuple[str, ...] | None, now_ms: int) -> None:
        """A neuron told, or could not (None)."""
        if told:
            self._asked_ms.pop(question, None)
            self.known = {**self.known, question[0]: told}
        else:
            self._asked_ms[question] = now_ms

    def keep(self, catalogue: Catalogue) -> None:
        """Forget what is not in the catalogue any more."""
        ids = {ModelId(entry.id) for entry in catalogue.models}
        self.known = {model: told for model, told in self.known.items() if model in ids}
        self._asked_ms = {each: at for each, at in self._asked_ms.items() if each[0] in ids}
