"""The facts of one request as the core learns them, until they are told as a `Finished`."""

from cortexd.dialects.asked import Asked
from cortexd.dialects.refusals import Refusal, code_of
from cortexd.finished import Finished
from cortexd.gateway.auth import Principal
from cortexd.gateway.endpoints import spoken_at
from cortexd.gateway.exchange import Head
from cortexd.gateway.progress import Progress
from cortexd.ledger.desk import Reservation
from cortexd.ledger.entries import Refused, Standing

CLIENT_CLOSED_REQUEST = 499
"""Logged in place of a status when the client left before one was sent (nginx's convention)."""


class Outlook:
    """The facts of one request as the core learns them, on the way to becoming a `Finished`."""

    def __init__(self, head: Head, principal: Principal | None = None, *, now: float) -> None:
        """Start the clock at `now` (seconds)."""
        self.head = head
        self.principal = principal
        self.asked: Asked | None = None
        self.model: str | None = None
        self.reservation: Reservation | None = None
        self.standings: tuple[Standing, ...] = ()
        self.refusal: Refusal | None = None
        self.refused: Refused | None = None
        self.asked_tokens: int | None = None
        self.unjournalled = False
        self.progress: Progress | None = None
        self.status: int | None = None
        self._began = now

    def finished(self, now: float) -> Finished:
        """The request as it ended at `now`."""
        head, refusal, reservation = self.head, self.refusal, self.reservation
        told = Finished(head.request_id, head.method, head.path, self._status(), now - self._began)
        # What it came to is set piece by piece: one call with so many arguments by name costs five
        # times as much, because CPython gathers more than fifteen in a dictionary first.
        if self.principal is not None:
            told.account_id, told.key_id = self.principal.account_id, self.principal.key_id
        if self.asked is not None:
            told.stream, told.dropped = self.asked.stream, self.asked.dropped
        told.model = self.model
        if told.model is None and spoken_at(head.path).surface is not None:
            told.model = ""  # what a client made up is no name
        told.refused = self.refused
        told.unjournalled = self.unjournalled
        if reservation is not None:
            told.reserved = reserved = reservation.bound.total
            if self.asked_tokens is not None and self.asked_tokens > reserved:
                told.clamped_from = self.asked_tokens
            told.would_refuse = reservation.would_refuse
            told.charge = reservation.charge
        if self.progress is not None:
            self._tell_relay(told, self.progress)
            if refusal is None:
                refusal = self.progress.refusal  # sent at the end of a stream
        if refusal is not None:
            told.code = code_of(refusal)
        retries = head.headers.get(b"x-stainless-retry-count")
        if retries is not None and retries.isdigit() and len(retries) < 4:
            told.retry_count = retries.decode()
        return told

    def _tell_relay(self, told: Finished, progress: Progress) -> None:
        """How far it came on its way to a neuron and back."""
        ending, first = progress.ending(), progress.first_byte_at
        if ending is not None:
            told.ending, told.usage = ending.kind, ending.usage
        else:
            told.ending = progress.kind  # of a client that left before there was a neuron
        if progress.route is not None:
            told.neuron = progress.route.neuron
        if progress.waited_seconds:
            told.waited_ms = round(progress.waited_seconds * 1000)
        if first is not None:
            told.first_token_seconds = first - self._began
        told.unserved = progress.unserved
        told.clock = progress.clock
        told.failure = progress.failure
        told.notes = progress.notes

    @property
    def has_begun(self) -> bool:
        """Whether a response head was sent."""
        return self.status is not None or (self.progress is not None and self.progress.started)

    def _status(self) -> int:
        """What was sent; a stream sends its 200 before anybody knows how it ends."""
        if self.status is not None:
            return self.status
        return 200 if self.has_begun else CLIENT_CLOSED_REQUEST
