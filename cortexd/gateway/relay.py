"""From a reservation to a neuron and back: send, pass on, watch the client, and say how it ended.

`Relay.run` sends the request to a neuron, tries the next one while nothing can have started, and
hands the answer to the client as it comes. It keeps back only the last bytes, so that the
reservation is settled before the client can have read the end. `Relay.ending` tells at any moment,
even after a cancellation, what is known about what was used.
"""

import contextlib

import msgspec
import trio

from cortexd.dialects.chat_stream import ChatStream
from cortexd.dialects.neuron_errors import neuron_refusal
from cortexd.dialects.openai import plain_reply
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.dialects.usage import Ending, EndingKind, Seen, Usage
from cortexd.fleet.board import Board
from cortexd.fleet.catalogue import ModelId
from cortexd.fleet.pool import (
    Answer,
    NeuronBroke,
    NeuronSilent,
    NeuronUnreachable,
    Outgoing,
    Pool,
)
from cortexd.fleet.routing import Route
from cortexd.gateway.answers import no_neuron
from cortexd.gateway.exchange import Client, Headers
from cortexd.ledger.desk import Reservation

REPLY_BYTES_MAX = 64 * 1024 * 1024
"""Largest plain reply that is read; it is kept in memory until its usage is known."""

ERROR_BYTES_MAX = 64 * 1024
"""How much of a neuron's error body is read to explain it."""

ERROR_SECONDS = 5
"""How long that may take."""

# A neuron that answers so has not begun: the same reservation may go to another neuron, or back.
_ELSEWHERE = frozenset({404, 429, 503})
# What engines say before they begin; other errors of a plain request may come after some work.
_NO_WORK = _ELSEWHERE | {400, 401, 402, 403, 405, 406, 411, 413, 414, 415, 422, 431, 501}


class Clocks(msgspec.Struct, frozen=True):
    """How long a neuron may be silent: before its first byte, and between two."""

    first_byte_seconds: float
    between_bytes_seconds: float


class Sending(msgspec.Struct, frozen=True):
    """What goes to a neuron. `model_name` is the name the client used and reads back."""

    path: str
    headers: Headers
    body: bytes
    stream: bool
    include_usage: bool
    model_name: str
    output_tokens: int
    choices: int


class Reply(msgspec.Struct, frozen=True):
    """A whole answer, to be sent once the reservation is settled."""

    body: bytes


class LastBytes(msgspec.Struct, frozen=True):
    """The end of a stream that has already begun; to be sent once the reservation is settled."""

    data: bytes


Outcome = Reply | LastBytes | Refusal


