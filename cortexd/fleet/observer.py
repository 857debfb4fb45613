"""What the fleet tells those who log and count, as it happens.

Owns the list of events. Every call is made at once, from the daemon's own thread, and must not
wait; names are the operator's and the neurons'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cortexd.fleet.breaker import State
    from cortexd.fleet.lines import Clock
    from cortexd.fleet.orders import Failure, Why
    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.serving import Cause
    from cortexd.fleet.view import NeuronName


class FleetObserver(Protocol):
    """Whoever wants to know."""

    def load_began(
        self, model: ModelId, neuron: NeuronName, evict: tuple[ModelId, ...], expected_ms: int
    ) -> None:
        """A load was decided; these have to leave for it."""

    def load_ended(self, model: ModelId, neuron: NeuronName, took_ms: int) -> None:
        """A load is done, `took_ms` after its decision: the neuron lists the model."""

    def load_failed(
        self, model: ModelId, neuron: NeuronName, failure: Failure, retry_in_ms: int
    ) -> None:
        """A load failed, and is not tried again for so long."""

    def unloaded(self, model: ModelId, neuron: NeuronName, why: Why, cycles: int) -> None:
        """A model is gone from a neuron; `cycles` models have left it since it started."""

    def unload_failed(self, model: ModelId, neuron: NeuronName, why: Why, failure: Failure) -> None:
        """A model was to leave and did not."""

    def restarted(self, neuron: NeuronName) -> None:
        """A neuron has been up for less time than before."""

    def restart_advised(self, neuron: NeuronName, cycles: int) -> None:
        """A neuron has loaded and unloaded so often that its memory may be in pieces."""

    def breaker_changed(self, neuron: NeuronName, state: State) -> None:
        """A neuron's breaker opened or closed."""

    def waited(self, model: ModelId, clock: Clock, waited_ms: int) -> None:
        """A request got its turn after so long on one of the clocks."""

    def unserved(self, model: ModelId, cause: Cause, why: str) -> None:
        """A request is not served, and why."""


class Nobody:
    """An observer that wants to know nothing."""

    def load_began(
        self, model: ModelId, neuron: NeuronName, evict: tuple[ModelId, ...], expected_ms: int
    ) -> None:
        """See `FleetObserver`."""

    def load_ended(self, model: ModelId, neuron: NeuronName, took_ms: int) -> None:
        """See `FleetObserver`."""

    def load_failed(
        self, model: ModelId, neuron: NeuronName, failure: Failure, retry_in_ms: int
    ) -> None:
        """See `FleetObserver`."""

    def unloaded(self, model: ModelId, neuron: NeuronName, why: Why, cycles: int) -> None:
        """See `FleetObserver`."""

    def unload_failed(self, model: ModelId, neuron: NeuronName, why: Why, failure: Failure) -> None:
        """See `FleetObserver`."""

    def restarted(self, neuron: NeuronName) -> None:
        """See `FleetObserver`."""

    def restart_advised(self, neuron: NeuronName, cycles: int) -> None:
        """See `FleetObserver`."""

    def breaker_changed(self, neuron: NeuronName, state: State) -> None:
        """See `FleetObserver`."""

    def waited(self, model: ModelId, clock: Clock, waited_ms: int) -> None:
        """See `FleetObserver`."""

    def unserved(self, model: ModelId, cause: Cause, why: str) -> None:
        """See `FleetObserver`."""
