"""What is known about one relay while it runs: how far it came, and what that proves and costs.

Owns the facts. Refuses to know how they come about (relay.py) and what they cost
(ledger/charging.py).
"""

from collections.abc import Callable

import trio

from cortexd.dialects.refusals import Refusal
from cortexd.dialects.surface import Watcher
from cortexd.dialects.usage import Ending, EndingKind, Seen, Usage
from cortexd.fleet.answer import Clock
from cortexd.fleet.breaker import Verdict
from cortexd.fleet.engines.abilities import loads
from cortexd.fleet.routing import Route
from cortexd.fleet.serving import Serving, Unserved
from cortexd.gateway.sending import Attempt, Sending


class Progress:
    """What is known about one relay while it runs: plain facts, of `Relay` and its `Out`."""

    __slots__ = (
        "_sending",
        "_waits_since",
        "attempt",
        "clock",
        "did_no_work",
        "elsewhere",
        "failure",
        "first_byte_at",
        "has_unseen",
        "kind",
        "lacks_endpoint",
        "on_first_byte",
        "refusal",
        "reply_notes",
        "route",
        "seen",
        "started",
        "stream",
        "unserved",
        "usage",
        "verdict",
        "waited_seconds",
        "was_not_there",
    )

    def __init__(self, sending: Sending) -> None:
        """Nothing has happened yet."""
        self._sending = sending
        self.attempt: Attempt | None = None
        self.route: Route | None = None
        self.kind: EndingKind | None = None
        self.stream: Watcher | None = None
        self.usage: Usage | None = None
        self.seen = Seen()
        self.reply_notes: tuple[str, ...] = ()
        self.started = False
        self.has_unseen = False  # the neuron may have said more than was looked at
        self.did_no_work = False
        self.elsewhere = False
        self.was_not_there = False
        self.lacks_endpoint = False
        self.verdict: Verdict | None = None
        self.failure: str | None = None
        self.clock: Clock | None = None
        self.first_byte_at: float | None = None
        self.on_first_byte: Callable[[], None] | None = None
        self.waited_seconds = 0.0
        self._waits_since: float | None = None
        self.unserved: Unserved | None = None
        self.refusal: Refusal | None = None

    def begin(self, serving: Serving) -> None:
        """A new attempt: forget how the one before failed."""
        self.route = serving.route
        self.did_no_work = self.elsewhere = self.was_not_there = False
        self.lacks_endpoint = False
        self.failure = self.kind = self.verdict = self.attempt = None

    def left_unread(self) -> None:
        """Bytes of the neuron were left behind that nobody has looked at."""
        self.has_unseen = True

    def waits(self) -> None:
        """It has to wait for its turn."""
        self._waits_since = trio.current_time()

    def waits_no_more(self) -> None:
        """Its turn has come, or never will; it may not have waited at all."""
        if self._waits_since is not None:
            self.waited_seconds += trio.current_time() - self._waits_since
            self._waits_since = None

    def first_byte(self) -> None:
        """Note the moment of the first piece of the answer, and tell who waits for it."""
        if self.first_byte_at is None:
            self.first_byte_at = trio.current_time()
        self.verdict = Verdict.WORKED
        if self.on_first_byte is not None:
            self.on_first_byte()
            self.on_first_byte = None

    @property
    def can_come_back(self) -> bool:
        """Whether the neuron did not have the model, and can be told to load it. Of others, one
        that lists what it says not to have is believed in what it lists.
        """
        return self.was_not_there and self.route is not None and loads(self.route.kind)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was amiss with the answer and is no failure, in single words."""
        return self.reply_notes if self.stream is None else tuple(sorted(self.stream.notes))

    def ending(self) -> Ending | None:
        """The ending as it stands; without a verdict the request was cut short on our side."""
        if self.route is None:
            return None
        stream = self.stream
        attempt = self.attempt
        promised = (
            attempt is not None
            and attempt.engine.token_per_event
            and attempt.way.surface.token_per_chunk
        )
        return Ending(
            self.kind or EndingKind.CLIENT_GONE,
            streamed=attempt.streamed if attempt is not None else self._sending.stream,
            usage=stream.usage if stream is not None else self.usage,
            seen=stream.seen if stream is not None else self.seen,
            token_per_chunk=promised and not self.has_unseen,
            counts_every_choice=attempt is not None and attempt.engine.counts_every_choice,
        )
