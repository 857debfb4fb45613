"""When a neuron that keeps failing is left alone, and how it is tried again.

Owns the circuit breaker of each neuron. Refuses to know how a request is sent: it is told when one
goes out and what that proved. Health as the poller sees it is another matter (view.py): a neuron
may answer every poll and break every request.

Theory of operation. A breaker is closed, open, or half-open:

    closed      Requests pass. `failures_to_open` failures in a row open it; one success in between
                starts the count again.
    open        Nothing passes until `open_until_ms`. Each opening lasts twice as long as the one
                before, up to a limit; the first after a calm time is short again.
    half-open   The time is over: one request passes as a probe. If it works the breaker closes, if
                it fails it opens for longer. A probe that is silent for `probe_ms` lets another
                one go, so that neither a long prompt nor a lost verdict shuts a neuron off.

Every opening and closing begins a new era. A verdict counts only in the era in which its request
went out: ten requests that die with one neuron open it once, not ever longer, and an answer that
began before the trouble does not end it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, assert_never

import msgspec
from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Set

    from cortexd.fleet.view import NeuronName

_DOUBLINGS_MAX = 32  # beyond any limit; keeps the numbers small

_NOT_IMPLEMENTED, _SERVICE_UNAVAILABLE = 501, 503


class State(enum.Enum):
    """What a breaker lets through. A half-open one that waits for its probe is `PROBING`."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    PROBING = "probing"

    @property
    def admits(self) -> bool:
        """Whether a request may go out now."""
        return self is State.CLOSED or self is State.HALF_OPEN


class Verdict(enum.Enum):
    """What a request proved about its neuron; `UNKNOWN`: nothing, as when the client hung up."""

    WORKED = "worked"
    FAILED = "failed"
    UNKNOWN = "unknown"


def verdict_on_status(status: int, *, did_no_work: bool, says_when: bool) -> Verdict:
    """What the HTTP status of an answer proves.

    Below 500 the neuron works, whatever it thinks of the request; so it does with 501. A 503 that
    says when to come back (`Retry-After`) is a busy neuron, not a broken one. Other errors count
    when they prove that no work was done: the rest may be about the one request.

    Without any status: no connection, and a break or silence before the first byte, FAILED; a
    break after it, and a client's hang-up, UNKNOWN.
    """
    if status < 500 or status == _NOT_IMPLEMENTED:
        return Verdict.WORKED
    if not did_no_work or (status == _SERVICE_UNAVAILABLE and says_when):
        return Verdict.UNKNOWN
    return Verdict.FAILED


class BreakerSettings(msgspec.Struct, frozen=True):
    """When breakers open and for how long; all times in milliseconds, all numbers at least 1.

    `calm_ms`: so long after it closed, a breaker opens as if for the first time.
    """

    failures_to_open: int = 5
    open_ms: int = 1_000
    open_ms_max: int = 30_000
    probe_ms: int = 30_000
    calm_ms: int = 60_000


class Ticket(msgspec.Struct, frozen=True):
    """What a request carries from `begin` to `end`. `probe`: its number, 0 for no probe."""

    era: int
    probe: int = 0


