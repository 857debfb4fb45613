"""The core on a plain HTTP/1.1 connection, inline: the fast face.

Owns one connection from its first byte to its last: whose turn it is to wait for what, and for how
long. A request is answered by the task that read it; there is no queue, no task and no ASGI between
the client and the core. What the bytes mean is decided in `http1_parsing.py` and
`http1_writing.py`, how they travel in `http1_wire.py`; the same core behind ASGI is `asgi.py`.

Theory of operation. A connection goes round: wait for a head, read the body, have the core answer.
One cancel scope covers it all: it is cancelled when a head is awaited for too long, and when the
client leaves while the core works for it. Bytes that come in the meantime are the next requests',
and wait, up to a bound. The connection ends when anything is out of step: a bad request, a body
left unread, an answer not finished, a client that has gone.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from email.utils import formatdate
from typing import Generic, cast

import msgspec
import trio

from cortexd.deadlines import Deadlines
from cortexd.dialects.refusals import Refusal, RefusalKind, error_body
from cortexd.gateway.bodies import Body, BodyRoom
from cortexd.gateway.exchange import (
    AdmittedT,
    Core,
    End,
    Head,
    Headers,
    Incoming,
)
from cortexd.gateway.hang_ups import HangUps, watched_by_a_task
from cortexd.gateway.http1_parsing import (
    BadRequest,
    Framing,
    RequestHead,
    check_beginning,
    end_of_head,
    parse_head,
)
from cortexd.gateway.http1_wire import Wire
from cortexd.gateway.http1_writing import CONTINUE, Response
from cortexd.gateway.request_ids import new_request_id, usable_request_id

AHEAD_BYTES_MAX = 262_144
"""How much a client may send ahead of its answer; one that sends more is cut off."""

MALFORMED_CODE = "malformed_request"
"""The `code` of an answer to bytes that are no request."""

_H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\n"


class Http1Limits(msgspec.Struct, frozen=True):
    """What one connection grants its client besides the limits on bodies. Bytes and seconds."""

    head_bytes_max: int
    head_seconds: float
    idle_seconds: float


class Http1Face(Generic[AdmittedT]):
    """A core as a server of HTTP/1.1 connections."""

    def __init__(
        self, core: Core[AdmittedT], limits: Http1Limits, room: BodyRoom, deadlines: Deadlines
    ) -> None:
        """Serve `core`; `room` is shared with other faces of the same core."""
        self.core = core
        self.limits = limits
        self.room = room
        self.deadlines = deadlines
        self.hang_ups = HangUps()

    async def watch(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Notice hang-ups on all connections, until cancelled."""
        await self.hang_ups.run(task_status=task_status)

    def connection(self, wire: Wire) -> "Http1Connection[AdmittedT]":
        """A connection that has just been accepted, to be `run`."""
        return Http1Connection(self, wire)


