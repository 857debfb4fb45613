"""Who is served where, who waits for it, and what becomes of them.

Owns the lines of waiting requests. It is told what requests do, that something changed
(outcomes.py), and that time passed; it says when to look again (`wake_at_ms`). Refuses to know
tasks, sockets and clocks: time comes in, in milliseconds that never go back. So it can be run for
weeks in a second, which is how it is tested.

Theory of operation. A request that finds a free replica goes to it at once. Else it joins the line
of its model, which runs one of two clocks: the queue clock while a neuron serves the model, the
load clock while none does. Every event ends in `advance`:

    requests out of time       are told which clock ran out
    lines of served models     hand out turns while a replica is free
    lines of the others        the planner decides: ride a load, begin one, make room, or give up

Decisions are dear (a millisecond to tens of them), so one that would come out the same is not made
again: events mark the lines that they matter to, and whatever only *may* matter waits until
`DECIDE_AGAIN_MS` have passed since the last decision on that line. No more than
`DECISIONS_AT_ONCE` are made without a break: the rest is due at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortexd.fleet.lines import Clock, Limit, Line, Waiting
from cortexd.fleet.planner import Held, Need, Ride
from cortexd.fleet.serving import Cause, Serving, Unserved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Set

    from cortexd.fleet.breaker import Verdict
    from cortexd.fleet.fair_queue import Full
    from cortexd.fleet.lines import Patience, Wanted
    from cortexd.fleet.orders import Order
    from cortexd.fleet.parts import Parts
    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.residents import Resident
    from cortexd.fleet.view import NeuronName

DECIDE_AGAIN_MS = 250
"""How long a decision on a line stands although something happened that may change it; longer
where many lines wait, so that all of them together cost no more than a few.
"""

DECISIONS_AT_ONCE = 4
"""After so many, the daemon's other tasks get their turn."""

QUEUE_RETRY_MS = 5_000
"""When to come back after a queue that was full or too slow: nobody knows, so often enough."""

_NOBODY: frozenset[NeuronName] = frozenset()


