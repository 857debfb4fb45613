"""What a placement is decided on: the fleet, what is under way, and who holds which memory.

Owns the books of every card: total = room + models + loads under way + strangers. A model's claim
is what the operator wrote (`vram_mb`), or more if its neuron reports more, in even shares over its
cards; it counts from the moment its load is decided, whatever a neuron's health shows so far, so
no memory is given away twice. Memory in use that no claim explains belongs to strangers: other
programs, or a model that outgrew its `vram_mb`; nobody can displace them. Refuses to know who may
be displaced (eviction.py) and who goes where (placement.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from cortexd.fleet.feasibility import share_mb
from cortexd.fleet.reports import ModelId
from cortexd.fleet.view import NeuronName, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cortexd.config.schema import Catalogue, CatalogueModel
    from cortexd.fleet.feasibility import Pins
    from cortexd.fleet.view import DeviceView, FleetView, NeuronView

Residency = tuple[NeuronName, ModelId]
"""A model on a neuron."""


class Use(msgspec.Struct, frozen=True):
    """What we know of a model on a neuron. For one found there, not loaded by us, `loaded_ms` is
    when it was first seen.

    `in_flight` counts our requests only. `leased`: loaded for waiters that have no first byte yet.
    """

    last_used_ms: int
    loaded_ms: int
    in_flight: int = 0
    leased: bool = False

    @property
    def touched_ms(self) -> int:
        """When it last was of use; a load is one."""
        return max(self.last_used_ms, self.loaded_ms)


class Loading(msgspec.Struct, frozen=True):
    """A load from its decision until a later poll shows the model, or until it has failed.

    Taken off sooner, its memory would belong to nobody for the length of a poll. `vram_mb` None:
    not known, it holds its cards alone. `evict`: models that leave to make room for it.
    `strangers_mb`: memory of others on its cards when it was decided, in the order of `devices`.
    """

    model: ModelId
    neuron: NeuronName
    devices: tuple[int, ...]
    vram_mb: int | None
    since_ms: int
    evict: tuple[ModelId, ...] = ()
    strangers_mb: tuple[int, ...] = ()


class Situation(msgspec.Struct, frozen=True):
    """All that a decision depends on. `draining`: neurons that get no new loads.

    `leaving`: models being unloaded for no load in particular, idle ones for example. `yielding`:
    models that give their place up, whatever speaks for them (swaps.py).
    """

    view: FleetView
    catalogue: Catalogue
    loading: tuple[Loading, ...]
    uses: Mapping[Residency, Use]
    draining: frozenset[NeuronName]
    pins: Pins
    now_ms: int
    leaving: frozenset[Residency] = frozenset()
    yielding: frozenset[Residency] = frozenset()


class Tenant(msgspec.Struct, frozen=True):
    """A model on a machine and its claim per card. A load comes with those that leave for it.

    A claim of 0: its size is not known, and nothing measured can be its.
    """

    model: ModelId
    on_mb: dict[int, int]


class Card(msgspec.Struct, frozen=True):
    """A card's books. `room_mb` is below zero where more is claimed than there is.

    `room_mb` None: nothing is measured here. `guests`: how many models and loads are on it.
    """

    index: int
    total_mb: int | None
    room_mb: int | None
    strangers_mb: int
    guests: int

    def lacks(self, share_mb: int | None) -> int:
        """What has to go before a share fits, 0 or less: nothing. In MB; but in guests where the
        share (None) or the card is of unknown size, since then it has to be alone on the card.
        """
        if share_mb == 0:
            return 0
        if share_mb is None or self.room_mb is None:
            return self.guests
        return share_mb - self.room_mb

    def gains(self, tenant: Tenant, share_mb: int | None) -> int:
        """By how much `lacks` shrinks once the tenant is gone."""
        claim_mb = tenant.on_mb.get(self.index)
        if claim_mb is None:
            return 0
        return 1 if share_mb is None or self.room_mb is None else claim_mb


class Machine(msgspec.Struct, frozen=True):
    """A neuron's cards, the models that stay on them, and the loads under way there."""

    cards: tuple[Card, ...]
    tenants: tuple[Tenant, ...]
    arrivals: tuple[Tenant, ...]

    @property
    def room_mb(self) -> int:
        """Memory that nobody claims, on all cards together."""
        return sum(max(0, card.room_mb or 0) for card in self.cards)


