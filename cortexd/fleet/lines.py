"""The requests that wait for one model, and their two clocks.

Owns how long a request may wait: for its turn at a loaded model (the queue clock), for the model
to be loaded (the load clock), and in all if its client sees nothing meanwhile. A line runs one of
the two clocks at a time; a request's time on the other one stands still and is not forgotten.
Refuses to know whose turn it is (fair_queue.py) and what would end the wait (dispatcher.py).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

from cortexd.fleet.fair_queue import FairQueue, Full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cortexd.config.schema import Waiting as WaitingSettings
    from cortexd.fleet.affinity import Mark
    from cortexd.fleet.fair_queue import Ticket
    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.residents import Resident
    from cortexd.fleet.serving import Serving, Unserved


class Clock(enum.Enum):
    """What a request waits for; the values are words for a log and a metric."""

    QUEUE = "queue"
    LOAD = "load"


class Limit(enum.Enum):
    """Which limit of a wait ran out. PLAIN: that of a client which sees nothing while it waits."""

    QUEUE = "queue"
    LOAD = "load"
    PLAIN = "plain"


class Patience(msgspec.Struct, frozen=True):
    """How long requests may wait, in milliseconds, and how many of them for one model."""

    queue_ms: int
    load_ms: int
    plain_ms: int
    requests_max: int
    quantum_tokens: int

    def limit_ms(self, clock: Clock) -> int:
        """The limit of one clock."""
        return self.queue_ms if clock is Clock.QUEUE else self.load_ms


def patience_of(settings: WaitingSettings) -> Patience:
    """The settings in milliseconds."""
    return Patience(
        queue_ms=round(settings.queue_seconds * 1000),
        load_ms=round(settings.load_seconds * 1000),
        plain_ms=round(settings.plain_wait_seconds * 1000),
        requests_max=settings.requests_max,
        quantum_tokens=settings.quantum_tokens,
    )


class Wanted(msgspec.Struct, frozen=True):
    """What a request needs of the fleet. `key`: who queues; `cost_tokens`: the most it can cost.

    `streams`: its client is told that it waits. `marks`: of its conversation (affinity.py).
    `waited_ms`: on each clock already, before a turn that came to nothing.
    """

    model: ModelId
    key: str
    cost_tokens: int
    weight: float = 1
    streams: bool = True
    marks: tuple[Mark, ...] = ()
    waited_ms: tuple[tuple[Clock, int], ...] = ()

    @property
    def waited_in_all_ms(self) -> int:
        """How long it has waited already."""
        return sum(waited_ms for _, waited_ms in self.waited_ms)


class Waiting:
    """A request that waits. `answer` is set once, then `notify` is called.

    `lease`: the residency that was loaded for it, until it has its first byte.
    """

    __slots__ = ("answer", "lease", "notify", "since_ms", "spent_ms", "ticket", "wanted")

    def __init__(self, wanted: Wanted, since_ms: int, notify: Callable[[], None]) -> None:
        """Begin to wait at `since_ms`; a line gives the ticket."""
        self.wanted = wanted
        self.since_ms = since_ms
        self.notify = notify
        self.spent_ms = dict.fromkeys(Clock, 0) | dict(wanted.waited_ms)
        self.ticket: Ticket | None = None
        self.answer: Serving | Unserved | None = None
        self.lease: Resident | None = None

    def end_with(self, answer: Serving | Unserved) -> None:
        """Say what came of it."""
        assert self.answer is None, "a request was answered twice"
        self.answer = answer
        self.notify()


class Line:
    """Who waits for one model. Never kept empty for long: its owner drops it then."""

    __slots__ = ("_deadline_ms", "_members", "_patience", "_queue", "clock", "clock_since_ms")

    def __init__(self, patience: Patience, clock: Clock, now_ms: int) -> None:
        """Begin with nobody waiting, and the given clock running."""
        self._patience = patience
        self._queue: FairQueue[Waiting] = FairQueue(patience.quantum_tokens, patience.requests_max)
        self._members: dict[int, Waiting] = {}
        self._deadline_ms: int | None = None
        self.clock = clock
        self.clock_since_ms = now_ms

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(tuple(self._members.values()))

    @property
    def oldest_since_ms(self) -> int | None:
        """Since when the first one waits; None: nobody does."""
        return self._queue.oldest_since_ms

    @property
    def deadline_ms(self) -> int | None:
        """Not later than the first limit that runs out; None: nobody waits."""
        return self._deadline_ms

    def add(self, waiting: Waiting) -> Full | None:
        """Let a request wait; or say that there is no place for it."""
        wanted = waiting.wanted
        ticket = self._queue.add(
            wanted.key,
            waiting,
            cost_tokens=wanted.cost_tokens,
            now_ms=waiting.since_ms,
            weight=wanted.weight,
        )
        if isinstance(ticket, Full):
            return ticket
        waiting.ticket = ticket
        self._members[ticket.number] = waiting
        self._notice(self._limit_of(waiting)[0])
        return None

    def take(self, now_ms: int) -> Waiting | None:
        """The request whose turn it is; it waits no longer."""
        waiting = self._queue.take()
        if waiting is not None:
            self._forget(waiting, now_ms)
        return waiting

    def remove(self, waiting: Waiting, now_ms: int) -> bool:
        """Let a request go that is not served; False when it did not wait any more."""
        if waiting.ticket is None or not self._queue.remove(waiting.ticket):
            return False
        self._forget(waiting, now_ms)
        return True

    def run(self, clock: Clock, now_ms: int) -> None:
        """Run this clock from now on; the other one stops for everybody."""
        if clock is self.clock:
            return
        for waiting in self._members.values():
            self._stop(waiting, now_ms)
        self.clock, self.clock_since_ms = clock, now_ms
        self._deadline_ms = None
        for waiting in self._members.values():
            self._notice(self._limit_of(waiting)[0])

    def take_expired(self, now_ms: int) -> list[tuple[Waiting, Limit]]:
        """Let all go whose time is up, and say which limit it was."""
        if self._deadline_ms is None or now_ms < self._deadline_ms:
            return []
        limits = [(waiting, *self._limit_of(waiting)) for waiting in self]
        expired = [(waiting, limit) for waiting, at_ms, limit in limits if at_ms <= now_ms]
        for waiting, _ in expired:
            self.remove(waiting, now_ms)
        self._deadline_ms = min((at_ms for _, at_ms, _ in limits if at_ms > now_ms), default=None)
        return expired

    def _limit_of(self, waiting: Waiting) -> tuple[int, Limit]:
        """When which limit of a request runs out if nothing changes."""
        patience = self._patience
        began_ms = max(waiting.since_ms, self.clock_since_ms)
        left_ms = patience.limit_ms(self.clock) - waiting.spent_ms[self.clock]
        own = began_ms + left_ms, Limit(self.clock.value)
        if waiting.wanted.streams:
            return own
        left_ms = patience.plain_ms - waiting.wanted.waited_in_all_ms
        plain = waiting.since_ms + left_ms, Limit.PLAIN
        return min(own, plain, key=lambda each: each[0])

    def _stop(self, waiting: Waiting, now_ms: int) -> None:
        began_ms = max(waiting.since_ms, self.clock_since_ms)
        waiting.spent_ms[self.clock] += max(0, now_ms - began_ms)

    def _forget(self, waiting: Waiting, now_ms: int) -> None:
        assert waiting.ticket is not None, "only who waits can be forgotten"
        del self._members[waiting.ticket.number]
        self._stop(waiting, now_ms)

    def _notice(self, at_ms: int) -> None:
        if self._deadline_ms is None or at_ms < self._deadline_ms:
            self._deadline_ms = at_ms


def waiting_by_key(waiting: Iterable[Waiting]) -> dict[str, int]:
    """How many requests of each key wait."""
    found: dict[str, int] = {}
    for each in waiting:
        found[each.wanted.key] = found.get(each.wanted.key, 0) + 1
    return found
