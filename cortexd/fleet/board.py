"""The board on which the fleet is written: the view, and who doubts it.

Owns the picture that pollers publish and everybody reads. Refuses to know how a poller waits, and
what follows from a new picture: both are told through a callable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.fleet.engines.abilities import loads, places_itself
from cortexd.fleet.view import FleetView, NeuronName, NeuronView, Status, before_the_first_poll

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence, Set

    from cortexd.config.schema import Neuron
    from cortexd.fleet.reports import ModelId


class Board:
    """One per daemon. All methods are synchronous and belong to the daemon's own thread."""

    def __init__(self, neurons: Sequence[Neuron]) -> None:
        """Begin with every configured neuron, none of them heard of yet."""
        self._view = before_the_first_poll(neurons)
        self._on_news: Callable[[NeuronName], None] = lambda _: None
        self._wakers: dict[NeuronName, Callable[[], None]] = {}
        self._doubted: dict[NeuronName, set[ModelId]] = {}

    @property
    def view(self) -> FleetView:
        """The picture as of now; it never changes, a new one takes its place."""
        return self._view

    def publish(self, neuron: NeuronView) -> None:
        """Put a new picture of one neuron in the place of the old one."""
        self._view = FleetView({**self._view.neurons, neuron.name: neuron})
        self._on_news(neuron.name)

    def withdraw(self, neuron: NeuronName, model: ModelId) -> None:
        """Take a model off a neuron's picture, since it is known to be gone, and have it polled.

        An engine that lists what it could load still has it, unloaded.
        """
        known = self._view.neurons[neuron]
        if model in known.models:
            models = {name: each for name, each in known.models.items() if name != model}
            if loads(known.kind) and places_itself(known.kind):
                left = known.models[model]
                models[model] = msgspec.structs.replace(left, status=Status.UNLOADED, asleep=False)
            self.publish(msgspec.structs.replace(known, models=models, is_stale=True))
        self.doubt(neuron)

    def tell(self, on_news: Callable[[NeuronName], None]) -> None:
        """Have `on_news` called after every new picture of a neuron, from now on."""
        self._on_news = on_news

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
