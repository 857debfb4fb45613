"""What is to be done so that a model can serve that no neuron serves now.

Owns the way from a need to a load: plan it, have room made for it, wake a host for it, or say why
not. Refuses to know who waits and for how long (dispatcher.py), who has to give way when
(drains.py), and how an order is carried out (loader.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import msgspec
from msgspec.structs import replace

from cortexd.config.schema import Catalogue
from cortexd.fleet.eviction import idle
from cortexd.fleet.feasibility import pinned_to, why_infeasible
from cortexd.fleet.orders import Unload, Wake, Why
from cortexd.fleet.placement import Busy, Infeasible, Kind, Place, Riding, place
from cortexd.fleet.placement import Why as Hindrance
from cortexd.fleet.reach import out_of_reach
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause, Unserved
from cortexd.fleet.situation import Situation, reported_mb
from cortexd.fleet.view import FleetView, NeuronName

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from cortexd.config.schema import CatalogueModel, Eviction
    from cortexd.fleet.board import Board
    from cortexd.fleet.drains import Drains
    from cortexd.fleet.loads import Loads
    from cortexd.fleet.orders import Order
    from cortexd.fleet.residents import Residents
    from cortexd.fleet.situation import Residency
    from cortexd.fleet.view import NeuronView
    from cortexd.fleet.wakes import Wakes

IDLE_LOOK_MS = 1_000
"""Least time between two looks for what is idle, while something is due that cannot go yet."""

_SWAPPABLE = (Hindrance.IN_USE, Hindrance.TOO_YOUNG)
_UNSERVABLE = (Hindrance.NO_ADDRESS, Hindrance.UNSERVABLE)
_HOPELESS = {
    Hindrance.OUTRANKED: Cause.NO_ROOM,
    Hindrance.NO_ROOM: Cause.NO_ROOM,
    Hindrance.UNDISCOVERED: Cause.UNHEALTHY,
}


class Need(msgspec.Struct, frozen=True):
    """A model that somebody waits for since `since_ms`; `only`: on that neuron and no other.

    `by_operator`: it is tried although it failed a moment ago.
    """

    model: ModelId
    since_ms: int
    only: NeuronName | None = None
    by_operator: bool = False


class Ride(msgspec.Struct, frozen=True):
    """It is being loaded there, or comes back there. `eta_ms` None: nobody knows how long."""

    neuron: NeuronName
    eta_ms: int | None = None


class Held(msgspec.Struct, frozen=True):
    """Something has to happen first. `ask_again_ms` None: a change will be heard of."""

    ask_again_ms: int | None = None


Decision = Ride | Held | Unserved


class Planner:
    """Decides on needs, one after the other: who is asked first has the first choice."""

    def __init__(
        self,
        board: Board,
        residents: Residents,
        loads: Loads,
        drains: Drains,
        wakes: Wakes,
        settings: Eviction,
    ) -> None:
        """Decide on what is on the `board`; nothing is in the catalogue yet."""
        self._board = board
        self._residents = residents
        self._loads = loads
        self._drains = drains
        self._wakes = wakes
        self._settings = settings
        self._orders: list[Order] = []
        self.pins: dict[ModelId, frozenset[NeuronName]] = {}
        self.know(Catalogue())

    def know(self, catalogue: Catalogue) -> None:
        """Decide by this catalogue from now on."""
        self.catalogue = catalogue
        self._entries = {ModelId(each.id): each for each in catalogue.models}

    def entry(self, model: ModelId) -> CatalogueModel | None:
        """What the catalogue says of a model."""
        return self._entries.get(model)

    @property
    def has_orders(self) -> bool:
        """Whether something has to be done."""
        return bool(self._orders)

    def loads_there(self, residency: Residency) -> bool:
        """Whether that model is being loaded for us on that neuron, listed or not."""
        load = self._loads.get(residency[1])
        return load is not None and load.loading.neuron == residency[0]

    def take_orders(self) -> list[Order]:
        """What has to be done because of the decisions since the last call."""
        orders, self._orders = self._orders, []
        return orders

    def decide(self, need: Need, waiting: Mapping[ModelId, int], now_ms: int) -> Decision:
        """What becomes of a need now; a load may begin with it, or whoever is in the way drain.

        `waiting`: how many requests wait for each model. The oldest need is to be decided first.
        """
        load = self._loads.get(need.model)
        if load is not None:
            return self._ride(need, load.loading.neuron, now_ms)
        situation = self.situation(waiting, now_ms, need=need)
        due = self._drains.due(need.model, need.since_ms, waiting, now_ms)
        answer = self._place(need, situation, due)
        match answer:
            case Place():
                return self._begin(need, answer, now_ms)
            case Riding():
                return self._ride(need, answer.neuron, now_ms)
            case Busy():
                return self._wait(need, answer, situation, due, waiting)
            case Infeasible():
                return self._woken(need, now_ms) or self._out_of_reach(need, answer, now_ms)
            case _:
                assert_never(answer)

    def keep_drains(self, wanted: Set[ModelId]) -> None:
        """Only in favour of these does anybody make room."""
        self._drains.keep(wanted)

    def heard(self, neuron: NeuronView) -> None:
        """A neuron has a new picture."""
        if neuron.healthy:
            self._wakes.awake(neuron.name)

    def unload_idle(self, waiting: Mapping[ModelId, int], now_ms: int) -> int | None:
        """Have unloaded what nobody has used for its `idle_unload_seconds`; when to ask again."""
        limits_ms = {
            ModelId(each.id): round(each.idle_unload_seconds * 1000)
            for each in self.catalogue.models
            if each.idle_unload_seconds
        }
        neurons = self._board.view.neurons
        stays = [
            stay
            for stay in self._residents
            if stay.residency[1] in limits_ms and neurons[stay.residency[0]].kind != "openai"
        ]
        if not stays:
            return None
        due_ms = {stay: stay.last_used_ms + limits_ms[stay.residency[1]] for stay in stays}
        if min(due_ms.values()) <= now_ms:
            for residency in idle(self.situation(waiting, now_ms)):
                stay = self._residents.get(*residency)
                if stay is not None and stay.in_flight == 0 and not stay.is_unserved:
                    stay.leaving = True
                    self._orders.append(Unload(*residency, Why.IDLE))
        return min(max(at_ms, now_ms + IDLE_LOOK_MS) for at_ms in due_ms.values())

    def _out_of_reach(self, need: Need, answer: Infeasible, now_ms: int) -> Unserved:
        paused_ms = self._paused_ms(need, now_ms)
        if paused_ms and answer.kind in (Kind.ONLY_DRAINING, Kind.ONLY_UNHEALTHY):
            why = "its last load failed"
            return Unserved(Cause.LOAD_FAILED, why, min(paused_ms.values()))
        return out_of_reach(need.model, answer, self._board.view, self._residents.draining)

    def situation(
        self, waiting: Mapping[ModelId, int], now_ms: int, *, need: Need | None = None
    ) -> Situation:
        """The fleet as a decision sees it; for a `need`, without what it does not ask for."""
        view = self._board.view
        catalogue = self.catalogue
        barred = set(self._residents.draining)
        if need is not None:
            barred.update(self._paused_ms(need, now_ms))
            if need.only is not None:
                catalogue = self._sized(view)
                view = FleetView({need.only: view.neurons[need.only]})
        pins = self.pins
        if need is not None and need.only is not None and not self._is_pinned(need):
            # An operator's word goes beyond a pin elsewhere, not above those that are pinned here.
            pins = {**pins, need.model: frozenset()}
        return Situation(
            view=view,
            catalogue=catalogue,
            loading=tuple(load.loading for load in self._loads),
            uses=self._residents.uses(
                lambda stay: stay.is_unserved or waiting.get(stay.residency[1], 0) > 0
            ),
            draining=frozenset(barred),
            pins=pins,
            now_ms=now_ms,
            leaving=frozenset(stay.residency for stay in self._residents if stay.leaving),
        )

    def _is_pinned(self, need: Need) -> bool:
        """Whether a model belongs to the neuron that it is wanted on."""
        entry = self._entries.get(need.model)
        return entry is not None and need.only in pinned_to(entry, self.pins)

    def _sized(self, view: FleetView) -> Catalogue:
        """The catalogue with the sizes that neurons report, for whoever sees only one neuron."""
        sizes_mb = reported_mb(view)
        entries = tuple(
            replace(each, vram_mb=sizes_mb.get(ModelId(each.id))) if each.vram_mb is None else each
            for each in self.catalogue.models
        )
        return replace(self.catalogue, models=entries)

    def _place(
        self, need: Need, situation: Situation, yielding: frozenset[Residency]
    ) -> Place | Riding | Busy | Infeasible:
        seen = replace(situation, yielding=yielding)
        return place(need.model, seen, self._settings)

    def _ride(self, need: Need, neuron: NeuronName, now_ms: int) -> Ride | Unserved:
        if need.only not in (None, neuron):
            return Unserved(Cause.LOADING, f"it is being loaded on {neuron}; one load at a time")
        self._drains.release(need.model)
        return Ride(neuron, self._loads.eta_ms(need.model, now_ms))

    def _begin(self, need: Need, planned: Place, now_ms: int) -> Ride:
        entry = self._entries[need.model]
        self._drains.release(need.model)
        for model in planned.evict:
            stay = self._residents.get(planned.neuron, model)
            assert stay is not None, "only what is there can leave"
            assert stay.in_flight == 0, "a model was to leave that has requests in flight"
            stay.leaving = True
        self._orders.append(self._loads.begin(entry, need.model, planned, now_ms))
        return Ride(planned.neuron, self._loads.eta_ms(need.model, now_ms))

    def _wait(
        self,
        need: Need,
        busy: Busy,
        situation: Situation,
        due: frozenset[Residency],
        waiting: Mapping[ModelId, int],
    ) -> Held | Unserved:
        if busy.why in _SWAPPABLE:
            return self._make_room(need, busy, situation, due, waiting)
        self._drains.release(need.model)
        if busy.why in _UNSERVABLE:
            return Unserved(Cause.UNSERVABLE, busy.why.value)
        if busy.why in _HOPELESS:
            woken = self._woken(need, situation.now_ms)
            return woken or Unserved(_HOPELESS[busy.why], busy.why.value)
        return Held()

    def _make_room(
        self,
        need: Need,
        busy: Busy,
        situation: Situation,
        due: frozenset[Residency],
        waiting: Mapping[ModelId, int],
    ) -> Held | Unserved:
        """Have those drain that are in the way; the same ones as before, if they are enough."""
        now_ms, model = situation.now_ms, need.model
        planned = self._place(need, situation, due | self._drains.of(model))
        if not isinstance(planned, Place):
            planned = self._place(need, situation, due | self._drains.able(model))
        if not isinstance(planned, Place):  # loads that are under way are in the way, for example
            self._drains.release(model)
            again_ms = None if busy.retry_in_ms is None else now_ms + busy.retry_in_ms
            return Held(again_ms)
        in_the_way = [(planned.neuron, each) for each in planned.evict]
        too_slow, ask_again_ms = self._drains.ask(model, in_the_way, need.since_ms, waiting, now_ms)
        if too_slow:
            retry_in_ms = self._drains.rules.longest_service_ms
            return Unserved(Cause.IN_USE, Hindrance.IN_USE.value, retry_in_ms)
        return Held(ask_again_ms)

    def _paused_ms(self, need: Need, now_ms: int) -> dict[NeuronName, int]:
        """The neurons where a load of it failed a moment ago, and for how much longer.

        An operator has mended the cause, or wants to see it fail.
        """
        if need.by_operator:
            return {}
        pauses = {
            name: self._loads.pause_ms(need.model, name, now_ms)
            for name in self._board.view.neurons
        }
        return {name: pause_ms for name, pause_ms in pauses.items() if pause_ms > 0}

    def _woken(self, need: Need, now_ms: int) -> Held | None:
        """Wake the hosts that could run it and sleep; None: nobody can be counted on."""
        asleep = [
            name
            for name, neuron in self._board.view.neurons.items()
            if not neuron.healthy
            and need.only in (None, name)
            and name not in self._residents.draining
            and self._could_run(need.model, name)
        ]
        send, again_ms = self._wakes.want(asleep, now_ms)
        self._orders += [Wake(name) for name in send]
        return None if again_ms is None else Held(again_ms)

    def _could_run(self, model: ModelId, name: NeuronName) -> bool:
        neuron = self._board.view.neurons[name]
        if model in neuron.models:
            return True
        entry = self._entries.get(model)
        return entry is not None and why_infeasible(entry, neuron, self.pins) is None
