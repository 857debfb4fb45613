"""The facts of one request as the core learns them, until they are told as a `Finished`."""

from cortexd.dialects.asked import Asked
from cortexd.dialects.refusals import Refusal, code_of
from cortexd.dialects.usage import Ending, EndingKind
from cortexd.finished import Finished
from cortexd.gateway.auth import Principal
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
        head, asked, progress = self.head, self.asked, self.progress
        reservation = self.reservation
        route = progress.route if progress is not None else None
        ending = progress.ending() if progress else None
        first = progress.first_byte_at if progress is not None else None
        retries = head.headers.get(b"x-stainless-retry-count", b"")
        return Finished(
            request_id=head.request_id,
            method=head.method,
            path=head.path,
            status=self._status(),
            duration_seconds=now - self._began,
            account_id=self.principal.account_id if self.principal else None,
            key_id=self.principal.key_id if self.principal else None,
            model=self.model,
            neuron=route.neuron if route is not None else None,
            stream=bool(asked and asked.stream),
            code=self._code(),
            waited_ms=round(progress.waited_seconds * 1000) if progress is not None else 0,
            unserved=progress.unserved if progress is not None else None,
            clock=progress.clock if progress is not None else None,
            refused=self.refused,
            would_refuse=reservation.would_refuse if reservation is not None else None,
            unjournalled=self.unjournalled,
            reserved=reservation.bound.total if reservation is not None else None,
            clamped_from=self._clamped_from(),
            charge=reservation.charge if reservation is not None else None,
            usage=ending.usage if ending is not None else None,
            ending=self._ending_kind(ending),
            failure=progress.failure if progress is not None else None,
            first_token_seconds=first - self._began if first is not None else None,
            dropped=asked.dropped if asked is not None else (),
            notes=progress.notes if progress is not None else (),
            retry_count=retries.decode() if retries.isdigit() and len(retries) < 4 else None,
        )

    @property
    def has_begun(self) -> bool:
        """Whether a response head was sent."""
        return self.status is not None or (self.progress is not None and self.progress.started)

    def _ending_kind(self, ending: Ending | None) -> EndingKind | None:
        """How it ended with a neuron; or that its client left before there was one."""
        if ending is not None:
            return ending.kind
        return self.progress.kind if self.progress is not None else None

    def _code(self) -> str | None:
        """Of the refusal that was sent, as an answer of its own or at the end of a stream."""
        refusal = self.refusal
        if refusal is None and self.progress is not None:
            refusal = self.progress.refusal
        return None if refusal is None else code_of(refusal)

    def _clamped_from(self) -> int | None:
        """The tokens that were asked for, if fewer were reserved."""
        if self.reservation is None or self.asked_tokens is None:
            return None
        lowered = self.asked_tokens > self.reservation.bound.total
        return self.asked_tokens if lowered else None

    def _status(self) -> int:
        """What was sent; a stream sends its 200 before anybody knows how it ends."""
        if self.status is not None:
            return self.status
        return 200 if self.has_begun else CLIENT_CLOSED_REQUEST
