"""From a reservation to a neuron and back: wait, send, pass on, watch the client, tell the end.

`Relay.run` waits for a neuron that serves the request, tries the next one while nothing can have
started, and hands the answer to the client as it comes. A client that asked for a stream is told at
once that it waits: it gets its head, and a heartbeat whenever nothing else was sent for a while.
Only the last bytes are kept back, so that the reservation is settled before the client can have
read the end. `Relay.ending` tells at any moment, even after a cancellation, what is known about
what was used.
"""

import contextlib
from functools import partial

import msgspec
import trio

from cortexd.dialects.neuron_errors import (
    hide_names,
    lacks_endpoint,
    neuron_refusal,
    told_status,
)
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.dialects.surface import JSON, Document, Gathering, Watcher, Way
from cortexd.dialects.usage import Ending, EndingKind
from cortexd.fleet.breaker import Verdict, verdict_on_status
from cortexd.fleet.lines import Wanted
from cortexd.fleet.pool import (
    Answer,
    NeuronBroke,
    NeuronSilent,
    NeuronUnreachable,
    Pool,
)
from cortexd.fleet.routing import Route
from cortexd.fleet.serving import Serving, Unserved
from cortexd.fleet.traffic import Traffic
from cortexd.fleet.view import NeuronName
from cortexd.gateway.answers import unserved
from cortexd.gateway.exchange import Client, Headers
from cortexd.gateway.heartbeats import Heartbeats
from cortexd.gateway.neuron_answer import header, is_event_stream, read_up_to
from cortexd.gateway.no_work import ELSEWHERE, kinder, proves_no_work
from cortexd.gateway.out import Out
from cortexd.gateway.progress import Progress
from cortexd.gateway.sending import Sending
from cortexd.ledger.desk import Reservation

REPLY_BYTES_MAX = 64 * 1024 * 1024
"""Largest plain reply that is read; it is kept in memory until its usage is known."""

ERROR_BYTES_MAX = 64 * 1024
"""How much of a neuron's error body is read to explain it."""

ERROR_SECONDS = 5
"""How long that may take."""

_NOT_THERE = 404


class Clocks(msgspec.Struct, frozen=True):
    """How long a neuron may be silent: before its first byte, and between two. How often a client
    that reads a stream hears something meanwhile.
    """

    first_byte_seconds: float
    between_bytes_seconds: float
    heartbeat_seconds: float = 5


