"""Which neuron serves a request now, or why none can.

Owns the choice among neurons that have a model loaded. Refuses to know how the picture it reads
came about, and how a model gets loaded.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

from cortexd.fleet.addresses import address_of
from cortexd.fleet.reports import ModelId
from cortexd.fleet.view import NeuronKind, NeuronName, Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from cortexd.config.schema import Secret
    from cortexd.fleet.view import FleetView, ModelView, NeuronView


class Route(msgspec.Struct, frozen=True):
    """Where a request goes. `base_url` is what `/v1/...` is appended to; `api_key` None: no key."""

    neuron: NeuronName
    kind: NeuronKind
    model: ModelId
    base_url: str
    api_key: str | None = None

    def __repr__(self) -> str:
        return f"Route({self.neuron!r}, {self.model!r}, {self.base_url!r})"  # never the key


class WhyNot(enum.Enum):
    """Why no neuron can serve a model; the values are words for a log."""

    NO_HEALTHY_NEURON = "no_healthy_neuron"
    UNKNOWN = "unknown"
    NOT_LOADED = "not_loaded"
    UNSERVABLE = "unservable"
    RECOVERING = "recovering"


def choose(
    view: FleetView,
    in_flight: Mapping[tuple[NeuronName, ModelId], int],
    model: ModelId,
    *,
    without: Set[str] = frozenset(),
    api_keys: Mapping[NeuronName, Secret],
) -> Route | None:
    """The least busy healthy neuron that has `model` loaded and can serve it; None: there is none.

    Busy is what the neuron last reported in flight and waiting plus `in_flight`, our own count;
    ties go by name. Neurons in `without` have been tried. A neuron's key goes with the route only
    if the route leads to the host that the operator gave the key for.
    """
    best: tuple[int, NeuronName] | None = None
    for name, neuron in view.neurons.items():
        offer = neuron.models.get(model)
        if offer is None or not neuron.healthy or not offer.can_serve or name in without:
            continue
        busy = offer.load.in_flight + offer.load.queue_depth + in_flight.get((name, model), 0)
        if best is None or (busy, name) < best:
            best = busy, name
    if best is None:
        return None
    return _route(view.neurons[best[1]], model, api_keys.get(best[1]))


def _route(neuron: NeuronView, model: ModelId, api_key: Secret | None) -> Route:
    base_url = neuron.models[model].base_url
    assert base_url is not None, "can_serve promises an address"
    key = None
    if api_key is not None and address_of(base_url).host == address_of(neuron.endpoint).host:
        key = api_key.reveal()
    return Route(neuron.name, neuron.kind, model, base_url, key)


def why_not(view: FleetView, model: ModelId) -> WhyNot | None:
    """Why `choose` finds nothing, the most hopeful reason of all neurons; None when it would."""
    healthy = [neuron for neuron in view.neurons.values() if neuron.healthy]
    if not healthy:
        return WhyNot.NO_HEALTHY_NEURON
    offers = [neuron.models[model] for neuron in healthy if model in neuron.models]
    if any(offer.can_serve for offer in offers):
        return None
    if not offers:
        listed = any(model in neuron.models for neuron in view.neurons.values())
        return WhyNot.NO_HEALTHY_NEURON if listed else WhyNot.UNKNOWN
    return max((_why_not(offer) for offer in offers), key=list(WhyNot).index)


def _why_not(offer: ModelView) -> WhyNot:
    if offer.status is Status.RECOVERING:
        return WhyNot.RECOVERING
    if offer.status is Status.LOADED and not offer.is_servable:
        return WhyNot.UNSERVABLE
    return WhyNot.NOT_LOADED
