"""Every model on every neuron, with what we do with it: since when, how much, for whom.

Owns what is known of a residency beyond the view: its use, its lease to those it was loaded for,
and whether it still takes requests. Refuses to know who asks, and what has to make room for what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortexd.fleet.situation import Use
from cortexd.fleet.swaps import Hot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.situation import Residency
    from cortexd.fleet.view import FleetView, NeuronName, NeuronView


class Resident:
    """A model's stay on a neuron, from when it is first seen there until it is seen no more.

    `leases`: requests that it was loaded for and that have no first byte yet; `served`: one of them
    has had one. `leaving`: being unloaded. `draining_for`: the model that is to have its place,
    which is waited for since `cold_since_ms`.
    `unload_until_ms`: an operator wants it gone, and it admits nothing until then, so that its
    requests can end.
    """

    __slots__ = (
        "cold_since_ms",
        "draining_for",
        "draining_since_ms",
        "in_flight",
        "last_used_ms",
        "leases",
        "leaving",
        "loaded_ms",
        "residency",
        "resumed_ms",
        "served",
        "unload_until_ms",
    )

    def __init__(self, residency: Residency, now_ms: int) -> None:
        """It is seen for the first time."""
        self.residency = residency
        self.in_flight = self.leases = 0
        self.begin_anew(now_ms)

    def begin_anew(self, now_ms: int) -> None:
        """It is seen again, after a while: only what it has of requests is as it was."""
        self.loaded_ms = self.last_used_ms = now_ms
        self.served = self.leaving = False
        self.draining_since_ms: int | None = None
        self.draining_for: ModelId | None = None
        self.cold_since_ms: int | None = None
        self.resumed_ms: int | None = None
        self.unload_until_ms: int | None = None

    @property
    def admits(self) -> bool:
        """Whether it takes requests, as far as we are concerned."""
        return not self.leaving and self.draining_since_ms is None and self.unload_until_ms is None

    @property
    def is_unserved(self) -> bool:
        """Whether nobody that it was loaded for has got anything of it yet."""
        return self.leases > 0 and not self.served

    def begin(self, now_ms: int) -> None:
        """A request goes to it."""
        self.in_flight += 1
        self.last_used_ms = now_ms

    def end(self, now_ms: int) -> None:
        """That request is over."""
        assert self.in_flight > 0, "more requests ended than began"
        self.in_flight -= 1
        self.last_used_ms = now_ms

    def lease(self, requests: int) -> None:
        """It has been loaded for so many requests."""
        self.leases += requests
        self.served = False

    def give_back(self, *, served: bool) -> None:
        """One of those has its first byte (`served`), or wants none any more."""
        assert self.leases > 0, "a lease was given back twice"
        self.leases -= 1
        self.served = self.served or served

    def drain(self, model: ModelId, cold_since_ms: int, now_ms: int) -> None:
        """Admit no more requests, in favour of `model`; since the first call of this drain."""
        if self.draining_since_ms is None:
            self.draining_since_ms = now_ms
        self.draining_for, self.cold_since_ms = model, cold_since_ms

    def admit_again(self) -> None:
        """End the drain, if there is one."""
        self.draining_since_ms = self.draining_for = self.cold_since_ms = None


class Residents:
    """All stays. `draining`: neurons that an operator wants empty of requests.

    A list can lack for a moment what is there and at work: by a 404 that was about something else,
    in the middle of a reload. So a stay that is seen no more is remembered for as long as it has
    requests in flight. They count, and if the model is seen again meanwhile they count for it.
    """

    def __init__(self) -> None:
        """Nothing has been seen yet."""
        self._by_neuron: dict[NeuronName, dict[ModelId, Resident]] = {}
        self._by_model: dict[ModelId, dict[NeuronName, Resident]] = {}
        self._vanished: dict[NeuronName, dict[ModelId, Resident]] = {}
        self.draining: set[NeuronName] = set()
        self._reopened: set[ModelId] = set()

    def __iter__(self) -> Iterator[Resident]:
        for stays in self._by_neuron.values():
            yield from stays.values()

    def get(self, neuron: NeuronName, model: ModelId) -> Resident | None:
        """The stay of a model on a neuron; None: it is not there."""
        stays = self._by_neuron.get(neuron)
        return None if stays is None else stays.get(model)

    def of(self, model: ModelId) -> Collection[Resident]:
        """All stays of a model, in the order in which they were first seen."""
        stays = self._by_model.get(model)
        return () if stays is None else stays.values()

    def on(self, neuron: NeuronName) -> tuple[Resident, ...]:
        """All stays on a neuron."""
        return tuple(self._by_neuron.get(neuron, {}).values())

    def see(self, neuron: NeuronView, now_ms: int) -> tuple[Resident, ...]:
        """Take what a neuron has now; returns the stays that begin with it."""
        before = self._by_neuron.get(neuron.name, {})
        vanished = self._vanished.get(neuron.name, {})
        after: dict[ModelId, Resident] = {}
        new: list[Resident] = []
        for model in neuron.models.values():
            if not model.status.resident:
                continue
            stay = before.get(model.id)
            if stay is None:
                stay = vanished.get(model.id) or Resident((neuron.name, model.id), now_ms)
                stay.begin_anew(now_ms)
                self._by_model.setdefault(model.id, {})[neuron.name] = stay
                new.append(stay)
            after[model.id] = stay
        for gone in before.keys() - after.keys():
            del self._by_model[gone][neuron.name]
            if not self._by_model[gone]:
                del self._by_model[gone]
        self._by_neuron[neuron.name] = after
        self._vanished[neuron.name] = {
            id: stay
            for id, stay in (vanished | before).items()
            if id not in after and stay.in_flight > 0
        }
        return tuple(new)

    def end_drain(self, stay: Resident) -> None:
        """A stay gives way to nobody any more: those who wait for its model can have their turn."""
        if stay.draining_since_ms is not None:
            stay.admit_again()
            self._reopened.add(stay.residency[1])

    def end_unload(self, stay: Resident) -> None:
        """An operator wants it gone no more, with the same consequence."""
        stay.unload_until_ms = None
        self._reopened.add(stay.residency[1])

    def take_reopened(self) -> set[ModelId]:
        """The models of which a stay admits again, since the last call."""
        reopened, self._reopened = self._reopened, set()
        return reopened

    @property
    def in_flight(self) -> int:
        """Requests that neurons have from us."""
        return sum(self.in_flight_on(neuron) for neuron in self._by_neuron)

    def in_flight_on(self, neuron: NeuronName) -> int:
        """Those that this one has, whether or not it lists their models now."""
        stays = (self._by_neuron.get(neuron, {}), self._vanished.get(neuron, {}))
        return sum(stay.in_flight for each in stays for stay in each.values())

    def uses(self, is_leased: Callable[[Resident], bool]) -> dict[Residency, Use]:
        """What placement has to know of all stays."""
        return {
            each.residency: Use(
                each.last_used_ms, each.loaded_ms, each.in_flight, leased=is_leased(each)
            )
            for each in self
        }


def hot(resident: Resident, view: FleetView, waiting: int) -> Hot:
    """A stay as the swap rules see it. `waiting`: requests for its model that are not admitted.

    A neuron's own report counts too: others may ask it directly.
    """
    return Hot(
        loaded_ms=resident.loaded_ms,
        in_flight=max(resident.in_flight, reported(resident, view)) + resident.is_unserved,
        waiting=waiting,
        draining_since_ms=resident.draining_since_ms,
        resumed_ms=resident.resumed_ms,
    )


def reported(resident: Resident, view: FleetView) -> int:
    """How many requests the neuron said to have for it, at work and waiting, when last asked."""
    name, model = resident.residency
    neuron = view.neurons.get(name)
    offer = None if neuron is None else neuron.models.get(model)
    return 0 if offer is None else offer.load.in_flight + offer.load.queue_depth
