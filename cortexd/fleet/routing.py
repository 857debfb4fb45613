"""Which neuron serves a request now, among those that have its model loaded.

Owns the choice, and how many requests a neuron is given at once. Refuses to know how the picture it
reads came about, how a model gets loaded, and who waits when nobody is free.

Where a model can serve is worked out when a poll has changed it, not when a request asks: a fleet
brings some ten new pictures in a second, and answers a thousand requests meanwhile. What changes
between polls (drains, breakers, what is in flight) is looked at anew with each request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.config.schema import NeuronKind
from cortexd.fleet.addresses import address_of, is_host_name
from cortexd.fleet.affinity import Affinity, first
from cortexd.fleet.breaker import Breakers, Verdict
from cortexd.fleet.reports import ModelId
from cortexd.fleet.residents import Resident
from cortexd.fleet.view import NeuronName

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence, Set

    from cortexd.config.schema import Neuron, Secret
    from cortexd.fleet.affinity import Mark
    from cortexd.fleet.board import Board
    from cortexd.fleet.breaker import State, Ticket
    from cortexd.fleet.residents import Residents
    from cortexd.fleet.view import NeuronView

_NOBODY: frozenset[NeuronName] = frozenset()


class Route(msgspec.Struct, frozen=True):
    """Where a request goes. `base_url` is what `/v1/...` is appended to; `api_key` None: no key.

    `anthropic`: messages go there untranslated. `hosts`: by which names its machine goes.
    """

    neuron: NeuronName
    kind: NeuronKind
    model: ModelId
    base_url: str
    api_key: str | None = None
    anthropic: bool = False
    hosts: tuple[str, ...] = ()

    @property
    def unspoken(self) -> tuple[str, ...]:
        """The words that no client hears, whatever the neuron says."""
        return self.hosts if self.api_key is None else (*self.hosts, self.api_key)

    def __repr__(self) -> str:
        return f"Route({self.neuron!r}, {self.model!r}, {self.base_url!r})"  # never the key


def route_to(neuron: NeuronView, model: ModelId, api_key: Secret | None) -> Route:
    """The route to a model that can serve there.

    The neuron's key goes with it only if it leads to the host that the operator gave the key for.
    """
    base_url = neuron.models[model].base_url
    assert base_url is not None, "can_serve promises an address"
    key, host, home = None, address_of(base_url).host, address_of(neuron.endpoint).host
    if api_key is not None and host == home:
        key = api_key.reveal()
    hosts = {host, home}
    # Text of a neuron, of any length: what is kept of it is looked for in each of its errors.
    if neuron.discovery is not None and is_host_name(neuron.discovery.hostname):
        hosts.add(neuron.discovery.hostname)
    return Route(
        neuron.name, neuron.kind, model, base_url, key, neuron.anthropic, tuple(sorted(hosts))
    )


class Replica(msgspec.Struct, frozen=True):
    """A residency that can serve, as far as its neuron says; it may not admit right now.

    `most`: requests that it is given at once, 0: no limit. `reported`: those that its neuron said
    to have, at work and waiting.
    """

    neuron: NeuronName
    route: Route
    stay: Resident
    most: int
    reported: int
    asleep: bool


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
        self._by_model: dict[ModelId, tuple[Replica, ...]] = {}
        self.breakers = Breakers()
        self.affinity = Affinity()

    def see(self, models: Iterable[ModelId]) -> None:
        """Something else is on the board of these models, and their stays are up to date."""
        neurons = self._board.view.neurons
        for model in models:
            stays = [(neurons[stay.residency[0]], stay) for stay in self._residents.of(model)]
            replicas = tuple(
                self._replica(neuron, stay)
                for neuron, stay in stays
                if neuron.healthy and neuron.models[model].can_serve
            )
            if replicas:
                self._by_model[model] = replicas
            else:
                self._by_model.pop(model, None)

    def is_served(self, model: ModelId) -> bool:
        """Whether a request for the model only has to wait for its turn."""
        return bool(self._serving(model))

    def routes(self, model: ModelId) -> list[Route]:
        """To every neuron that could get a request for the model, free or not."""
        return [each.route for each in self._serving(model)]

    def has_room(self, model: ModelId, now_ms: int) -> bool:
        """Whether a request for the model could go out now."""
        return bool(self._free(model, _NOBODY, now_ms))

    def retry_in_ms(self, model: ModelId, now_ms: int) -> int | None:
        """When the next of the breakers that are in the way lets a request pass; None: none is."""
        waits_ms = (
            self.breakers.retry_in_ms((each.neuron,), now_ms) for each in self._serving(model)
        )
        return min((wait_ms for wait_ms in waits_ms if wait_ms), default=None)

    def choose(
        self, model: ModelId, marks: Sequence[Mark], without: Set[NeuronName], now_ms: int
    ) -> Replica | None:
        """The replica for a request that goes out now; None: none is free.

        First the one that has read the beginning of the conversation, unless it is busier than
        others; then the least busy by the neuron's last report plus our own count; then by name.
        One that sleeps comes after all that are awake. Neurons in `without` have been tried.
        """
        free = self._free(model, without, now_ms)
        if len(free) < 2:
            return free[0] if free else None
        awake = [each for each in free if not each.asleep] or free
        by_name = {each.neuron: each for each in awake}
        busy = {each.neuron: each.reported + each.stay.in_flight for each in awake}
        preferred = self.affinity.prefer(marks, busy, now_ms=now_ms) if marks else None
        return by_name[first(busy, self.breakers.not_closed, preferred)]

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

    def _free(self, model: ModelId, without: Set[NeuronName], now_ms: int) -> list[Replica]:
        """Who takes a request now. Plain, as every request comes by here.

        Of what is in flight our own count alone matters: what a neuron reports of ours may be over
        by now.
        """
        draining, breakers = self._residents.draining, self.breakers
        not_closed = breakers.not_closed
        free = []
        for each in self._by_model.get(model, ()):
            name, stay, most = each.neuron, each.stay, each.most
            if (
                (most <= 0 or stay.in_flight < most)
                and name not in draining
                and name not in without
                and stay.admits
                and (name not in not_closed or breakers.state(name, now_ms).admits)
            ):
                free.append(each)
        return free

    def _serving(self, model: ModelId) -> list[Replica]:
        """Where a request for the model could go at some time, without anything else happening."""
        draining = self._residents.draining
        return [
            each
            for each in self._by_model.get(model, ())
            if not each.stay.leaving and each.neuron not in draining
        ]

    def _replica(self, neuron: NeuronView, stay: Resident) -> Replica:
        name, model = stay.residency
        offer = neuron.models[model]
        return Replica(
            neuron=name,
            route=route_to(neuron, model, self._api_keys.get(name)),
            stay=stay,
            most=self._most.get(name) or offer.load.max_in_flight,
            reported=offer.load.in_flight + offer.load.queue_depth,
            asleep=offer.asleep,
        )
