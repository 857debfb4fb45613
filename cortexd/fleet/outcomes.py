"""What polls show and orders lead to: the fleet's state machine hears of it here.

Owns what a new picture, a load that is done and an unload that is done mean for stays, loads and
cycles. Refuses to know who waits (dispatcher.py): it only says what they have to look at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortexd.fleet.orders import Failure, Load, Why
from cortexd.fleet.serving import Cause, Unserved

if TYPE_CHECKING:
    from cortexd.config.schema import Catalogue
    from cortexd.fleet.dispatcher import Dispatcher
    from cortexd.fleet.loads import UnderWay
    from cortexd.fleet.parts import Parts
    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.view import NeuronName, NeuronView


class Outcomes:
    """Where the rest of the daemon says what happened to the fleet. One thread."""

    def __init__(self, parts: Parts, dispatcher: Dispatcher) -> None:
        """Nothing has happened yet."""
        self._parts = parts
        self._dispatcher = dispatcher
        self._uptimes_seconds: dict[NeuronName, float] = {}

    def news(self, neuron: NeuronName, now_ms: int) -> None:
        """A neuron has a new picture on the board."""
        parts, dispatcher = self._parts, self._dispatcher
        view = parts.board.view.neurons[neuron]
        self._note_a_restart(view)
        touched = {stay.residency[1] for stay in parts.residents.on(neuron)}
        for stay in parts.residents.see(view, now_ms):
            dispatcher.begin_stay(stay)
        touched.update(view.models)
        parts.replicas.see(touched)
        parts.planner.heard(view)
        for load, failure in parts.loads.look(view, now_ms):
            self._end_load(load, failure, now_ms)
        dispatcher.stir(touched, now_ms)
        dispatcher.stir_blocked(now_ms)
        dispatcher.advance(now_ms)

    def catalogue(self, catalogue: Catalogue, now_ms: int) -> None:
        """The operator wrote another catalogue."""
        self._parts.planner.know(catalogue)
        self.changed(now_ms)

    def changed(self, now_ms: int) -> None:
        """Something is otherwise that every decision may depend on: pins, drained neurons."""
        self._dispatcher.stir_all(now_ms)
        self._dispatcher.advance(now_ms)

    def tick(self, now_ms: int) -> None:
        """Time has passed."""
        for load, failure in self._parts.loads.take_overdue(now_ms):
            self._end_load(load, failure, now_ms)
        self._dispatcher.advance(now_ms)

    @property
    def wake_at_ms(self) -> int | None:
        """When `tick` has to be called although nothing happens; None: no need to."""
        times = (self._dispatcher.wake_at_ms, self._parts.loads.overdue_ms)
        return min((at_ms for at_ms in times if at_ms is not None), default=None)

    def load_ended(
        self, order: Load, failure: Failure | None, now_ms: int, *, took_ms: int
    ) -> None:
        """The neuron has answered to a load. After a success the next polls have to show it."""
        load = self._parts.loads.ended(order, failure, now_ms, took_ms=took_ms)
        if load is not None and failure is not None:
            self._end_load(load, failure, now_ms)
            self._dispatcher.advance(now_ms)
        self._parts.board.doubt(order.neuron)

    def unload_ended(
        self,
        neuron: NeuronName,
        model: ModelId,
        why: Why,
        failure: Failure | None,
        now_ms: int,
    ) -> None:
        """The neuron has answered to an unload."""
        parts = self._parts
        if failure is None:
            self._count_cycle(neuron, model, why)
            parts.board.withdraw(neuron, model)  # which is news
            return
        stay = parts.residents.get(neuron, model)
        if stay is not None:
            stay.leaving = False
            stay.last_used_ms = now_ms  # an idle one is not tried again at once
            parts.errands.unload_failed(stay, failure.reason)
        parts.observer.unload_failed(model, neuron, why, failure)
        parts.board.doubt(neuron)
        self.changed(now_ms)

    def _end_load(self, load: UnderWay, failure: Failure | None, now_ms: int) -> None:
        """A load is under way no more."""
        parts, loading = self._parts, load.loading
        model, neuron = loading.model, loading.neuron
        if failure is None:
            parts.observer.load_ended(model, neuron, now_ms - loading.since_ms)
            return
        for other in loading.evict:
            stay = parts.residents.get(neuron, other)
            if stay is not None:
                stay.leaving = False
        pause_ms = parts.loads.pause_ms(model, neuron, now_ms)
        parts.observer.load_failed(model, neuron, failure, pause_ms)
        parts.errands.load_failed(model, failure.reason)
        why = "its load failed"
        self._dispatcher.fail(model, Unserved(Cause.LOAD_FAILED, why, pause_ms), now_ms)
        self._dispatcher.stir_all(now_ms)

    def _count_cycle(self, neuron: NeuronName, model: ModelId, why: Why) -> None:
        cycles = self._parts.cycles
        is_time = cycles.unloaded(neuron)
        self._parts.observer.unloaded(model, neuron, why, cycles.count(neuron))
        if is_time:
            self._parts.observer.restart_advised(neuron, cycles.count(neuron))

    def _note_a_restart(self, view: NeuronView) -> None:
        """A neuron that has been up for less time than before has lost its caches, and its memory
        is in one piece again.
        """
        if view.uptime_seconds is None:
            return
        before = self._uptimes_seconds.get(view.name, 0)
        self._uptimes_seconds[view.name] = view.uptime_seconds
        if view.uptime_seconds < before:
            self._parts.cycles.restarted(view.name)
            self._parts.replicas.affinity.forget(view.name)
            self._parts.observer.restarted(view.name)