class Dispatcher:
    """The lines of a fleet."""

    def __init__(self, parts: Parts, patience: Patience) -> None:
        """Nobody waits yet."""
        self._parts = parts
        self._patience = patience
        self._lines: dict[ModelId, Line] = {}
        self._decide_at_ms: dict[ModelId, int] = {}
        self._decided_ms: dict[ModelId, int] = {}
        self._idle_at_ms: int | None = None
        self._look_at_ms: int | None = None

    # Requests.

    def serve(self, wanted: Wanted, now_ms: int) -> Serving | None:
        """A request comes that can be served at once; None: it has to `enter`.

        It changes nothing that anybody waits for, so that `wake_at_ms` and the orders stay as they
        are. Who comes while others wait has to wait as well.
        """
        return None if wanted.model in self._lines else self._serve(wanted, now_ms)

    def enter(
        self, wanted: Wanted, now_ms: int, notify: Callable[[], None]
    ) -> Serving | Unserved | Waiting:
        """A request comes. If it has to wait, `notify` is called once there is an answer.

        Whatever comes of it: a `Serving` has to be ended, a `Waiting` to be left.
        """
        serving = self.serve(wanted, now_ms)
        if serving is not None:
            return serving
        line = self._lines.get(wanted.model)
        if line is None:
            opened = self._open(wanted.model, now_ms)
            if isinstance(opened, Unserved):
                return self._told(wanted.model, opened)
            line = opened
        waiting = Waiting(wanted, now_ms, notify)
        full = line.add(waiting)
        if full is not None:
            return self._told(wanted.model, _full(full))
        hopeless = self._hopeless(wanted, line, now_ms)
        if hopeless is not None:
            line.remove(waiting, now_ms)
            self._drop_if_empty(wanted.model, now_ms)
            return self._told(wanted.model, hopeless)
        return waiting

    def leave(self, waiting: Waiting, now_ms: int) -> None:
        """A request that waits is wanted no more. One that was answered is none of ours."""
        model = waiting.wanted.model
        line = self._lines.get(model)
        if waiting.answer is None and line is not None and line.remove(waiting, now_ms):
            _give_back(waiting)
            self._drop_if_empty(model, now_ms)

    def elsewhere(self, wanted: Wanted, tried: Set[NeuronName], now_ms: int) -> Serving | None:
        """Another replica for a request that got nothing where it was; None: none is free.

        It has had its turn, so it does not wait for another one.
        """
        return self._serve(wanted, now_ms, tried)

    def first_byte(self, serving: Serving) -> None:
        """The client has something of its answer."""
        if serving.lease is not None:
            serving.lease.give_back(served=True)
            serving.lease = None

    def end(self, serving: Serving, verdict: Verdict | None, now_ms: int) -> bool:
        """A request is with its neuron no more; what that proved, None: it was not sent.

        Returns whether that may matter to others; if not, `wake_at_ms` and the orders stay as they
        are.
        """
        if serving.lease is not None:
            serving.lease.give_back(served=False)
            serving.lease = None
        stay, neuron = serving.resident, serving.route.neuron
        stay.end(now_ms)
        replicas = self._parts.replicas
        state = replicas.end(neuron, serving.ticket, verdict, now_ms)
        if state is not None:
            self._parts.observer.breaker_changed(neuron, state)
        if not self._lines and stay.admits:
            return False  # nobody waits for a turn, for its place, or for it to be gone
        was_in_trouble = state is not None or neuron in replicas.breakers.not_closed
        if was_in_trouble:
            self.stir((other.residency[1] for other in self._parts.residents.on(neuron)), now_ms)
        model = stay.residency[1]
        has_line = model in self._lines
        if has_line:
            self._hand_out(model, now_ms)
        if stay.in_flight == 0:
            self.stir_blocked(now_ms, at_once=stay.draining_for)
            if not stay.admits:
                self._parts.errands.look(now_ms)
        return was_in_trouble or has_line or stay.in_flight == 0

    # Changes.

    def stir(self, models: Iterable[ModelId], now_ms: int) -> None:
        """The next `advance` has to look at the lines of these models."""
        for model in models:
            if model in self._lines:
                self._decide_at_ms[model] = now_ms

    def stir_all(self, now_ms: int) -> None:
        """Something is otherwise on which every decision may depend."""
        self.stir(tuple(self._lines), now_ms)
        self._idle_at_ms = None

    def stir_blocked(self, now_ms: int, *, at_once: ModelId | None = None) -> None:
        """Something may have changed for lines that wait for a load; for one it surely has."""
        blocked = [model for model, line in self._lines.items() if line.clock is Clock.LOAD]
        stands_ms = DECIDE_AGAIN_MS * -(-len(blocked) // DECISIONS_AT_ONCE)
        for model in blocked:
            due_ms = self._decided_ms.get(model, now_ms) + stands_ms
            due_ms = now_ms if model == at_once else max(due_ms, now_ms)
            before_ms = self._decide_at_ms.get(model, due_ms)
            self._decide_at_ms[model] = min(before_ms, due_ms)

    def begin_stay(self, stay: Resident) -> None:
        """A model is there: nobody takes its place before one of those who wait got something."""
        self._idle_at_ms = None
        line = self._lines.get(stay.residency[1])
        if line is None:
            return
        for waiting in line:
            _give_back(waiting)
            waiting.lease = stay
        stay.lease(len(line))

    def fail(self, model: ModelId, answer: Unserved, now_ms: int) -> None:
        """Tell everybody who waits for a model that it is not served, and why."""
        line = self._lines.get(model)
        if line is None:
            return
        for waiting in line:
            line.remove(waiting, now_ms)
            _give_back(waiting)
            waiting.end_with(self._told(model, answer))
        self._drop_if_empty(model, now_ms)

    def advance(self, now_ms: int) -> None:
        """See the theory of operation. The line that has waited longest for a turn comes first."""
        self._expire(now_ms)
        for model in self._due(now_ms)[:DECISIONS_AT_ONCE]:
            if model in self._decide_at_ms:  # a decision can be the end of other lines
                self._decide(model, now_ms)
        errands = self._parts.errands
        if errands.wake_at_ms is not None and errands.wake_at_ms <= now_ms:
            errands.step(self.waiting(), now_ms)
        planner = self._parts.planner
        if self._idle_at_ms is None or self._idle_at_ms <= now_ms:
            self._idle_at_ms = planner.unload_idle(self.waiting(), now_ms)
        cold = {model for model, line in self._lines.items() if line.clock is Clock.LOAD}
        planner.keep_drains(cold | errands.wanted())
        self._look_at_ms = None
        for model in self._parts.residents.take_reopened():
            if model in self._lines:
                self._hand_out(model, now_ms)

    @property
    def wake_at_ms(self) -> int | None:
        """When to `advance` although nothing happens; None: no need to."""
        times = [line.deadline_ms for line in self._lines.values()]
        times += [*self._decide_at_ms.values(), self._look_at_ms, self._idle_at_ms]
        times.append(self._parts.errands.wake_at_ms)
        return min((at_ms for at_ms in times if at_ms is not None), default=None)

    @property
    def has_orders(self) -> bool:
        """Whether something has to be done."""
        return self._parts.planner.has_orders or self._parts.errands.has_orders

    def take_orders(self) -> list[Order]:
        """What has to be done, since the last call."""
        return self._parts.planner.take_orders() + self._parts.errands.take_orders()

    # What can be seen.

    def waiting(self) -> dict[ModelId, int]:
        """How many requests wait for each model, where any do."""
        return {model: len(line) for model, line in self._lines.items()}

    def lines(self) -> dict[ModelId, Line]:
        """The lines as they are."""
        return dict(self._lines)

    # How.

    def _serve(
        self, wanted: Wanted, now_ms: int, tried: Set[NeuronName] = _NOBODY
    ) -> Serving | None:
        replicas = self._parts.replicas
        chosen = replicas.choose(wanted.model, wanted.marks, tried, now_ms)
        if chosen is None:
            return None
        route = chosen.route
        ticket = replicas.begin(route.neuron, wanted.marks, now_ms)
        chosen.stay.begin(now_ms)
        return Serving(route, chosen.stay, ticket)

    def _open(self, model: ModelId, now_ms: int) -> Line | Unserved:
        """A line for a model that has none; or why nobody need wait for it."""
        if self._parts.replicas.is_served(model):
            line = self._lines[model] = Line(self._patience, Clock.QUEUE, now_ms)
            self._await_breakers(model, now_ms)
            return line
        need = Need(model, now_ms)
        decision = self._parts.planner.decide(need, self.waiting(), now_ms)
        self._look_at_ms = now_ms  # it may have changed who makes room for whom
        if isinstance(decision, Unserved):
            return decision
        line = self._lines[model] = Line(self._patience, Clock.LOAD, now_ms)
        self._note(model, decision, now_ms)
        return line

    def _hopeless(self, wanted: Wanted, line: Line, now_ms: int) -> Unserved | None:
        """Whether a client that sees nothing meanwhile had better come back later."""
        if wanted.streams or line.clock is Clock.QUEUE:
            return None
        eta_ms = self._parts.loads.eta_ms(wanted.model, now_ms)
        if eta_ms is None or eta_ms <= self._patience.plain_ms - wanted.waited_in_all_ms:
            return None
        return Unserved(Cause.LOADING, "it is being loaded", eta_ms)

    def _due(self, now_ms: int) -> list[ModelId]:
        due = [model for model, at_ms in self._decide_at_ms.items() if at_ms <= now_ms]
        return sorted(due, key=lambda model: (self._since_ms(model), model))

    def _decide(self, model: ModelId, now_ms: int) -> None:
        line = self._lines[model]
        del self._decide_at_ms[model]
        if self._parts.replicas.is_served(model):
            line.run(Clock.QUEUE, now_ms)
            self._hand_out(model, now_ms)
            if model in self._lines:
                self._await_breakers(model, now_ms)
            return
        line.run(Clock.LOAD, now_ms)
        need = Need(model, self._since_ms(model))
        decision = self._parts.planner.decide(need, self.waiting(), now_ms)
        if isinstance(decision, Unserved):
            self.fail(model, decision, now_ms)
        else:
            self._note(model, decision, now_ms)

    def _await_breakers(self, model: ModelId, now_ms: int) -> None:
        """A breaker lets the next request pass without any event."""
        retry_in_ms = self._parts.replicas.retry_in_ms(model, now_ms)
        if retry_in_ms is not None:
            self._decide_at_ms[model] = now_ms + retry_in_ms

    def _note(self, model: ModelId, decision: Ride | Held, now_ms: int) -> None:
        self._decided_ms[model] = now_ms
        again_ms = decision.ask_again_ms if isinstance(decision, Held) else None
        if again_ms is not None:
            self._decide_at_ms[model] = max(again_ms, now_ms + 1)

    def _hand_out(self, model: ModelId, now_ms: int) -> None:
        """Give turns for as long as a replica is free."""
        line, replicas = self._lines[model], self._parts.replicas
        while line and replicas.has_room(model, now_ms):
            waiting = line.take(now_ms)
            assert waiting is not None, "a line that is not empty has a next one"
            serving = self._serve(waiting.wanted, now_ms)
            assert serving is not None, "there was room a moment ago"
            serving.lease, waiting.lease = waiting.lease, None
            serving.waited_ms = dict(waiting.spent_ms)
            before_ms = dict(waiting.wanted.waited_ms)  # of which was told already
            for clock, waited_ms in serving.waited_ms.items():
                since_ms = waited_ms - before_ms.get(clock, 0)
                if since_ms:
                    self._parts.observer.waited(model, clock, since_ms)
            waiting.end_with(serving)
        self._drop_if_empty(model, now_ms)

    def _expire(self, now_ms: int) -> None:
        for model, line in tuple(self._lines.items()):
            for waiting, limit in line.take_expired(now_ms):
                _give_back(waiting)
                answer = self._out_of_time(waiting, line.clock, limit, now_ms)
                waiting.end_with(self._told(model, answer))
            self._drop_if_empty(model, now_ms)

    def _out_of_time(self, waiting: Waiting, clock: Clock, limit: Limit, now_ms: int) -> Unserved:
        waited_ms = waiting.wanted.waited_in_all_ms + now_ms - waiting.since_ms
        seconds = round(waited_ms / 1000)
        if clock is Clock.QUEUE:
            why = f"its turn did not come within {seconds} s"
            return Unserved(Cause.QUEUE_CLOCK, why, QUEUE_RETRY_MS)
        eta_ms = self._parts.loads.eta_ms(waiting.wanted.model, now_ms)
        cause = Cause.LOAD_CLOCK if limit is Limit.LOAD else Cause.LOADING
        return Unserved(cause, f"it was not loaded within {seconds} s", eta_ms or QUEUE_RETRY_MS)

    def _drop_if_empty(self, model: ModelId, now_ms: int) -> None:
        line = self._lines.get(model)
        if line is not None and not line:
            del self._lines[model]
            self._decide_at_ms.pop(model, None)
            self._decided_ms.pop(model, None)
            if line.clock is Clock.LOAD:
                self._look_at_ms = now_ms  # whoever made room for it need not any more

    def _since_ms(self, model: ModelId) -> int:
        """Since when somebody waits for the model's next turn.

        Not since the oldest request came: a model that just had a turn would have the next one too
        for as long as it has a backlog, and who waits for another would starve behind the two.
        """
        line = self._lines[model]
        since_ms = line.oldest_since_ms
        assert since_ms is not None, "a line without anybody is dropped"
        return max(since_ms, line.clock_since_ms)

    def _told(self, model: ModelId, answer: Unserved) -> Unserved:
        self._parts.observer.unserved(model, answer.cause, answer.why)
        return answer


def _give_back(waiting: Waiting) -> None:
    """It gets nothing of what was loaded for it."""
    if waiting.lease is not None:
        waiting.lease.give_back(served=False)
        waiting.lease = None


def _full(full: Full) -> Unserved:
    if full.is_full_for_all:
        why = f"{full.waiting} requests wait for it already"
    else:
        why = f"this key has {full.of_key} requests waiting for it, and others get the rest"
    return Unserved(Cause.QUEUE_FULL, why, QUEUE_RETRY_MS)
