"""Carries orders out as a neuron would: slowly, sometimes badly, sometimes not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortexd.fleet.orders import Failure, Load, Unload, Wake, Why
from tests.fleetsim import invariants

if TYPE_CHECKING:
    from cortexd.fleet.orders import Order
    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.view import NeuronName
    from tests.fleetsim.machine import Machine
    from tests.fleetsim.simulation import Simulation

HANGS_FOR_MS = 900_000
"""A load of which nothing is heard any more is given up after so long."""


class Job:
    """A load that is being carried out. `was_exact`: the books were, when it was ordered.

    `was_shown`: the neuron has listed the model as loaded once.
    """

    def __init__(self, order: Load, machine: Machine, ordered_ms: int, *, was_exact: bool) -> None:
        """It has been ordered."""
        self.order = order
        self.ordered_ms = ordered_ms
        self.was_exact = was_exact
        self.was_unhealthy = False
        self.was_shown = False
        self.to_evict = list(order.evict)
        self._machine = machine
        self._life = machine.life

    @property
    def is_lost(self) -> bool:
        """Whether its neuron has been unhealthy since, or is another process by now, so that nobody
        counts on it any more.
        """
        return self.was_unhealthy or self._machine.life != self._life

    @property
    def is_shown(self) -> bool:
        """Whether the neuron has listed the model as loaded already, so that it counts as done."""
        held = self._machine.models.get(self.order.spec.model)
        if held is not None and held.status != "loading":
            self.was_shown = True
        return self.was_shown


class Loader:
    """All orders that are being carried out."""

    def __init__(self, sim: Simulation) -> None:
        """There are none."""
        self._sim = sim
        self.jobs: dict[int, Job] = {}
        self.unloading: dict[tuple[NeuronName, ModelId], Unload] = {}

    @property
    def is_busy(self) -> bool:
        """Whether anything is being carried out."""
        return bool(self.jobs or self.unloading)

    def lose(self, neuron: NeuronName) -> None:
        """Nothing is heard any more of what is being loaded there."""
        for job in self.jobs.values():
            job.was_unhealthy = job.was_unhealthy or job.order.neuron == neuron

    def take(self, order: Order) -> None:
        """Begin with an order."""
        sim = self._sim
        match order:
            case Load():
                exact = invariants.books_are_exact(sim, order.neuron)
                machine = sim.machines[order.neuron]
                job = Job(order, machine, sim.now_ms, was_exact=exact)
                self.jobs[order.number] = job
                sim.count("loads")
                sim.count("evictions" if order.evict else "loads into free room")
                sim.after(sim.chance.randrange(1, 50), lambda: self._evict_next(job))
            case Unload():
                self.unloading[order.neuron, order.model] = order
                sim.count(f"unloads, {order.why.value}")
                sim.after(sim.chance.randrange(20, 2_000), lambda: self._unload(order))
            case Wake():
                self._wake(order)

    def _evict_next(self, job: Job) -> None:
        sim = self._sim
        if job.is_lost:
            self._end(job, Failure("not wanted any more"), 0)
            return
        if not job.to_evict:
            self._begin(job)
            return
        model = job.to_evict.pop(0)

        def gone() -> None:
            failure = self._let_go(job.order.neuron, model)
            sim.outcomes.unload_ended(job.order.neuron, model, Why.MAKES_ROOM, failure, sim.now_ms)
            if failure is None:
                self._evict_next(job)
            else:
                self._end(job, Failure(f"{model} did not leave"), 0)

        sim.after(sim.chance.randrange(20, 2_000), gone)

    def _unload(self, order: Unload) -> None:
        sim = self._sim
        failure = self._let_go(order.neuron, order.model)
        del self.unloading[order.neuron, order.model]
        sim.outcomes.unload_ended(order.neuron, order.model, order.why, failure, sim.now_ms)

    def _let_go(self, neuron: NeuronName, model: ModelId) -> Failure | None:
        sim = self._sim
        machine = sim.machines[neuron]
        fails = not sim.is_over and not sim.world.is_calm and sim.chance.random() < 0.03
        if not machine.is_up or fails:
            sim.note(f"{model} does not leave {neuron}")
            return Failure("it does not")
        invariants.nobody_is_cut_off(sim, machine, model)
        machine.drop(model)
        sim.note(f"{model} has left {neuron}")
        return None

    def _begin(self, job: Job) -> None:
        """The neuron gets the call."""
        sim = self._sim
        spec, machine = job.order.spec, sim.machines[job.order.neuron]
        began_ms, life = sim.now_ms, machine.life
        if not machine.is_up:
            sim.after(50, lambda: self._end(job, Failure("no connection"), 0))
            return
        if not machine.take(spec.model, sim.size_mb(spec.model), spec.devices, is_ours=True):
            invariants.what_was_promised_is_there(sim, machine, job)
            sim.after(50, lambda: self._end(job, Failure("out of memory"), 0))
            return
        takes_ms = sim.world.load_ms[spec.model] * sim.chance.uniform(0.7, 1.5)
        ending = sim.chance.random() if not (sim.is_over or sim.world.is_calm) else 1

        def ready() -> None:
            took_ms = sim.now_ms - began_ms
            broke = not machine.is_up or machine.life != life
            if broke or spec.model not in machine.models:
                self._end(job, Failure("the connection broke"), took_ms)
            elif ending < 0.08:
                machine.drop(spec.model)
                self._end(job, Failure("it broke", permanent=ending < 0.03), took_ms)
            else:
                machine.models[spec.model].status = "loaded"  # it is there: nothing may unload it
                if 0.10 < ending < 0.13:  # lost on the way: we hear nothing of it
                    machine.disturbed_ms = sim.now_ms
                    self._end(job, Failure("the answer got lost"), took_ms)
                else:
                    self._end(job, None, took_ms)

        if 0.08 <= ending < 0.10:
            sim.count("hanging loads")
            takes_ms = HANGS_FOR_MS
        sim.after(takes_ms, ready)
        if 0.13 < ending < 0.3:  # it is listed before the call is answered
            sim.after(takes_ms / 2, lambda: self._show_early(job, life))

    def _show_early(self, job: Job, life: int) -> None:
        machine = self._sim.machines[job.order.neuron]
        if machine.is_up and machine.life == life and job.order.spec.model in machine.models:
            job.was_shown = True
            machine.models[job.order.spec.model].status = "loaded"

    def _end(self, job: Job, failure: Failure | None, took_ms: int) -> None:
        sim, model = self._sim, job.order.spec.model
        del self.jobs[job.order.number]
        sim.note(f"load of {model} on {job.order.neuron} ended: {failure}")
        if failure is not None:
            sim.count("failed loads")
        if job.is_lost:
            sim.machines[job.order.neuron].disturbed_ms = sim.now_ms
        sim.outcomes.load_ended(job.order, failure, sim.now_ms, took_ms=took_ms)

    def _wake(self, order: Wake) -> None:
        sim, machine = self._sim, self._sim.machines[order.neuron]
        sim.count("wake-ups")
        if not machine.is_up and sim.chance.random() < 0.7:
            sim.after(sim.chance.randrange(5_000, 60_000), lambda: self._woken(order.neuron))

    def _woken(self, neuron: NeuronName) -> None:
        machine = self._sim.machines[neuron]
        if not machine.is_up:
            machine.start(self._sim.now_ms)
            self._sim.note(f"{neuron} is awake")
