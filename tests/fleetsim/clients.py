"""A client: it comes, waits or is served, is moved to another neuron, hangs up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortexd.fleet.breaker import Verdict
from cortexd.fleet.lines import Waiting
from cortexd.fleet.serving import Serving, Unserved
from tests.fleetsim import invariants

if TYPE_CHECKING:
    from cortexd.fleet.lines import Wanted
    from cortexd.fleet.situation import Residency
    from cortexd.fleet.view import NeuronName
    from tests.fleetsim.simulation import Simulation


class Client:
    """One request. `outcome` None: it is not over.

    `owed_by`: the residency that appeared while it waited, which may not leave before one of those
    that waited had something of it.
    """

    def __init__(
        self, sim: Simulation, wanted: Wanted, *, first_ms: int, rest_ms: int, breaks: bool
    ) -> None:
        """It will have its first byte, and then the rest, after so long."""
        self.sim = sim
        self.wanted = wanted
        self.first_ms = first_ms
        self.rest_ms = rest_ms
        self.breaks = breaks
        self.entered_ms = sim.now_ms
        self.waiting: Waiting | None = None
        self.serving: Serving | None = None
        self.has_byte = False
        self.notified = 0
        self.outcome: str | None = None
        self.tried: set[NeuronName] = set()
        self.owed_by: Residency | None = None
        self._attempt = 0

    @property
    def is_waiting(self) -> bool:
        """Whether the fleet owes it an answer."""
        return self.waiting is not None and self.waiting.answer is None and self.outcome is None

    @property
    def is_owed(self) -> bool:
        """Whether it still waits for what was loaded for it, or for its first byte of that."""
        refused = self.waiting is not None and isinstance(self.waiting.answer, Unserved)
        return self.outcome is None and not self.has_byte and not refused

    def enter(self) -> None:
        """Ask the fleet."""
        sim = self.sim
        due = sim.due
        answer = sim.dispatcher.enter(self.wanted, sim.now_ms, self._notify)
        match answer:
            case Serving():
                invariants.what_matters_is_said(sim, due, self)
                self._send(answer)
            case Unserved():
                self._refused(answer)
            case Waiting():
                self.waiting = answer
                sim.watch_wait(self)

    def hang_up(self) -> None:
        """Whatever it was doing, it is gone."""
        if self.outcome is not None:
            return
        sim = self.sim
        if self.waiting is not None and self.serving is None:
            answer = self.waiting.answer
            sim.dispatcher.leave(self.waiting, sim.now_ms)
            if isinstance(answer, Serving):  # answered, and it has not heard of it
                self._tell_the_end(answer, None)
        elif self.serving is not None:
            self._end(Verdict.UNKNOWN)
        self._over("hung up")

    def break_off(self) -> None:
        """Its neuron is gone."""
        self._failed(self._attempt)

    def _notify(self) -> None:
        self.notified += 1
        if self.waiting is not None and isinstance(self.waiting.answer, Serving):
            self.sim.turns.served(self)
        self.sim.after(0, self._hear)

    def _hear(self) -> None:
        if self.outcome is not None:
            return
        assert self.waiting is not None, "nobody is told who does not wait"
        answer = self.waiting.answer
        self.sim.dispatcher.leave(self.waiting, self.sim.now_ms)
        if isinstance(answer, Serving):
            self._send(answer)
        else:
            assert answer is not None, "told without an answer"
            self._refused(answer)

    def _send(self, serving: Serving) -> None:
        self.serving = serving
        self._attempt += 1
        attempt = self._attempt
        machine = self.sim.machines[serving.route.neuron]
        if not machine.can_answer(self.wanted.model) or (self.breaks and not self.tried):
            self.sim.after(20, lambda: self._failed(attempt))
            return
        machine.clients[self] = self.wanted.model
        self.sim.after(self.first_ms, lambda: self._first_byte(attempt))

    def _first_byte(self, attempt: int) -> None:
        if attempt != self._attempt or self.serving is None:
            return
        self.has_byte = True
        self.sim.dispatcher.first_byte(self.serving)
        self.sim.paid(self)
        self.sim.after(self.rest_ms, lambda: self._done(attempt))

    def _done(self, attempt: int) -> None:
        if attempt == self._attempt and self.serving is not None:
            self._end(Verdict.WORKED)
            self._over("served")

    def _failed(self, attempt: int) -> None:
        if attempt != self._attempt or self.serving is None:
            return
        self.tried.add(self.serving.route.neuron)
        self._end(Verdict.UNKNOWN if self.has_byte else Verdict.FAILED)
        if self.has_byte:
            self._over("broken")
            return
        sim = self.sim
        other = sim.dispatcher.elsewhere(self.wanted, self.tried, sim.now_ms)
        if other is None:
            self._over("no other")
        else:
            self._send(other)

    def _end(self, verdict: Verdict) -> None:
        assert self.serving is not None, "only what was begun can end"
        serving, self.serving = self.serving, None
        self._attempt += 1
        self.sim.machines[serving.route.neuron].clients.pop(self, None)
        self._tell_the_end(serving, verdict)

    def _tell_the_end(self, serving: Serving, verdict: Verdict | None) -> None:
        due = self.sim.due
        if not self.sim.dispatcher.end(serving, verdict, self.sim.now_ms):
            invariants.what_matters_is_said(self.sim, due, self)

    def _refused(self, answer: Unserved) -> None:
        self.sim.check_refusal(self, answer)
        self._over(answer.cause.value)

    def _over(self, outcome: str) -> None:
        self.outcome = outcome
        self.owed_by = None
        self.sim.gone(self)