class Reply(msgspec.Struct, frozen=True):
    """A whole answer, to be sent once the reservation is settled."""

    body: bytes
    content_type: str = JSON


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
        heartbeats: Heartbeats,
        stream_headers: Headers,
    ) -> None:
        """Prepare; nothing is sent yet. `stream_headers` go out with the head of a stream."""
        self._sending = sending
        self._client = client
        self._pool = pool
        self._clocks = clocks
        self._heartbeats = heartbeats
        self._way = sending.way
        self._outcome: Outcome | None = None
        self.progress = Progress(sending)
        self._out = Out(client, stream_headers, self.progress, sending.watch(self._way))

    async def _go(self, way: Way) -> None:
        """Put the request in this way from now on."""
        self._way = way
        watcher = self._sending.watch(way)
        if watcher is not None:
            await self._out.go_on(watcher)

    @property
    def ending(self) -> Ending | None:
        """How it ended so far; None when no neuron was ever asked."""
        return self.progress.ending()

    async def run(
        self, wanted: Wanted, traffic: Traffic, reservation: Reservation
    ) -> Outcome | None:
        """Relay through the first neuron that takes the request; None when the client hung up.

        The reservation counts as dispatched from before the first byte goes to a neuron, until that
        neuron has proved that it did nothing. Cancellation closes the connection to it at once.
        """
        async with self._client.watching(self._hung_up) as end:
            if self._sending.stream:
                async with self._heartbeats.beside(self._out, end):
                    self._outcome = await self._through_the_fleet(wanted, traffic, reservation)
            else:
                self._outcome = await self._through_the_fleet(wanted, traffic, reservation)
        return None if self._outcome is None else self._as_sent(self._outcome)

    def _hung_up(self) -> None:
        if self._outcome is None:
            self.progress.kind = EndingKind.CLIENT_GONE

    def _as_sent(self, outcome: Outcome) -> Outcome:
        """An error that comes after the head of a stream has to be an event of that stream."""
        watcher = self._out.watcher
        if watcher is None or not isinstance(outcome, Refusal) or not self.progress.started:
            return outcome
        self.progress.refusal = outcome
        return LastBytes(watcher.refuse(outcome))

    async def _through_the_fleet(
        self, wanted: Wanted, traffic: Traffic, reservation: Reservation
    ) -> Outcome:
        tried: frozenset[NeuronName] = frozenset()
        refusal: Refusal | None = None
        has_come_back = False
        turn = traffic.at_once(wanted) or await self._turn(wanted, traffic)
        while isinstance(turn, Serving):
            self.progress.begin(turn)
            outcome = await self._with(turn, traffic, reservation)
            if not self.progress.did_no_work:
                return outcome
            reservation.dispatched = False
            if not self.progress.elsewhere or not isinstance(outcome, Refusal):
                return outcome
            tried |= {turn.route.neuron}
            refusal = kinder(refusal, outcome)
            if turn.waited_ms:
                wanted = msgspec.structs.replace(wanted, waited_ms=tuple(turn.waited_ms.items()))
            next_turn: Serving | Unserved | None = traffic.elsewhere(wanted, tried)
            if next_turn is None and self.progress.can_come_back and not has_come_back:
                # The neuron has restarted, or somebody else took its model out: have it loaded.
                has_come_back = True  # one may list for ever what it does not have
                next_turn = await self._turn(wanted, traffic)
            if next_turn is None:
                return refusal
            turn = next_turn
        self.progress.unserved = turn
        return unserved(self._sending.request.asked.model, turn)

    async def _turn(self, wanted: Wanted, traffic: Traffic) -> Serving | Unserved:
        try:
            return await traffic.turn(wanted, on_wait=self._tell_that_it_waits)
        finally:
            self.progress.waits_no_more()

    async def _tell_that_it_waits(self) -> None:
        self.progress.waits()
        if self._sending.stream:
            await self._out.heartbeat()

    async def _with(self, serving: Serving, traffic: Traffic, reservation: Reservation) -> Outcome:
        """One attempt at one neuron, which is free of us afterwards whatever happened."""
        progress = self.progress
        progress.on_first_byte = partial(traffic.first_byte, serving)
        try:
            known = partial(traffic.limits, serving.route.model, template_tokens=0)
            outgrown = self._sending.outgrown(reservation.bound, known)
            progress.did_no_work = outgrown is not None
            outcome = outgrown or await self._through(serving.route, reservation)
            if progress.can_come_back:
                traffic.withdraw(serving)
            elif progress.elsewhere:
                traffic.doubt(serving)
        finally:
            traffic.end(serving, progress.verdict)
        return outcome

    async def _through(self, route: Route, reservation: Reservation) -> Outcome:
        """One attempt at one neuron: its answer or what went wrong, as a value."""
        progress = self.progress
        try:
            async with await self._sent(route, reservation) as answer:
                outcome = await self._answer(answer)
        except NeuronUnreachable:
            progress.kind = EndingKind.NEURON_REFUSED
            progress.verdict = Verdict.FAILED
            progress.did_no_work = progress.elsewhere = True
            return Refusal(
                RefusalKind.UPSTREAM_UNREACHABLE,
                "The neuron that serves this model could not be reached.",
                retry_after_seconds=1,
            )
        except NeuronSilent as silence:
            progress.clock = silence.clock
            return self._failed(
                RefusalKind.UPSTREAM_TIMEOUT, f"The neuron fell silent ({silence.clock})."
            )
        except NeuronBroke as broken:
            return self._failed(
                RefusalKind.UPSTREAM_FAILED, f"The neuron broke off its answer ({broken.reason})."
            )
        return outcome

    async def _sent(self, route: Route, reservation: Reservation) -> Answer:
        """Send it; the head of what is answered has come. Of what was sent nothing is kept here."""

        def mark_dispatched() -> None:
            reservation.dispatched = True

        outgoing, self.progress.attempt = self._sending.to(route)
        if self.progress.attempt.way.surface is not self._way.surface:
            await self._go(self.progress.attempt.way)
        await trio.lowlevel.checkpoint_if_cancelled()  # who left already costs no neuron anything
        return await self._pool.send(
            outgoing,
            first_byte_seconds=self._clocks.first_byte_seconds,
            between_bytes_seconds=self._clocks.between_bytes_seconds,
            before_first_byte=mark_dispatched,
            left_unread=self.progress.left_unread,
        )

    async def _answer(self, answer: Answer) -> Outcome:
        if answer.status != 200:
            return await self._refused(answer)
        self.progress.verdict = Verdict.UNKNOWN  # until it has shown that it can keep it up
        if self._out.watcher is not None:
            return await self._stream(answer, self._out.watcher)
        gathering = self._gathering
        if gathering is not None and is_event_stream(answer):
            return await self._gather(answer, gathering)
        return await self._plain(answer)  # also of an engine that knows no streams

    @property
    def _gathering(self) -> Gathering | None:
        attempt = self.progress.attempt
        return attempt.gathering if attempt is not None else None

    def _failed(self, kind: RefusalKind, message: str) -> Outcome:
        """A failure after dispatch: an HTTP error, or an error event where a stream has begun."""
        progress, stream = self.progress, self.progress.stream
        if stream is not None and stream.finished:
            # Every choice had ended; only the goodbye is lost.
            if self._gathering is not None:
                return self._gathered(self._gathering)
            progress.kind = EndingKind.COMPLETED
            return LastBytes(stream.close())
        progress.kind = EndingKind.NEURON_FAILED
        progress.failure = message
        if progress.first_byte_at is None:
            progress.verdict = Verdict.FAILED
        if stream is None or not progress.started:
            return Refusal(kind, message)
        stream.failure = message
        return LastBytes(stream.close())

    def _unplaced(self, message: str) -> str:
        """What a neuron said, without the names of its host and our key for it."""
        route = self.progress.route
        return message if route is None else hide_names(message, route.unspoken)

    async def _refused(self, answer: Answer) -> Outcome:
        """An error status: judge whether any work can have been done, and say it in our own words.

        The body only explains: the status counts even if the neuron breaks off or dawdles after it.
        """
        status, progress = answer.status, self.progress
        progress.failure = f"neuron answered {status}"
        self._judge(status)
        says_when = header(answer, b"retry-after") is not None
        progress.verdict = verdict_on_status(
            status, did_no_work=progress.did_no_work, says_when=says_when
        )
        body = b""
        with trio.move_on_after(ERROR_SECONDS), contextlib.suppress(NeuronBroke, NeuronSilent):
            body = await read_up_to(answer, ERROR_BYTES_MAX)
        status = told_status(status, body)
        self._judge(status)
        progress.lacks_endpoint = lacks_endpoint(status, body)
        progress.elsewhere = status in ELSEWHERE or progress.lacks_endpoint
        progress.was_not_there = status == _NOT_THERE and not progress.lacks_endpoint
        refusal = neuron_refusal(status, body, header(answer, b"retry-after"))
        return msgspec.structs.replace(refusal, message=self._unplaced(refusal.message))

    def _judge(self, status: int) -> None:
        """Take an error for a refusal or for a failure, by what it proves."""
        progress, prompts = self.progress, self._sending.request.asked.prompts
        assert progress.attempt is not None, "an answer that nobody asked for"
        streamed = progress.attempt.streamed
        progress.did_no_work = proves_no_work(status, prompts=prompts, streamed=streamed)
        refused, failed = EndingKind.NEURON_REFUSED, EndingKind.NEURON_FAILED
        progress.kind = refused if progress.did_no_work else failed

    async def _plain(self, answer: Answer) -> Outcome:
        body = answer.whole()
        if body is None:
            body = await read_up_to(answer, REPLY_BYTES_MAX + 1)
        self.progress.first_byte()
        self.progress.kind = EndingKind.COMPLETED
        if len(body) > REPLY_BYTES_MAX:
            return self._as_reply(None)
        kind = header(answer, b"content-type") or b""
        return self._as_reply(Document(body, kind.decode("latin-1")))

    async def _gather(self, answer: Answer, gathering: Gathering) -> Outcome:
        """Read a stream for a client that wants a plain answer."""
        progress = self.progress
        progress.stream = gathering
        self._forget(answer)

        def gather(data: bytes) -> bool:
            progress.first_byte()
            gathering.feed(data)
            return not (gathering.done or gathering.cut or gathering.failure)

        await self._pool.pump.pass_on(answer, gather)
        return self._gathered(gathering)

    def _gathered(self, gathering: Gathering) -> Outcome:
        """The plain answer, as far as it came."""
        gathering.close()
        progress = self.progress
        if gathering.failure is not None:
            progress.kind, progress.failure = EndingKind.NEURON_FAILED, gathering.fault
            return Refusal(RefusalKind.UPSTREAM_FAILED, self._unplaced(gathering.failure))
        progress.kind = EndingKind.CUT if gathering.cut else EndingKind.COMPLETED
        return self._as_reply(Document(gathering.whole()))

    def _as_reply(self, document: Document | None) -> Outcome:
        """What the client gets of a whole answer; None: one that is too large to be read."""
        progress, reply = self.progress, None
        if document is not None:
            reply = self._way.request.read(document, self._sending.limits)
        if reply is None:
            noun = self._way.surface.answer_noun
            progress.failure = f"no {noun}"
            return Refusal(RefusalKind.UPSTREAM_FAILED, f"The neuron's answer was no {noun}.")
        progress.usage, progress.seen = reply.usage, reply.seen
        progress.reply_notes = reply.notes
        return Reply(reply.body, reply.content_type)

    async def _stream(self, answer: Answer, stream: Watcher) -> Outcome:
        """Pass events on as they come, until the end, a failure, or the reserved output is used
        up.
        """
        progress = self.progress
        progress.stream = stream
        self._forget(answer)
        await self._out.pass_all_on(answer, self._pool.pump)
        if stream.failure is not None:
            stream.failure = self._unplaced(stream.failure)
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
        await self._out.start()
        return LastBytes(last)

    def _forget(self, answer: Answer) -> None:
        """Let go of what only another attempt would need, for there is none any more."""
        self._sending.request.forget()
        self._way.request.forget()
        answer.forget_headers()