class Relay:
    """The relay of one request. Run it once; then ask it for its `ending`."""

    def __init__(
        self,
        sending: Sending,
        client: Client,
        *,
        pool: Pool,
        clocks: Clocks,
        stream_headers: Headers,
    ) -> None:
        """Prepare; nothing is sent yet. `stream_headers` go out with the head of a stream."""
        self._sending = sending
        self._client = client
        self._pool = pool
        self._clocks = clocks
        self._stream_headers = stream_headers
        self.progress = Progress()

    @property
    def ending(self) -> Ending | None:
        """How it ended so far; None when no neuron was ever asked."""
        return self.progress.ending(streamed=self._sending.stream)

    async def run(
        self,
        model: ModelId,
        board: Board,
        reservation: Reservation,
    ) -> Outcome | None:
        """Relay through the first neuron that takes the request; None when the client hung up.

        The reservation counts as dispatched from before the first byte goes to a neuron, until that
        neuron has proved that it did nothing. Cancellation closes the connection to it at once.
        """
        outcomes: list[Outcome] = []
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await self._client.gone()
                if not outcomes:
                    self.progress.kind = EndingKind.CLIENT_GONE
                nursery.cancel_scope.cancel(reason="the client hung up")

            nursery.start_soon(watch, name="hang-up watch")
            outcomes.append(await self._through_the_fleet(model, board, reservation))
            nursery.cancel_scope.cancel(reason="answered")
        return outcomes[0] if outcomes else None

    async def _through_the_fleet(
        self,
        model: ModelId,
        board: Board,
        reservation: Reservation,
    ) -> Outcome:
        out: frozenset[str] = frozenset()
        refusal: Refusal | None = None
        while (route := board.route(model, without=out)) is not None:
            self.progress.begin(route)
            with board.serving(route):
                outcome = await self._through(route, reservation)
            if not self.progress.did_no_work:
                return outcome
            reservation.dispatched = False
            if not self.progress.elsewhere or not isinstance(outcome, Refusal):
                return outcome
            board.doubt(route.neuron, model)
            out |= {route.neuron}
            refusal = _kinder(refusal, outcome)
        if refusal is not None:
            return refusal
        return no_neuron()

    async def _through(self, route: Route, reservation: Reservation) -> Outcome:
        """One attempt at one neuron: its answer or what went wrong, as a value."""

        def mark_dispatched() -> None:
            reservation.dispatched = True

        sending = self._sending
        outgoing = Outgoing(
            route.base_url,
            "POST",
            sending.path,
            (*sending.headers, *_credential(route)),
            sending.body,
        )
        progress = self.progress
        try:
            async with await self._pool.send(
                outgoing,
                first_byte_seconds=self._clocks.first_byte_seconds,
                between_bytes_seconds=self._clocks.between_bytes_seconds,
                before_first_byte=mark_dispatched,
            ) as answer:
                outcome = await self._answer(answer)
        except NeuronUnreachable:
            progress.kind = EndingKind.NEURON_REFUSED
            progress.did_no_work = progress.elsewhere = True
            return Refusal(
                RefusalKind.UPSTREAM_UNREACHABLE,
                "The neuron that serves this model could not be reached.",
                retry_after_seconds=1,
            )
        except NeuronSilent as silence:
            return self._failed(
                RefusalKind.UPSTREAM_TIMEOUT, f"The neuron fell silent ({silence.clock})."
            )
        except NeuronBroke as broken:
            return self._failed(
                RefusalKind.UPSTREAM_FAILED, f"The neuron broke off its answer ({broken.reason})."
            )
        return outcome

    async def _answer(self, answer: Answer) -> Outcome:
        if answer.status != 200:
            return await self._refused(answer)
        if self._sending.stream:
            return await self._stream(answer)
        return await self._plain(answer)

    def _failed(self, kind: RefusalKind, message: str) -> Outcome:
        """A failure after dispatch: an HTTP error, or an error event where a stream has begun."""
        progress, stream = self.progress, self.progress.stream
        if stream is not None and stream.finished:
            progress.kind = EndingKind.COMPLETED  # every choice had ended; only the goodbye is lost
            return LastBytes(stream.close())
        progress.kind = EndingKind.NEURON_FAILED
        progress.failure = message
        if stream is None or not progress.started:
            return Refusal(kind, message)
        stream.failure = message
        return LastBytes(stream.close())

    async def _refused(self, answer: Answer) -> Outcome:
        """An error status: judge whether any work can have been done, and say it in our own words.

        A plain request may have failed after it generated, so there a 5xx stays charged; a
        streamed one that has sent no event has generated nothing. The body only explains: the
        status counts even if the neuron breaks off or dawdles after it.
        """
        status, progress = answer.status, self.progress
        progress.failure = f"neuron answered {status}"
        if status in _NO_WORK or 300 <= status < 400 or (self._sending.stream and status >= 400):
            progress.kind = EndingKind.NEURON_REFUSED
            progress.did_no_work = True
            progress.elsewhere = status in _ELSEWHERE
        else:
            progress.kind = EndingKind.NEURON_FAILED
        body = b""
        with trio.move_on_after(ERROR_SECONDS), contextlib.suppress(NeuronBroke, NeuronSilent):
            body = await _read_up_to(answer, ERROR_BYTES_MAX)
        return neuron_refusal(status, body, _header(answer, b"retry-after"))

    async def _plain(self, answer: Answer) -> Outcome:
        progress = self.progress
        body = await _read_up_to(answer, REPLY_BYTES_MAX + 1)
        progress.first_byte()
        reply = None
        if len(body) <= REPLY_BYTES_MAX:
            reply = plain_reply(body, model=self._sending.model_name)
        progress.kind = EndingKind.COMPLETED
        if reply is None:
            progress.failure = "no chat completion"
            return Refusal(
                RefusalKind.UPSTREAM_FAILED, "The neuron's answer was not a chat completion."
            )
        progress.usage, progress.seen = reply.usage, reply.seen
        return Reply(reply.body)

    async def _stream(self, answer: Answer) -> Outcome:
        """Pass events on as they come, until the end, a failure, or the reserved output is used
        up.
        """
        sending, progress = self._sending, self.progress
        stream = progress.stream = ChatStream(
            include_usage=sending.include_usage,
            model=sending.model_name,
            output_tokens_max=sending.output_tokens,
            choices=sending.choices,
        )
        while not (stream.done or stream.cut or stream.failure):
            data = await answer.read()
            if not data:
                break
            passed_on = stream.feed(data)
            if passed_on:
                await self._pass_on(passed_on)
        last = stream.close()
        if stream.cut:
            progress.kind = EndingKind.CUT
        elif stream.failure is None:
            progress.kind = EndingKind.COMPLETED
        else:
            progress.kind = EndingKind.NEURON_FAILED
            progress.failure = stream.fault
            if not progress.started:
                return Refusal(RefusalKind.UPSTREAM_FAILED, stream.failure)
        await self._pass_on(b"")
        return LastBytes(last)

    async def _pass_on(self, data: bytes) -> None:
        """Send a piece to the client, with the head before the first one."""
        if not self.progress.started:
            self.progress.started = True
            await self._client.start(200, self._stream_headers)
        if data:
            self.progress.first_byte()
            # A client that takes nothing leaves the neuron's further tokens unread, and unseen.
            self.progress.is_writing = True
            await self._client.write(data)
            self.progress.is_writing = False


