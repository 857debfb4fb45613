"""The event loop: virtual time, the state machine under test, and what is checked at every step.

Nothing waits here. Whatever happens is put on a heap with the time at which it does; the machine is
ticked when it said it has to be, and never otherwise, so that a wake-up which it forgets to ask for
is one that it does not get.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from cortexd.fleet.board import Board
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.lines import patience_of
from cortexd.fleet.observer import Nobody
from cortexd.fleet.outcomes import Outcomes
from cortexd.fleet.parts import parts_of
from cortexd.fleet.reports import ModelId
from tests.fleetsim import invariants, life
from tests.fleetsim.loader import Loader
from tests.fleetsim.machine import Machine
from tests.fleetsim.polls import INTERVAL_MS, Polls
from tests.fleetsim.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Callable

    from cortexd.fleet.serving import Unserved
    from cortexd.fleet.situation import Residency
    from cortexd.fleet.view import NeuronName
    from tests.fleetsim.clients import Client
    from tests.fleetsim.world import World

TRACE_EVENTS = 60
STEPS_MAX = 300_000
TICKS_IN_A_SECOND_MAX = 400
QUIET_MS = 7_200_000
"""After the last request everything has to come to rest within so long."""


class Simulation:
    """One run."""

    def __init__(self, world: World, seed: int) -> None:
        """A fleet that nobody has polled yet."""
        self.world = world
        self.chance = random.Random(f"run {world.kind} {seed}")
        self.now_ms = 1_000_000
        self.end_ms = self.now_ms + world.horizon_ms
        self.is_over = False
        self.tally: Counter[str] = Counter()
        self.trace: deque[str] = deque(maxlen=TRACE_EVENTS)
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._events = 0
        self._second = (0, 0)
        self._noted = ("", 0)
        self.board = Board(world.config.neurons)
        self.parts = parts_of(world.config, self.board, Nobody())
        self.patience = patience_of(world.config.waiting)
        self.dispatcher = Dispatcher(self.parts, self.patience)
        self.outcomes = Outcomes(self.parts, self.dispatcher)
        self.machines = {host.name: Machine(host, self.now_ms) for host in world.hosts}
        self.clients: dict[Client, None] = {}
        self.wait_limits: list[tuple[int, int, Client]] = []
        self.owed: dict[Residency, dict[Client, None]] = {}
        self.seen_ms: dict[Residency, int] = {}
        self.idle_since_ms: dict[Residency, int] = {}
        self.errands_over = 0
        self.turns = invariants.FairTurns(self.patience.quantum_tokens)
        self.loader = Loader(self)
        self.polls = Polls(self)
        self.board.tell(self._news)
        self.outcomes.catalogue(world.catalogue, self.now_ms)

    # What the rest of the world does.

    def after(self, delay_ms: float, do: Callable[[], None]) -> None:
        """Have something done later; 0: right after what is being done now."""
        self._events += 1
        heappush(self._heap, (self.now_ms + round(delay_ms), self._events, do))

    def note(self, event: str) -> None:
        """Remember an event for the trace of a run that fails."""
        if event == self._noted[0]:
            self._noted = event, self._noted[1] + 1
            self.trace[-1] = f"{self.now_ms:>9} {event} ({self._noted[1]} times)"
        else:
            self._noted = event, 1
            self.trace.append(f"{self.now_ms:>9} {event}")

    def count(self, what: str) -> None:
        """One more of these."""
        self.tally[what] += 1

    @property
    def due(self) -> tuple[int | None, bool]:
        """When the machine wants to be ticked, and whether it wants something done."""
        return self.outcomes.wake_at_ms, self.dispatcher.has_orders

    def size_mb(self, model: ModelId) -> int:
        """What a model really takes."""
        return self.world.true_mb.get(model, 4_000)

    def run(self) -> Counter[str]:
        """From the first poll until everything is at rest. Raises Violation."""
        try:
            self.polls.begin()
            life.begin(self)
            self._go_on(lambda: not self._heap or self.now_ms >= self.end_ms)
            life.end(self)
            self._go_on(self._is_quiet)
            self.end_ms = self.now_ms + 2 * INTERVAL_MS
            self._go_on(lambda: self.now_ms >= self.end_ms)  # everybody has been polled once more
            self.polls.stop()
            self._go_on(lambda: self.now_ms > self.end_ms + 2 * QUIET_MS)
            invariants.at_rest(self)
        except Violation:
            raise
        except AssertionError as error:
            raise Violation("the_machine_trusts_itself", str(error)) from error
        except (KeyError, ValueError, IndexError, RecursionError) as error:
            raise Violation("nothing_raises", f"{type(error).__name__}: {error}") from error
        return self.tally

    # What clients tell.

    def watch_wait(self, client: Client) -> None:
        """A client begins to wait."""
        limit_ms = self.patience.queue_ms + self.patience.load_ms
        if not client.wanted.streams:
            limit_ms = min(limit_ms, self.patience.plain_ms)
        heappush(self.wait_limits, (self.now_ms + limit_ms, self._events, client))
        self._events += 1
        self.turns.joined(client, self.dispatcher.lines()[client.wanted.model])

    def paid(self, client: Client) -> None:
        """A client has its first byte: what was loaded for it and others may leave."""
        if client.owed_by is not None:
            self.owed.pop(client.owed_by, None)

    def gone(self, client: Client) -> None:
        """A client is gone."""
        self.clients.pop(client, None)
        self.count(client.outcome or "")
        self.turns.gone(client)
        for waiters in self.owed.values():
            waiters.pop(client, None)

    def check_refusal(self, client: Client, answer: Unserved) -> None:
        """A client is told that it is not served."""
        self.note(f"{client.wanted.model} refused {client.wanted.key}: {answer.cause.value}")
        invariants.refused_in_time(self, client, answer)

    def _news(self, name: NeuronName) -> None:
        view = self.board.view.neurons[name]
        if not view.healthy:
            self.loader.lose(name)
        for model, offer in view.models.items():
            residency = (name, model)
            if offer.status.resident and residency not in self.seen_ms:
                self.seen_ms[residency] = self.now_ms
                self._owe(residency)
        for residency in [each for each in self.seen_ms if each[0] == name]:
            offer_now = view.models.get(residency[1])
            if offer_now is None or not offer_now.status.resident:
                del self.seen_ms[residency]
                self.owed.pop(residency, None)
        self.outcomes.news(name, self.now_ms)

    def _owe(self, residency: Residency) -> None:
        model = residency[1]
        waiters = [each for each in self.clients if each.wanted.model == model and each.is_waiting]
        if not waiters:
            return
        for client in waiters:
            for others in self.owed.values():
                others.pop(client, None)
            client.owed_by = residency
        self.owed[residency] = dict.fromkeys(waiters)

    # The loop.

    def _go_on(self, until: Callable[[], bool]) -> None:
        for _ in range(STEPS_MAX):
            if until():
                return
            wake_ms = self.outcomes.wake_at_ms
            next_ms = self._heap[0][0] if self._heap else None
            if wake_ms is not None and (next_ms is None or wake_ms <= next_ms):
                self.now_ms = max(self.now_ms, wake_ms)
                self._count_ticks()
                self.outcomes.tick(self.now_ms)
            elif next_ms is not None:
                self.now_ms = next_ms
                heappop(self._heap)[2]()
            else:
                return
            for order in self.dispatcher.take_orders():
                self.note(f"order {order}")
                invariants.on_order(self, order)
                self.loader.take(order)
            invariants.at_every_step(self)
            self.count("steps")
        raise Violation("it_comes_to_rest", f"{STEPS_MAX} steps and no end")

    def _count_ticks(self) -> None:
        second = self.now_ms // 1000
        ticks = self._second[1] + 1 if self._second[0] == second else 1
        self._second = (second, ticks)
        if ticks > TICKS_IN_A_SECOND_MAX:
            raise Violation("it_does_not_spin", f"{ticks} wake-ups in one second")

    def _is_quiet(self) -> bool:
        if self.now_ms > self.end_ms + QUIET_MS:
            left = [f"{each.wanted.model} {each.is_waiting}" for each in self.clients]
            raise Violation("it_comes_to_rest", f"still there: {left}, {self.loader.jobs}")
        rested_ms = self.end_ms + 60_000
        return self.now_ms > rested_ms and not self.clients and not self.loader.is_busy
