"""Why a model is out of reach, as its client and its operator are told.

Owns the words. Refuses to know how that was found out (placement.py): it reads the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortexd.fleet.feasibility import Reason
from cortexd.fleet.placement import Infeasible, Kind, Why
from cortexd.fleet.serving import Cause, Unserved

if TYPE_CHECKING:
    from collections.abc import Set

    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.view import FleetView, NeuronName

NOWHERE: dict[Reason, str] = {
    Reason.CANNOT_LOAD: "no neuron here can load models",
    Reason.NOT_THERE: "no neuron here has it, and none fetches it by itself",
    Reason.NOT_PINNED_HERE: "no neuron here is one that it is pinned to",
    Reason.HARNESS_MISSING: "no neuron here has its harness",
    Reason.TOO_FEW_DEVICES: "no neuron here has as many devices as it needs",
    Reason.DEVICES_TOO_SMALL: "no neuron here has devices that are large enough for it",
    Reason.TOO_LITTLE_VRAM: "no neuron here has the memory that it needs, even when empty",
    Reason.CUDA_UNAVAILABLE: "the neurons that could run it need a reboot",
}
"""Why no neuron could ever run a model."""

_NOT_IN_CATALOGUE = "no neuron has it loaded, and the catalogue does not say how to load it"
_NO_NEURONS = "no neuron is configured"
_ONLY_UNHEALTHY = "the neurons that could run it do not answer"
_ONLY_DRAINING = "the neurons that could run it are being drained"


def out_of_reach(
    model: ModelId, answer: Infeasible, view: FleetView, draining: Set[NeuronName]
) -> Unserved:
    """What is told of a model that no healthy neuron could load."""
    match answer.kind:
        case Kind.UNKNOWN:
            return _not_in_the_catalogue(model, view, draining)
        case Kind.NOWHERE:
            why = _NO_NEURONS if answer.why is None else NOWHERE[answer.why]
            return Unserved(Cause.NOWHERE, why)
        case Kind.ONLY_UNHEALTHY:
            why = _ONLY_UNHEALTHY if answer.why is None else NOWHERE[answer.why]
            return Unserved(Cause.UNHEALTHY, why)
        case Kind.ONLY_DRAINING:
            return Unserved(Cause.DRAINING, _ONLY_DRAINING)


def _not_in_the_catalogue(model: ModelId, view: FleetView, draining: Set[NeuronName]) -> Unserved:
    """A model that only neurons may know. A 404 makes clients give a model up, so it must not come
    of a neuron that is merely late.
    """
    listing = [neuron for neuron in view.neurons.values() if model in neuron.models]
    if not listing:
        heard = [neuron for neuron in view.neurons.values() if neuron.healthy or neuron.models]
        if heard and len(heard) == len(view.neurons):
            return Unserved(Cause.UNKNOWN)
        return Unserved(Cause.UNHEALTHY, "not all neurons have been heard of yet")
    healthy = [neuron for neuron in listing if neuron.healthy]
    if not healthy:
        return Unserved(Cause.UNHEALTHY, _ONLY_UNHEALTHY)
    if all(neuron.name in draining for neuron in healthy):
        return Unserved(Cause.DRAINING, _ONLY_DRAINING)
    there = [neuron.models[model] for neuron in healthy if neuron.models[model].status.resident]
    if any(each.is_servable and each.unaddressed for each in there):
        return Unserved(Cause.UNSERVABLE, Why.NO_ADDRESS.value)
    if there:
        return Unserved(Cause.UNSERVABLE, "its neuron says that it cannot answer")
    return Unserved(Cause.NOWHERE, _NOT_IN_CATALOGUE)
