"""Fleets in a few words, for tests of where a model goes and who has to leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.config.schema import Catalogue, CatalogueModel, NeuronKind
from cortexd.fleet.reports import Activation, Device, Discovery, ModelId, ModelLoad, Servable
from cortexd.fleet.situation import Loading, Situation, Use
from cortexd.fleet.view import (
    DeviceView,
    FleetView,
    ModelView,
    NeuronName,
    NeuronView,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NOW_MS = 10_000_000
WARM = Activation()


def on(
    model: str,
    *devices: int,
    mb: int = 0,
    status: Status = Status.LOADED,
    in_flight: int = 0,
    queued: int = 0,
    servable: bool = True,
    vram_used_mb: int | None = None,
) -> tuple[ModelView, int]:
    """A model as a neuron reports it, and what it really takes there."""
    view = ModelView(
        ModelId(model),
        status,
        ModelLoad(model, in_flight=in_flight, queue_depth=queued),
        base_url="http://there:1",
        servable=None if servable else Servable(False),
        devices=devices or (0,),
        vram_used_mb=vram_used_mb,
    )
    return view, mb


def neuron(
    name: str,
    *totals_mb: int,
    has: Iterable[tuple[ModelView, int]] = (),
    strangers_mb: int = 0,
    healthy: bool = True,
    kind: NeuronKind = "neuron",
    told: bool = True,
    cuda_unavailable: str | None = None,
    harnesses: tuple[str, ...] = (),
    activation: Activation | None = WARM,
) -> NeuronView:
    """A neuron with cards of these sizes; `strangers_mb` is in use on each beside the models."""
    used_mb = dict.fromkeys(range(len(totals_mb)), strangers_mb)
    views = {}
    for view, mb in has:
        views[view.id] = view
        for index in view.devices:
            used_mb[index] += -(-mb // len(view.devices))
    devices = tuple(
        DeviceView(
            index,
            vram_total_mb=total if told else None,
            vram_used_mb=used_mb[index],
            vram_free_mb=total - used_mb[index],
        )
        for index, total in enumerate(totals_mb)
    )
    discovery = Discovery(
        devices=tuple(Device(index, vram_total_mb=mb) for index, mb in enumerate(totals_mb)),
        harnesses=harnesses,
        cuda_unavailable_reason=cuda_unavailable,
    )
    return NeuronView(
        NeuronName(name),
        kind,
        f"http://{name}:1",
        healthy=healthy,
        models=views,
        devices=devices,
        discovery=discovery if told else None,
        activation=activation,
    )


def fleet(*neurons: NeuronView) -> FleetView:
    """These neurons, in this order."""
    return FleetView({each.name: each for each in neurons})


def situation(
    *neurons: NeuronView,
    models: Iterable[CatalogueModel] = (),
    loading: tuple[Loading, ...] = (),
    uses: Mapping[tuple[str, str], Use] | None = None,
    draining: Iterable[str] = (),
    pins: Mapping[str, Iterable[str]] | None = None,
    leaving: Iterable[tuple[str, str]] = (),
    now_ms: int = NOW_MS,
) -> Situation:
    """All that a decision depends on."""
    return Situation(
        fleet(*neurons),
        Catalogue(tuple(models)),
        loading,
        {(NeuronName(name), ModelId(id)): use for (name, id), use in (uses or {}).items()},
        frozenset(map(NeuronName, draining)),
        {ModelId(id): frozenset(map(NeuronName, names)) for id, names in (pins or {}).items()},
        now_ms,
        frozenset((NeuronName(name), ModelId(id)) for name, id in leaving),
    )


def used(at_ms: int = 0, *, loaded_ms: int = 0, in_flight: int = 0, leased: bool = False) -> Use:
    """A use, by default of long ago."""
    return Use(at_ms, loaded_ms, in_flight, leased)


def load(
    model: str,
    name: str,
    *devices: int,
    vram_mb: int | None = None,
    evict: tuple[str, ...] = (),
    strangers_mb: tuple[int, ...] = (),
) -> Loading:
    """A load under way."""
    leavers = tuple(map(ModelId, evict))
    return Loading(ModelId(model), NeuronName(name), devices, vram_mb, 0, leavers, strangers_mb)


def without_numbers(neuron: NeuronView, *fields: str) -> NeuronView:
    """The same neuron, silent about these fields of its cards."""
    devices = tuple(
        msgspec.structs.replace(each, **dict.fromkeys(fields)) for each in neuron.devices
    )
    return msgspec.structs.replace(neuron, devices=devices)
