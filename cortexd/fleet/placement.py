"""Where a model that is loaded nowhere is to be loaded, on which cards, and who has to leave first.

Owns the order of preference and the reasons for "not now" and "never". A plan is a value: nothing
has happened yet, and it holds only for the situation it was made in. Refuses to know how loads are
carried out, who waits for them, and what an earlier failure says about the next try.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from typing import TYPE_CHECKING

import msgspec

from cortexd.fleet import eviction
from cortexd.fleet.engines.abilities import places_itself
from cortexd.fleet.eviction import Candidate, Protection
from cortexd.fleet.feasibility import Reason, share_mb, why_infeasible, width
from cortexd.fleet.reports import ModelId
from cortexd.fleet.situation import Books, Card, Loading, Machine, Situation, Tenant
from cortexd.fleet.view import UNTOLD_POLLS_MAX, NeuronName, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cortexd.config.schema import CatalogueModel, Eviction
    from cortexd.fleet.view import NeuronView

SEARCH_STEPS = 6_400
"""What the search for whom to displace may cost in one decision, over all neurons."""


class Place(msgspec.Struct, frozen=True):
    """Load it there. `evict`: these first, once they are drained; empty: there is room.

    `vram_mb` None: the size is not known. `strangers_mb`: others' memory, in the order of
    `devices`.
    """

    neuron: NeuronName
    devices: tuple[int, ...]
    evict: tuple[ModelId, ...]
    vram_mb: int | None
    strangers_mb: tuple[int, ...]

    def loading(self, model: ModelId, since_ms: int) -> Loading:
        """What has to be in the next situation once this plan is followed."""
        return Loading(
            model=model,
            neuron=self.neuron,
            devices=self.devices,
            vram_mb=self.vram_mb,
            since_ms=since_ms,
            evict=self.evict,
            strangers_mb=self.strangers_mb,
        )


class Riding(msgspec.Struct, frozen=True):
    """It is there, comes back there, or is being loaded there: wait for that."""

    neuron: NeuronName


class Why(enum.Enum):
    """Why it cannot be loaded now, the most hopeful first; the values are words for a log."""

    TOO_YOUNG = "the models in its place were loaded a moment ago"
    IN_USE = "the models in its place are in use"
    UNLOADING = "it is being unloaded"
    WARMING_UP = "the neuron is still loading models of its own"
    NOT_KNOWN_YET = "the neuron has not told yet what cards it has, or how much of them is free"
    NO_ADDRESS = "it is loaded, but the neuron does not say at which address"
    UNSERVABLE = "it is loaded, but the neuron cannot serve it"
    OUTRANKED = "the models in its place are of a higher residency class"
    NO_ROOM = "other programs, or models beyond their vram_mb, hold the memory"
    UNDISCOVERED = "the neuron does not tell what cards it has"


class Busy(msgspec.Struct, frozen=True):
    """Not now, and nothing is to be displaced in vain. `retry_in_ms` None: nobody can say when."""

    why: Why
    retry_in_ms: int | None = None


class Kind(enum.Enum):
    """How far out of reach a model is."""

    UNKNOWN = "unknown"
    NOWHERE = "nowhere"
    ONLY_UNHEALTHY = "only_unhealthy"
    ONLY_DRAINING = "only_draining"


class Infeasible(msgspec.Struct, frozen=True):
    """No healthy neuron could load it even if it were empty.

    UNKNOWN: the catalogue does not have it. ONLY_UNHEALTHY: one could that does not answer or needs
    a reboot (`why` CUDA_UNAVAILABLE). `why` None: no neuron speaks against it.
    """

    kind: Kind
    why: Reason | None = None


Answer = Place | Riding | Busy | Infeasible


def place(model: ModelId, situation: Situation, settings: Eviction) -> Answer:
    """Decide on one model.

    Among the neurons it is pinned to, if it is: where it fits as things are, on the neuron with
    the most unclaimed memory; else where the smallest set has to leave (the fewest models, then
    the least missed by the strategy, then the most unclaimed memory); then by name.
    Deterministic. For 50 neurons with 20 models each it takes 10 to 80 ms with up to four cards a
    neuron, and 0.2 s in the worst case found, where models are spread over several of eight cards.
    """
    books = Books(situation)
    riding = _riding(model, books)
    if riding is not None:
        return riding
    entry = books.entries.get(model)
    if entry is None:
        return Infeasible(Kind.UNKNOWN)
    able = _able(entry, situation)
    if isinstance(able, Infeasible):
        return able
    hindered = [(neuron, _hindrance(neuron, model, books)) for neuron in able]
    sites = [_site(entry, neuron, books) for neuron, why in hindered if why is None]
    fitting = [site for site in sites if site.fits(())]
    if fitting:
        return min(fitting, key=lambda site: (-site.machine.room_mb, site.neuron.name)).place(())
    displacing = _displacing(sites, model, books, settings)
    if displacing is not None:
        return displacing
    waits = [Busy(why) for _, why in hindered if why is not None]
    waits += [_wait(site, model, books, settings) for site in sites]
    return min(waits, key=lambda busy: (list(Why).index(busy.why), busy.retry_in_ms or 0))


def _riding(model: ModelId, books: Books) -> Riding | None:
    """Of several neurons, one that has it, then one that recovers, then one that loads; by name."""
    situation = books.situation
    found = [(_Nearness.LOADS, load.neuron) for load in situation.loading if load.model == model]
    for name, neuron in situation.view.neurons.items():
        if neuron.healthy and name not in situation.draining:
            nearness = _nearness(neuron, model, books)
            if nearness is not None:
                found.append((nearness, name))
    return Riding(min(found)[1]) if found else None


class _Nearness(enum.IntEnum):
    SERVES = 0
    RECOVERS = 1
    LOADS = 2


def _nearness(neuron: NeuronView, model: ModelId, books: Books) -> _Nearness | None:
    """How close a model is to serving on a neuron, without anything being done for it."""
    if books.is_leaving(neuron.name, model):
        return None
    offer = neuron.models.get(model)
    status = Status.UNLOADED if offer is None else offer.status
    if offer is not None and offer.can_serve:
        return _Nearness.SERVES
    if status is Status.RECOVERING or (offer is not None and offer.awaits_address):
        return _Nearness.RECOVERS
    if status in (Status.LOADING, Status.RELOADING) or _warms_up(neuron, model, books):
        return _Nearness.LOADS
    return None


def _warms_up(neuron: NeuronView, model: ModelId, books: Books) -> bool:
    """Whether the neuron will load it by itself; it may name a model with its source in front."""
    if neuron.activation is None:
        return False
    entry = books.entries.get(model)
    names = {str(model)} | ({f"{entry.source}:{model}"} if entry and entry.source else set())
    return not names.isdisjoint((*neuron.activation.pending, neuron.activation.in_progress))


def _able(entry: CatalogueModel, situation: Situation) -> list[NeuronView] | Infeasible:
    """The neurons that could take a load now, as far as their state goes; or why there is none."""
    able, draining, unhealthy = [], False, False
    reasons: list[Reason] = []
    for name, neuron in situation.view.neurons.items():
        reason = why_infeasible(entry, neuron, situation.pins)
        if reason is not None:
            reasons.append(reason)
        elif not neuron.healthy:
            unhealthy = True
        elif name in situation.draining:
            draining = True
        else:
            able.append(neuron)
    if able:
        return able
    if unhealthy:
        return Infeasible(Kind.ONLY_UNHEALTHY)
    if draining:
        return Infeasible(Kind.ONLY_DRAINING)
    why = max(reasons, key=list(Reason).index, default=None)
    # A machine that needs a reboot is ill, not unfit: its clients should come back.
    cure = why is Reason.CUDA_UNAVAILABLE
    return Infeasible(Kind.ONLY_UNHEALTHY if cure else Kind.NOWHERE, why)


def _hindrance(neuron: NeuronView, model: ModelId, books: Books) -> Why | None:
    """What keeps a neuron from being weighed at all; None: nothing."""
    offer = neuron.models.get(model)
    if books.is_leaving(neuron.name, model):
        return Why.UNLOADING
    if offer is not None and offer.status is not Status.UNLOADED:
        return Why.NO_ADDRESS if offer.is_servable and offer.unaddressed else Why.UNSERVABLE
    if places_itself(neuron.kind):
        return None
    if neuron.undiscovered_polls > UNTOLD_POLLS_MAX:
        return Why.UNDISCOVERED
    if neuron.discovery is None or neuron.is_stale or neuron.memory_is_old:
        return Why.NOT_KNOWN_YET
    return Why.WARMING_UP if books.loads_by_itself(neuron) else None


class _Site(msgspec.Struct, frozen=True):
    """A neuron seen by one model. `devices`: how many cards it takes, None: too many.

    `share_mb` None: of unknown size. `cards`: those that are large enough.
    """

    neuron: NeuronView
    machine: Machine
    devices: int | None
    vram_mb: int | None
    share_mb: int | None
    cards: tuple[Card, ...]

    def fits(self, gone: Iterable[Tenant]) -> bool:
        """Whether there is room once these are gone."""
        return self.devices is not None and eviction.suffices(
            self.lacks(), self.devices, [self.candidate(tenant, ()) for tenant in gone]
        )

    def lacks(self) -> dict[int, int]:
        """Per card, what has to go."""
        return {card.index: card.lacks(self.share_mb) for card in self.cards}

    def candidate(self, tenant: Tenant, regret: eviction.Regret) -> Candidate:
        """A tenant as the choice of a smallest set sees it."""
        gains = {card.index: card.gains(tenant, self.share_mb) for card in self.cards}
        return Candidate(tenant.model, regret, gains)

    def place(self, evict: Sequence[Candidate]) -> Place:
        """The plan: the cards with the most room then, so that it need not share more than it has
        to.
        """
        assert self.devices is not None, "only a site that fits is a place"
        left = {
            card.index: card.lacks(self.share_mb) - sum(each.gains[card.index] for each in evict)
            for card in self.cards
        }
        by_room = sorted(
            self.cards, key=lambda card: (left[card.index], -(card.total_mb or 0), card.index)
        )
        chosen = sorted(by_room[: self.devices], key=lambda card: card.index)
        assert all(left[card.index] <= 0 for card in chosen), "a plan that does not fit"
        return Place(
            neuron=self.neuron.name,
            devices=tuple(card.index for card in chosen),
            evict=tuple(each.model for each in evict),
            vram_mb=self.vram_mb,
            strangers_mb=tuple(card.strangers_mb for card in chosen),
        )


def _site(entry: CatalogueModel, neuron: NeuronView, books: Books) -> _Site:
    """A model of unknown size takes cards on which no model is and of which strangers have at most
    half: that is all that can be asked for. An engine that places models itself always has a
    place, of no card that anybody here knows.
    """
    machine = books.machine(neuron)
    if places_itself(neuron.kind):
        return _Site(neuron, machine, 0, entry.vram_mb, None, ())
    vram_mb = books.vram_mb(ModelId(entry.id))
    devices = width(entry, vram_mb, [card.total_mb for card in machine.cards])
    share = None if vram_mb is None else share_mb(vram_mb, devices or 1)
    least_mb = max(entry.min_device_vram_mb or 0, share or 0)
    cards = tuple(
        card
        for card in machine.cards
        if (card.total_mb is None or card.total_mb >= least_mb)
        and (share is not None or card.strangers_mb * 2 <= (card.total_mb or 0))
    )
    return _Site(neuron, machine, devices, vram_mb, share, cards)


def _displacing(
    sites: Sequence[_Site], model: ModelId, books: Books, settings: Eviction
) -> Place | None:
    """The place where the smallest set makes room; None: no set does anywhere."""
    newcomer = eviction.residency_class(books, model)
    best: tuple[tuple[object, ...], _Site, tuple[Candidate, ...]] | None = None
    at_most = eviction.CANDIDATES_MAX
    for site in sites:
        if site.devices is None:
            continue
        candidates = [
            site.candidate(
                tenant, eviction.regret(books, (site.neuron.name, tenant.model), settings)
            )
            for tenant in site.machine.tenants
            if eviction.protection(books, site.neuron, tenant.model, newcomer, settings) is None
        ]
        chosen = eviction.smallest_set(
            site.lacks(),
            site.devices,
            candidates,
            at_most=at_most,
            steps_max=max(eviction.CANDIDATES_MAX, SEARCH_STEPS // len(sites)),
        )
        if chosen is not None:
            at_most = len(chosen)
            regret = eviction.set_regret(chosen)
            order = (len(chosen), regret, -site.machine.room_mb, site.neuron.name)
            if best is None or order < best[0]:
                best = order, site, chosen
    return None if best is None else best[1].place(best[2])


def _wait(site: _Site, model: ModelId, books: Books, settings: Eviction) -> Busy:
    """What a model for which no set makes room waits for on this neuron."""
    newcomer = eviction.residency_class(books, model)
    neuron, machine = site.neuron, site.machine
    shields = {
        tenant.model: eviction.protection(books, neuron, tenant.model, newcomer, settings)
        for tenant in machine.tenants
    }
    matures_in_ms = {
        tenant.model: eviction.matures_in_ms(books, (neuron.name, tenant.model), settings)
        for tenant in machine.tenants
        if shields[tenant.model] in (None, Protection.TOO_YOUNG)
    }

    def fits_after(wait_ms: int) -> bool:
        return site.fits(
            tenant
            for tenant in machine.tenants
            if matures_in_ms.get(tenant.model, wait_ms + 1) <= wait_ms
        )

    waits_ms = sorted({wait_ms for wait_ms in matures_in_ms.values() if wait_ms > 0})
    first = bisect_left(waits_ms, True, key=fits_after)
    if first < len(waits_ms):
        return Busy(Why.TOO_YOUNG, waits_ms[first])
    below = [each for each in machine.tenants if shields[each.model] is not Protection.OUTRANKS]
    below += [
        each for each in machine.arrivals if eviction.residency_class(books, each.model) <= newcomer
    ]
    if site.fits(below):
        return Busy(Why.IN_USE)
    everyone = (*machine.tenants, *machine.arrivals)
    return Busy(Why.OUTRANKED if site.fits(everyone) else Why.NO_ROOM)
