"""Which neuron serves a request now, among those that have its model loaded.

Owns the choice, and how many requests a neuron is given at once. Refuses to know how the picture it
reads came about, how a model gets loaded, and who waits when nobody is free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.config.schema import NeuronKind
from cortexd.fleet.addresses import address_of
from cortexd.fleet.affinity import Affinity, rank
from cortexd.fleet.breaker import Breakers, Verdict
from cortexd.fleet.reports import ModelId
from cortexd.fleet.view import NeuronName

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence, Set

    from cortexd.config.schema import Neuron, Secret
    from cortexd.fleet.affinity import Mark
    from cortexd.fleet.board import Board
    from cortexd.fleet.breaker import State, Ticket
    from cortexd.fleet.residents import Resident, Residents
    from cortexd.fleet.view import NeuronView


class Route(msgspec.Struct, frozen=True):
    """Where a request goes. `base_url` is what `/v1/...` is appended to; `api_key` None: no key.

    `anthropic`: messages go there untranslated.
    """

    neuron: NeuronName
    kind: NeuronKind
    model: ModelId
    base_url: str
    api_key: str | None = None
    anthropic: bool = False

    def __repr__(self) -> str:
        return f"Route({self.neuron!r}, {self.model!r}, {self.base_url!r})"  # never the key


def route_to(neuron: NeuronView, model: ModelId, api_key: Secret | None) -> Route:
    """The route to a model that can serve there.

    The neuron's key goes with it only if it leads to the host that the operator gave the key for.
    """
    base_url = neuron.models[model].base_url
    assert base_url is not None, "can_serve promises an address"
    key = None
    if api_key is not None and address_of(base_url).host == address_of(neuron.endpoint).host:
        key = api_key.reveal()
    return Route(neuron.name, neuron.kind, model, base_url, key, neuron.anthropic)


class Replicas:
    """The residencies that can serve, and the choice among them."""

    def __init__(self, neurons: Sequence[Neuron], board: Board, residents: Residents) -> None:
        """`neurons` as configured: their keys, and how many requests each is given at once."""
        self._board = board
        self._residents = residents
        self._api_keys: dict[NeuronName, Secret] = {
            NeuronName(each.name): each.api_key for each in neurons if each.api_key is not None
        }
        self._most: dict[NeuronName, int] = {
            NeuronName(each.name): each.max_in_flight
            for each in neurons
            if each.max_in_flight is not None
        }
        self.breakers = Breakers()
        self.affinity = Affinity()

    def is_served(self, model: ModelId) -> bool:
        """Whether a request for the model only has to wait for its turn."""
        return next(self._serving(model), None) is not None

    def routes(self, model: ModelId) -> list[Route]:
        """To every neuron that could get a request for the model, free or not."""
        return [
            route_to(neuron, model, self._api_keys.get(neuron.name))
            for neuron, _ in self._serving(model)
        ]

    def has_room(self, model: ModelId, now_ms: int) -> bool:
        """Whether a request for the model could go out now."""
        return bool(self._free(model, frozenset(), now_ms))

    def retry_in_ms(self, model: ModelId, now_ms: int) -> int | None:
        """When the next of the breakers that are in the way lets a request pass; None: none is."""
        waits_ms = (
            self.breakers.retry_in_ms((neuron.name,), now_ms) for neuron, _ in self._serving(model)
        )
        return min((wait_ms for wait_ms in waits_ms if wait_ms), default=None)

    def choose(
        self, model: ModelId, marks: Sequence[Mark], without: Set[NeuronName], now_ms: int
    ) -> tuple[Route, Resident] | None:
        """The replica for a request that goes out now; None: none is free.

        First the one that has read the beginning of the conversation, unless it is busier than
        others; then the least busy by the neuron's last report plus our own count; then by name.
        One that sleeps comes after all that are awake. Neurons in `without` have been tried.
        """
        free = self._free(model, without, now_ms)
        if not free:
            return None
        awake = {name: each for name, each in free.items() if not each[0].models[model].asleep}
        free = awake or free
        busy = {name: _busy(neuron, stay) for name, (neuron, stay, _) in free.items()}
        states = {name: state for name, (_, _, state) in free.items()}
        preferred = self.affinity.prefer(marks, busy, now_ms=now_ms) if marks else None
        chosen = rank(free, busy, states, preferred)[0]
        neuron, stay, _ = free[chosen]
        return route_to(neuron, model, self._api_keys.get(chosen)), stay

    def begin(self, neuron: NeuronName, marks: Sequence[Mark], now_ms: int) -> Ticket:
        """A request goes out to a neuron; give the ticket to `end` whatever happens."""
        if marks:
            self.affinity.remember(marks, neuron, now_ms=now_ms)
        return self.breakers.begin(neuron, now_ms)

    def end(
        self, neuron: NeuronName, ticket: Ticket, verdict: Verdict | None, now_ms: int
    ) -> State | None:
        """What a request proved (None: it was not sent); the breaker's state if that changed it."""
        return self.breakers.end(neuron, ticket, verdict or Verdict.UNKNOWN, now_ms)

    def _free(
        self, model: ModelId, without: Set[NeuronName], now_ms: int
    ) -> dict[NeuronName, tuple[NeuronView, Resident, State]]:
        return {
            neuron.name: (neuron, stay, state)
            for neuron, stay in self._serving(model)
            if stay.admits
            and neuron.name not in without
            and self._has_room(neuron, stay)
            and (state := self.breakers.state(neuron.name, now_ms)).admits
        }

    def _serving(self, model: ModelId) -> Iterator[tuple[NeuronView, Resident]]:
        """Where the model can serve, as far as its neuron says; it may not admit right now."""
        neurons = self._board.view.neurons
        for stay in self._residents.of(model):
            name = stay.residency[0]
            neuron = neurons[name]
            if stay.leaving or not neuron.healthy or name in self._residents.draining:
                continue
            if neuron.models[model].can_serve:
                yield neuron, stay

    def _has_room(self, neuron: NeuronView, stay: Resident) -> bool:
        """Our own count alone: what a neuron reports of ours may be over by now."""
        most = self._most.get(neuron.name) or neuron.models[stay.residency[1]].load.max_in_flight
        return most <= 0 or stay.in_flight < most


def _busy(neuron: NeuronView, stay: Resident) -> int:
    load = neuron.models[stay.residency[1]].load
    return load.in_flight + load.queue_depth + stay.in_flight