class Breaker(msgspec.Struct, frozen=True):
    """One breaker at a moment; the transitions return the next one.

    `failures`: in a row while closed. `openings`: in a row, without a calm time between.
    `open_until_ms` None: closed. `probe_until_ms` None: no probe is out. `probes`: how many were
    sent in this era.
    """

    failures: int = 0
    openings: int = 0
    open_until_ms: int | None = None
    closed_at_ms: int | None = None
    probe_until_ms: int | None = None
    probes: int = 0
    era: int = 0

    def state(self, now_ms: int) -> State:
        """What passes now."""
        if self.open_until_ms is None:
            return State.CLOSED
        if now_ms < self.open_until_ms:
            return State.OPEN
        if self.probe_until_ms is not None and now_ms < self.probe_until_ms:
            return State.PROBING
        return State.HALF_OPEN

    def retry_in_ms(self, now_ms: int) -> int:
        """The longest time until the next request may pass; 0: now."""
        match self.state(now_ms):
            case State.OPEN:
                return (self.open_until_ms or 0) - now_ms
            case State.PROBING:
                return (self.probe_until_ms or 0) - now_ms
            case _:
                return 0

    def begin(self, now_ms: int, settings: BreakerSettings) -> tuple[Breaker, Ticket]:
        """A request goes out; ask `state` first, and give the ticket to `end` whatever happens."""
        if self.open_until_ms is None:
            return self, Ticket(self.era)
        assert self.state(now_ms).admits, "a request went out through an open breaker"
        probe = self.probes + 1
        probing = replace(self, probes=probe, probe_until_ms=now_ms + settings.probe_ms)
        return probing, Ticket(self.era, probe)

    def end(
        self, ticket: Ticket, verdict: Verdict, now_ms: int, settings: BreakerSettings
    ) -> Breaker:
        """A request proved something: as soon as it did, such as at the first byte of its answer.

        The verdict of an earlier era changes nothing.
        """
        if ticket.era != self.era:
            return self
        if self.open_until_ms is not None:
            return self._after_a_probe(ticket, verdict, now_ms, settings)
        match verdict:
            case Verdict.UNKNOWN:
                return self
            case Verdict.WORKED:
                return replace(self, failures=0) if self.failures else self
            case Verdict.FAILED:
                if self.failures + 1 < settings.failures_to_open:
                    return replace(self, failures=self.failures + 1)
                return self._opened(now_ms, settings)
            case _:
                assert_never(verdict)

    def _after_a_probe(
        self, ticket: Ticket, verdict: Verdict, now_ms: int, settings: BreakerSettings
    ) -> Breaker:
        match verdict:
            case Verdict.WORKED:
                return Breaker(openings=self.openings, closed_at_ms=now_ms, era=self.era + 1)
            case Verdict.FAILED:
                return self._opened(now_ms, settings)
            case Verdict.UNKNOWN:
                # A probe that was given up on must not free the place of the one that followed.
                return replace(self, probe_until_ms=None) if ticket.probe == self.probes else self
            case _:
                assert_never(verdict)

    def _opened(self, now_ms: int, settings: BreakerSettings) -> Breaker:
        calm = self.closed_at_ms is not None and now_ms - self.closed_at_ms >= settings.calm_ms
        openings = 1 if calm else self.openings + 1
        doubled = settings.open_ms * 2 ** min(openings - 1, _DOUBLINGS_MAX)
        until = now_ms + min(doubled, settings.open_ms_max)
        return Breaker(openings=openings, open_until_ms=until, era=self.era + 1)


_NEW = Breaker()


class Breakers:
    """The breakers of a fleet by neuron: one owner, one thread. A name not heard of is closed.

    `not_closed`: the neurons with any other breaker, to be read only. Requests look there first.
    """

    def __init__(self, settings: BreakerSettings | None = None) -> None:
        """Begin with every breaker closed."""
        self._settings = settings or BreakerSettings()
        self._breakers: dict[NeuronName, Breaker] = {}
        self.not_closed: set[NeuronName] = set()

    def state(self, neuron: NeuronName, now_ms: int) -> State:
        """What passes to a neuron now."""
        return self._breakers.get(neuron, _NEW).state(now_ms)

    def retry_in_ms(self, neurons: Iterable[NeuronName], now_ms: int) -> int | None:
        """The longest time until some of them may be asked; None: there are none."""
        waits = (self._breakers.get(neuron, _NEW).retry_in_ms(now_ms) for neuron in neurons)
        return min(waits, default=None)

    def begin(self, neuron: NeuronName, now_ms: int) -> Ticket:
        """A request goes out (`Breaker.begin`)."""
        breaker = self._breakers.get(neuron, _NEW)
        self._breakers[neuron], ticket = breaker.begin(now_ms, self._settings)
        return ticket

    def end(
        self, neuron: NeuronName, ticket: Ticket, verdict: Verdict, now_ms: int
    ) -> State | None:
        """A request proved something (`Breaker.end`); the new state if it opened or closed."""
        before = self._breakers.get(neuron)
        if before is None:
            return None  # taken out of the configuration meanwhile
        after = self._breakers[neuron] = before.end(ticket, verdict, now_ms, self._settings)
        if after.era == before.era:
            return None
        if after.open_until_ms is None:
            self.not_closed.discard(neuron)
        else:
            self.not_closed.add(neuron)
        return after.state(now_ms)

    def keep(self, neurons: Set[NeuronName]) -> None:
        """Forget all others: they are no longer configured."""
        self._breakers = {name: each for name, each in self._breakers.items() if name in neurons}
        self.not_closed &= neurons
