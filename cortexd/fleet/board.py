"""The board on which the fleet is written: the view, what we have in flight, and who doubts.

Owns the one mutable place of the fleet. Pollers publish to it, everybody reads it, requests sign in
while they are with a neuron. Refuses to know how a poller waits: it is woken through a callable.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

from cortexd.fleet.routing import Route, choose
from cortexd.fleet.view import FleetView, NeuronName, NeuronView, before_the_first_poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence, Set

    from cortexd.config.schema import Neuron, Secret
    from cortexd.fleet.reports import ModelId


class Board:
    """One per daemon. All methods are synchronous and belong to the daemon's own thread."""

    def __init__(self, neurons: Sequence[Neuron]) -> None:
        """Begin with every configured neuron, none of them heard of yet."""
        self._view = before_the_first_poll(neurons)
        self._api_keys: dict[NeuronName, Secret] = {
            NeuronName(each.name): each.api_key for each in neurons if each.api_key is not None
        }
        self._in_flight: dict[tuple[NeuronName, ModelId], int] = {}
        self._wakers: dict[NeuronName, Callable[[], None]] = {}
        self._doubted: dict[NeuronName, set[ModelId]] = {}

    @property
    def view(self) -> FleetView:
        """The picture as of now; it never changes, a new one takes its place."""
        return self._view

    @property
    def in_flight(self) -> Mapping[tuple[NeuronName, ModelId], int]:
        """Our own requests by neuron and model, where there are any: a live, read-only mapping."""
        return MappingProxyType(self._in_flight)

    def publish(self, neuron: NeuronView) -> None:
        """Put a new picture of one neuron in the place of the old one."""
        self._view = FleetView({**self._view.neurons, neuron.name: neuron})

    def route(self, model: ModelId, *, without: Set[str] = frozenset()) -> Route | None:
        """The route of a request that comes now (`routing.choose`)."""
        return choose(self._view, self._in_flight, model, without=without, api_keys=self._api_keys)

    @contextmanager
    def serving(self, route: Route) -> Iterator[None]:
        """Count a request as in flight for as long as the block lasts."""
        place = (route.neuron, route.model)
        self._in_flight[place] = self._in_flight.get(place, 0) + 1
        try:
            yield
        finally:
            left = self._in_flight[place] - 1
            if left:
                self._in_flight[place] = left
            else:
                del self._in_flight[place]

    def doubt(self, neuron: NeuronName, model: ModelId | None = None) -> None:
        """Ask for a poll of a neuron now: it did not behave as the view says.

        With a `model`, its address on that neuron is looked up again too. Costs nothing when a poll
        is under way, and a neuron is not polled more often because many doubt it.
        """
        if model is not None:
            self._doubted.setdefault(neuron, set()).add(model)
        waker = self._wakers.get(neuron)
        if waker is not None:
            waker()

    def watch(self, neuron: NeuronName, waker: Callable[[], None]) -> None:
        """Have `waker` called at every doubt about a neuron. For its poller."""
        self._wakers[neuron] = waker

    def take_doubted(self, neuron: NeuronName) -> Set[ModelId]:
        """The models doubted since the last call. For the poller of the neuron."""
        return self._doubted.pop(neuron, set())