class _Guest(msgspec.Struct, frozen=True):
    model: ModelId
    vram_mb: int | None
    devices: tuple[int, ...]

    @property
    def share_mb(self) -> int | None:
        return None if self.vram_mb is None else share_mb(self.vram_mb, len(self.devices))


class Books:
    """A situation with its look-ups made ready. Lives for one decision."""

    def __init__(self, situation: Situation) -> None:
        self.situation = situation
        self.entries: dict[ModelId, CatalogueModel] = {}
        for entry in situation.catalogue.models:
            self.entries.setdefault(ModelId(entry.id), entry)
        self._loads: dict[NeuronName, list[Loading]] = {}
        self._leaving = set(situation.leaving)
        for load in situation.loading:
            self._loads.setdefault(load.neuron, []).append(load)
            self._leaving.update((load.neuron, model) for model in load.evict)
        self._reported_mb: dict[ModelId, int] | None = None

    def is_leaving(self, neuron: NeuronName, model: ModelId) -> bool:
        """Whether it is being unloaded, for whatever reason."""
        return (neuron, model) in self._leaving

    def is_engaged(self, neuron: NeuronView, model: ModelId) -> bool:
        """Whether it serves or is about to: in flight here or there, waited for, not yet ready."""
        offer = neuron.models[model]
        if any(load.model == model for load in self._loads.get(neuron.name, ())):
            return True
        use = self.situation.uses.get((neuron.name, model))
        if offer.status is Status.LOADED and (neuron.name, model) in self.situation.yielding:
            return False
        return (
            offer.status is not Status.LOADED
            or offer.load.in_flight + offer.load.queue_depth > 0
            or (use is not None and (use.in_flight > 0 or use.leased))
        )

    def loads_by_itself(self, neuron: NeuronView) -> bool:
        """Whether the neuron loads what nobody here has asked for, or is about to.

        How much of such a load's memory is in use already cannot be told, nor, before it begins,
        on which cards it will be: these books are no ground for a decision then.
        """
        activation = neuron.activation
        if activation is not None and (activation.in_progress is not None or activation.pending):
            return True
        ours = {load.model for load in self._loads.get(neuron.name, ())}
        return any(
            model.status in (Status.LOADING, Status.RELOADING) and model.id not in ours
            for model in neuron.models.values()
        )

    def vram_mb(self, model: ModelId) -> int | None:
        """A model's size: as written, else the largest that a neuron reports; None: not known."""
        entry = self.entries.get(model)
        if entry is not None and entry.vram_mb is not None:
            return entry.vram_mb
        if self._reported_mb is None:
            self._reported_mb = reported_mb(self.situation.view)
        return self._reported_mb.get(model)

    def machine(self, neuron: NeuronView) -> Machine:
        """The books of a neuron's cards.

        A model whose cards are not known counts as spread over all of them. One of unknown size
        gets an even part of what is in use and unexplained; of all that is left where no use is
        measured.
        """
        devices = neuron.devices
        indices = tuple(device.index for device in devices)
        loads = self._loads.get(neuron.name, []) if indices else []
        arriving = [_Guest(load.model, load.vram_mb, _on(load.devices, indices)) for load in loads]
        guests = self._guests(neuron, indices)
        here = _by_card(guests)
        reckonings = [
            _reckon(device, here.get(device.index, ()), arriving, loads) for device in devices
        ]
        claims_mb = {each.index: each.claims_mb for each in reckonings}
        makes_way = {model for load in loads for model in load.evict}
        tenants = tuple(
            Tenant(guest.model, _claims_of(guest, claims_mb))
            for guest in guests
            if guest.model not in makes_way
        )
        arrivals = tuple(
            _arrival(guest, load, claims_mb, reckonings)
            for guest, load in zip(arriving, loads, strict=True)
        )
        everyone = (*tenants, *arrivals)
        return Machine(tuple(each.card(everyone) for each in reckonings), tenants, arrivals)

    def _guests(self, neuron: NeuronView, indices: tuple[int, ...]) -> list[_Guest]:
        """What the neuron holds, but for our own loads."""
        ours = {load.model for load in self._loads.get(neuron.name, ())}
        found = []
        for model in neuron.models.values():
            if model.status is Status.UNLOADED or model.id in ours or not indices:
                continue
            said_mb = [self.vram_mb(model.id), model.vram_used_mb or None]
            known_mb = [each for each in said_mb if each is not None]
            vram_mb = max(known_mb, default=None)
            if vram_mb != 0:
                found.append(_Guest(model.id, vram_mb, _on(model.devices, indices)))
        return found