class Http1Connection(Generic[AdmittedT]):
    """One client's connection. `run` it once; `drain` it from any task."""

    def __init__(self, face: Http1Face[AdmittedT], wire: Wire) -> None:
        """For `Http1Face` only."""
        self._face = face
        self._wire = wire
        self._unread = bytearray()
        self._scope = trio.CancelScope()
        self._is_waiting = False
        self._is_over = False
        self._lingers = False
        self._is_told = False
        self._has_left = False
        self._hung_up: Callable[[], None] | None = None
        self.is_draining = False
        self.is_gone = False

    async def run(self) -> bytes:
        """Serve until the end of the connection, and close it.

        Bytes are returned, and the connection is left open, when the client speaks HTTP/2 from the
        start: they are what it has sent. Raises what the core raises.
        """
        hang_ups, descriptor = self._face.hang_ups, self._wire.descriptor
        if descriptor is not None and hang_ups.is_running:
            hang_ups.add(descriptor, self)
            self._is_told = True
        try:
            with self._scope:
                try:
                    raw = await self._next_head(is_first=True)
                    if raw == _H2_PREFACE:
                        return raw + bytes(self._unread)
                    while raw:
                        request, raw = parse_head(raw), b""  # not kept: an answer can take long
                        raw = await self._next_head() if await self._exchange(request) else b""
                except BadRequest as bad:
                    await self._turn_down(bad)
            await self._close()
            return b""
        finally:
            if descriptor is not None:
                hang_ups.forget(descriptor, self)

    def drain(self) -> None:
        """Take no further request: end now if none has come, else after the answer."""
        self.is_draining = True
        if self._is_waiting:
            self.end("draining")

    def expired(self) -> None:
        """For the clock: the next head has not come in time."""
        self.end("no request came")

    def end(self, reason: str) -> None:
        """End whatever is being done or awaited."""
        self._is_over = True
        self._scope.cancel(reason=reason)

    async def _next_head(self, *, is_first: bool = False) -> bytes:
        """The bytes of the next head; b"" at the end of the connection. Raises BadRequest."""
        unread, limits = self._unread, self._face.limits
        is_idle = not (unread or is_first)
        if unread:
            await trio.lowlevel.checkpoint()  # whoever sends many at once must not have every turn
        if self.is_draining or self.is_gone:
            return b""
        deadlines = self._face.deadlines
        deadlines.start(self, limits.idle_seconds if is_idle else limits.head_seconds)
        self._is_waiting = True
        try:
            end = await self._wait_for_head(is_idle=is_idle)
        finally:
            self._is_waiting = False
            deadlines.stop(self)
        if self._is_over:
            return b""
        raw = bytes(unread[:end])
        del unread[:end]
        return raw

    async def _wait_for_head(self, *, is_idle: bool) -> int:
        """Receive until a head is whole; its length, or 0 at the end of the connection.

        Raises BadRequest. The first byte that comes starts the clock of the head.
        """
        unread, limits = self._unread, self._face.limits
        looked_at, is_early = 0, True
        while True:
            if unread:
                if is_early and unread.startswith(b"\r\n"):
                    del unread[:2]  # some clients end a body with a line end too many
                    is_early = False
                end = end_of_head(unread, looked_at)
                if (end or len(unread)) > limits.head_bytes_max:
                    raise BadRequest(431, "The request head is too large.")
                if end:
                    return end
                check_beginning(unread)
                looked_at = len(unread)
                if is_idle and unread:  # not before it is seen that they are no whole head
                    is_idle = False
                    self._face.deadlines.start(self, limits.head_seconds)
            data = await self._wire.receive()
            if not data:
                return 0
            unread += data

    async def _exchange(self, request: RequestHead) -> bool:
        """One request and its answer; whether another may follow."""
        core = self._face.core
        offered = usable_request_id(request.headers.get(b"x-request-id"))
        head = Head(
            request.method,
            request.path,
            request.headers,
            offered or new_request_id(),
        )
        admitted = core.admit(head)
        refusal = admitted if isinstance(admitted, Refusal) else None
        body = Body(self._face.room, refusal=refusal, declared=request.length)
        framing = request.body
        try:
            if framing is not None:
                body.take(framing.take(self._unread))
                if not framing.complete:
                    await self._read_rest(request, framing, body)
            if self.is_gone:
                return False
            client = Http1Client(self, self._response(request))
            if body.refusal is not None:
                await core.refuse(body.refusal, head, client)
            else:
                await core.serve(cast("AdmittedT", admitted), Incoming(head, body.whole()), client)
        finally:
            body.release()
        return client.may_go_on

    def _response(self, request: RequestHead) -> Response:
        is_read = request.body is None or request.body.complete
        self._lingers = not is_read
        return Response(
            to_head=request.method == "HEAD",
            is_http_1_0=request.is_http_1_0,
            keep_alive=request.keep_alive and is_read,
        )

    async def _read_rest(self, request: RequestHead, framing: Framing, body: Body) -> None:
        """Read a body to its end, or as far as anybody waits for it. Raises BadRequest."""
        if request.expects_continue:
            if body.refusal is not None:
                return  # it will not send what it would have sent in vain
            await self.send(CONTINUE)
        with trio.move_on_after(self._face.room.limits.body_seconds) as patience:
            while not (framing.complete or body.is_beyond):
                data = await self._wire.receive()
                if not data:
                    self.is_gone = True
                    return
                self._unread += data
                body.take(framing.take(self._unread))
        if patience.cancelled_caught:
            body.took_too_long()

    async def send(self, data: bytes) -> None:
        """Send to the client, if it is still there. After a cancel it never is: half an answer
        cannot be continued.
        """
        if self.is_gone or not data:
            await trio.lowlevel.checkpoint()
            return
        is_sent = False
        try:
            is_sent = await self._wire.send(data)
        finally:
            if not is_sent:
                self.is_gone = True
                self._wire.break_off()
                self.has_left()  # of a descriptor that is closed nobody is told any more

    def send_now(self, data: bytes) -> Awaitable[None] | None:
        """Send what goes without waiting; returns what is left to be awaited, None: nothing."""
        sent = 0 if self.is_gone else self._wire.send_now(data)
        return None if sent == len(data) else self.send(data[sent:])

    async def gone(self) -> None:
        """Return once the client has gone, or has sent too much ahead of its answer."""
        while not self.is_gone:
            data = await self._wire.receive()
            self._unread += data
            self.is_gone = not data or len(self._unread) > AHEAD_BYTES_MAX

    def watching(self, hung_up: Callable[[], None]) -> AbstractAsyncContextManager[End]:
        """See `Client`."""
        if self._is_told:
            return _Told(self, hung_up)
        return watched_by_a_task(self.gone, hung_up)

    def watch(self, hung_up: Callable[[], None] | None) -> None:
        """For `_Told` only: have `has_left` call `hung_up`, and end what is being done; None: do
        not, nothing is being done any more.
        """
        self._hung_up = hung_up
        if self._has_left:
            self.has_left()

    def has_left(self) -> None:
        """The client has hung up: whatever is being done for it ends now."""
        self._has_left = True
        if self._hung_up is not None:
            self.is_gone = True
            self._hung_up()
            self.end("the client hung up")

    def read_ahead(self) -> None:
        """While a request is answered, take in what was sent ahead; too much of it is a hang-up."""
        if self._hung_up is None:
            return
        while (data := self._wire.receive_now()) is not None:
            self._unread += data
            if not data or len(self._unread) > AHEAD_BYTES_MAX:
                self.has_left()
                return

    async def _turn_down(self, bad: BadRequest) -> None:
        """Answer bytes that were no request."""
        self._lingers = True
        refusal = Refusal(RefusalKind.INVALID_PARAMETER, bad.reason, code=MALFORMED_CODE)
        body = error_body(refusal)
        response = Response(to_head=False, is_http_1_0=False, keep_alive=False)
        headers = (
            (b"content-type", b"application/json"),
            (b"x-should-retry", b"false"),
            (b"content-length", b"%d" % len(body)),
        )
        response.start(bad.status, headers, date())
        await self.send(response.end(body))

    async def _close(self) -> None:
        if self.is_gone:
            self._wire.break_off()
        else:
            with trio.CancelScope(shield=True):  # a second or so at most
                await self._wire.close(unread=self._lingers or bool(self._unread))