class Progress:
    """What is known about one relay while it runs. Plain facts, written by `Relay` alone."""

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self.route: Route | None = None
        self.kind: EndingKind | None = None
        self.stream: ChatStream | None = None
        self.usage: Usage | None = None
        self.seen = Seen()
        self.started = False
        self.is_writing = False
        self.did_no_work = False
        self.elsewhere = False
        self.failure: str | None = None
        self.first_byte_at: float | None = None

    def begin(self, route: Route) -> None:
        """A new attempt: forget how the one before failed."""
        self.route = route
        self.did_no_work = self.elsewhere = False
        self.failure = self.kind = None

    def first_byte(self) -> None:
        """Note the moment of the first piece of the answer."""
        if self.first_byte_at is None:
            self.first_byte_at = trio.current_time()

    def ending(self, *, streamed: bool) -> Ending | None:
        """The ending as it stands; without a verdict the request was cut short on our side."""
        if self.route is None:
            return None
        stream = self.stream
        return Ending(
            self.kind or EndingKind.CLIENT_GONE,
            streamed=streamed,
            usage=stream.usage if stream is not None else self.usage,
            seen=stream.seen if stream is not None else self.seen,
            token_per_chunk=self.route.kind == "neuron" and not self.is_writing,
        )


def _credential(route: Route) -> Headers:
    if route.api_key is None:
        return ()
    return ((b"authorization", b"Bearer " + route.api_key.encode()),)


def _kinder(one: Refusal | None, other: Refusal) -> Refusal:
    """Of two refusals by different neurons, the one that tells the client to wait longer."""
    if one is None or (other.retry_after_seconds or 0) > (one.retry_after_seconds or 0):
        return other
    return one


def _header(answer: Answer, wanted: bytes) -> bytes | None:
    for name, value in answer.headers:
        if name.lower() == wanted:
            return value
    return None


async def _read_up_to(answer: Answer, limit: int) -> bytes:
    """The body of an answer, at most about `limit` bytes of it."""
    pieces: list[bytes] = []
    size = 0
    while size < limit and (data := await answer.read()):
        pieces.append(data)
        size += len(data)
    return b"".join(pieces)