class _Reckoning(msgspec.Struct, frozen=True):
    """What everybody claims of one card, before those who leave for a load are set off."""

    index: int
    total_mb: int | None
    used_mb: int | None
    strangers_mb: int
    claims_mb: dict[ModelId, int]

    def card(self, everyone: Sequence[Tenant]) -> Card:
        claims_mb = [each.on_mb[self.index] for each in everyone if self.index in each.on_mb]
        room_mb = None
        if self.total_mb is not None:
            room_mb = self.total_mb - self.strangers_mb - sum(claims_mb)
            room_mb = min(
                room_mb, self.total_mb - (self.used_mb or 0)
            )  # whoever it is that uses it
        return Card(self.index, self.total_mb, room_mb, self.strangers_mb, len(claims_mb))


def _on(said: Iterable[int], indices: tuple[int, ...]) -> tuple[int, ...]:
    known = set(said).intersection(indices)
    return tuple(index for index in indices if index in known) or indices


def _by_card(guests: Iterable[_Guest]) -> dict[int, list[_Guest]]:
    found: dict[int, list[_Guest]] = {}
    for guest in guests:
        for index in guest.devices:
            found.setdefault(index, []).append(guest)
    return found


def reported_mb(view: FleetView) -> dict[ModelId, int]:
    """The largest size of each model that any neuron reports."""
    found: dict[ModelId, int] = {}
    for neuron in view.neurons.values():
        for model in neuron.models.values():
            if model.vram_used_mb:
                found[model.id] = max(found.get(model.id, 0), model.vram_used_mb)
    return found


def _measured(device: DeviceView, claims_mb: int) -> tuple[int | None, int | None]:
    """A card's size and use as far as can be told; where sources differ, the one with less free."""
    total_mb, free_mb, used_mb = device.vram_total_mb, device.vram_free_mb, device.vram_used_mb
    if free_mb is not None:
        if total_mb is None:
            total_mb = free_mb + (claims_mb if used_mb is None else used_mb)
        used_mb = max(0, total_mb - free_mb)
    return total_mb, None if total_mb is None else used_mb


def _reckon(
    device: DeviceView,
    here: Sequence[_Guest],
    arriving: Sequence[_Guest],
    loads: Sequence[Loading],
) -> _Reckoning:
    """Who claims what on one card, `here` are the guests on it, and what is left for strangers.

    While a load is under way its memory cannot be told from a stranger's; so what strangers had
    when it was decided goes on counting as theirs.
    """
    known_mb = sum(guest.share_mb or 0 for guest in here)
    total_mb, used_mb = _measured(device, known_mb)
    claims_mb = {guest.model: guest.share_mb or 0 for guest in here}
    for guest in arriving:
        if device.index in guest.devices:
            share = guest.share_mb
            claims_mb[guest.model] = (total_mb or 0) if share is None else share
    before_mb = [
        mb
        for load in loads
        for index, mb in zip(load.devices, load.strangers_mb, strict=False)
        if index == device.index
    ]
    unknown = [guest.model for guest in here if guest.share_mb is None]
    strangers_mb = max(0, (used_mb or 0) - sum(claims_mb.values()), *before_mb)
    if total_mb is not None and used_mb is None and unknown:
        each_mb = share_mb(max(0, total_mb - sum(claims_mb.values())), len(unknown))
    else:
        each_mb = strangers_mb // max(1, len(unknown)) if unknown else 0
        strangers_mb -= each_mb * len(unknown)
    claims_mb |= dict.fromkeys(unknown, each_mb)
    return _Reckoning(device.index, total_mb, used_mb, strangers_mb, claims_mb)


def _claims_of(guest: _Guest, claims_mb: Mapping[int, Mapping[ModelId, int]]) -> dict[int, int]:
    return {index: claims_mb[index][guest.model] for index in guest.devices}


def _arrival(
    guest: _Guest,
    load: Loading,
    claims_mb: Mapping[int, Mapping[ModelId, int]],
    reckonings: Sequence[_Reckoning],
) -> Tenant:
    """A load and those that leave for it, as one: it begins when they are gone, so on each card
    the larger of the two is what must be kept free of others.
    """
    own_mb = _claims_of(guest, claims_mb)
    on_mb = {}
    for card in reckonings:
        going = [card.claims_mb[model] for model in load.evict if model in card.claims_mb]
        if going or card.index in own_mb:
            on_mb[card.index] = max(own_mb.get(card.index, 0), sum(going))
    return Tenant(guest.model, on_mb)