class _Told(AbstractAsyncContextManager[End, None]):
    """While this is entered, a hang-up ends what is being done for the client."""

    __slots__ = ("_connection", "_hung_up")

    def __init__(self, connection: Http1Connection[AdmittedT], hung_up: Callable[[], None]) -> None:
        self._connection = connection
        self._hung_up = hung_up

    async def __aenter__(self) -> End:
        self._connection.watch(self._hung_up)
        return self._connection.end

    async def __aexit__(self, *_: object) -> None:
        self._connection.watch(None)


class Http1Client:
    """The client behind one request of a connection."""

    def __init__(self, connection: Http1Connection[AdmittedT], response: Response) -> None:
        """Answer on `connection`, framed by `response`."""
        self._connection = connection
        self._response = response

    @property
    def may_go_on(self) -> bool:
        """Whether the answer is whole and the connection good for another request."""
        return self._response.complete and self._response.keep_alive

    async def start(self, status: int, headers: Headers) -> None:
        """Compose the head; it goes out with the first piece, in one packet."""
        if self._connection.is_draining:
            self._response.keep_alive = False
        self._response.start(status, headers, date())

    async def write(self, data: bytes) -> None:
        """Send a piece of the body now."""
        await self._connection.send(self._response.piece(data))

    def write_now(self, data: bytes) -> Awaitable[None] | None:
        """See `Client`."""
        return self._connection.send_now(self._response.piece(data))

    async def finish(self, data: bytes = b"") -> None:
        """Send the last piece of the body and the end of the message."""
        await self._connection.send(self._response.end(data))

    async def gone(self) -> None:
        """Return once the client has hung up."""
        await self._connection.gone()

    def watching(self, hung_up: Callable[[], None]) -> AbstractAsyncContextManager[End]:
        """See `Client`."""
        return self._connection.watching(hung_up)


_date = (0, b"")


def date() -> bytes:
    """The Date of a response; composed once a second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = now, formatdate(now, usegmt=True).encode("ascii")
    return _date[1]
