"""Which neurons could ever run a model of the catalogue: what the operator asks, against the cards.

Owns the rules that no waiting and no eviction can bend. Refuses to know what is loaded, busy or
healthy right now (placement.py). What a neuron has not said yet speaks neither for nor against it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING

from cortexd.fleet.engines.abilities import loads, places_itself
from cortexd.fleet.reports import ModelId
from cortexd.fleet.view import NeuronName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortexd.config.schema import CatalogueModel
    from cortexd.fleet.view import FleetView, NeuronView

Pins = Mapping[ModelId, frozenset[NeuronName]]
"""Pins set at run time, in place of `pinned_on`. An empty set: pinned nowhere, whatever the
catalogue says."""

NO_PINS: Pins = MappingProxyType({})


class Reason(enum.Enum):
    """Why a model cannot run on a neuron, in the order in which it is looked for.

    Of several neurons the last reason in this order is worth telling: that neuron came closest.
    """

    CANNOT_LOAD = "cannot_load"
    NOT_THERE = "not_there"
    NOT_PINNED_HERE = "not_pinned_here"
    HARNESS_MISSING = "harness_missing"
    TOO_FEW_DEVICES = "too_few_devices"
    DEVICES_TOO_SMALL = "devices_too_small"
    TOO_LITTLE_VRAM = "too_little_vram"
    CUDA_UNAVAILABLE = "cuda_unavailable"


def pinned_to(model: CatalogueModel, pins: Pins = NO_PINS) -> frozenset[NeuronName]:
    """The only neurons that may load it; empty: any may."""
    return pins.get(ModelId(model.id), frozenset(map(NeuronName, model.pinned_on)))


def width(
    model: CatalogueModel, vram_mb: int | None, totals_mb: Sequence[int | None]
) -> int | None:
    """How many cards the model takes on a neuron with these cards; None: they do not suffice.

    The fewest, from `min_devices` on, that can hold `vram_mb` in even shares when they are empty.
    More cards are not taken because others are full: splitting a model further than its operator
    or its size asks for makes it slower, and not every format of weights can be split at all.
    `vram_mb` None: not known, `min_devices` it is. A total of None is not known to be too small.
    """
    least_mb = model.min_device_vram_mb or 0
    known_mb = (inf if total is None else total for total in totals_mb)
    large_mb = sorted((total for total in known_mb if total >= least_mb), reverse=True)
    for count in range(model.min_devices, len(large_mb) + 1):
        if large_mb[count - 1] >= share_mb(vram_mb or 0, count):
            return count
    return None


def share_mb(vram_mb: int, devices: int) -> int:
    """What each of several cards has to hold of a model, rounded up."""
    return -(-vram_mb // devices)


def why_infeasible(
    model: CatalogueModel, neuron: NeuronView, pins: Pins = NO_PINS
) -> Reason | None:
    """Why the neuron can never load the model; None: as far as is known, it can.

    CUDA_UNAVAILABLE comes last, so it means: nothing else is in the way, once that machine has been
    rebooted. The harness counts only where both sides name one. An engine that places models itself
    can load what it lists, and nothing is asked about its cards.
    """
    if not loads(neuron.kind):
        return Reason.CANNOT_LOAD
    pinned = pinned_to(model, pins)
    if pinned and neuron.name not in pinned:
        return Reason.NOT_PINNED_HERE
    if places_itself(neuron.kind):
        is_heard = neuron.healthy or bool(neuron.models)
        return Reason.NOT_THERE if is_heard and ModelId(model.id) not in neuron.models else None
    discovery = neuron.discovery
    if discovery is None:
        return None
    if model.harness and discovery.harnesses and model.harness not in discovery.harnesses:
        return Reason.HARNESS_MISSING
    totals_mb = [device.vram_total_mb for device in neuron.devices]
    if len(totals_mb) < model.min_devices:
        return Reason.TOO_FEW_DEVICES
    if width(model, None, totals_mb) is None:
        return Reason.DEVICES_TOO_SMALL
    if width(model, model.vram_mb, totals_mb) is None:
        return Reason.TOO_LITTLE_VRAM
    return Reason.CUDA_UNAVAILABLE if discovery.cuda_unavailable_reason is not None else None


def feasible_on(
    model: CatalogueModel, view: FleetView, pins: Pins = NO_PINS
) -> tuple[NeuronName, ...]:
    """The neurons that could load it, healthy or not, in the order of configuration."""
    return tuple(
        name for name, neuron in view.neurons.items() if why_infeasible(model, neuron, pins) is None
    )
