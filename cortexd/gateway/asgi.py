"""The core as an ASGI application: head, bounded body, answer, hang-up, lifespan.

Runs under Hypercorn in the daemon and under any ASGI server or test client. A body is always read
to its end, within limits, before anything is answered: answering earlier can lose the answer to a
broken pipe. What a refused caller sends is read and thrown away, never kept.
"""

import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Generic, Protocol, TypeVar, cast

import msgspec
import trio

from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.gateway.exchange import (
    Client,
    Head,
    Headers,
    Incoming,
    header_map,
    usable_request_id,
)

Message = Mapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

AdmittedT = TypeVar("AdmittedT")


class Core(Protocol[AdmittedT]):
    """What a face needs of a core: judge a head, then answer the whole request."""

    def admit(self, head: Head) -> AdmittedT | Refusal:
        """Judge by the head alone."""

    async def refuse(self, refusal: Refusal, head: Head, client: Client) -> None:
        """Answer a request that is refused before its body was kept."""

    async def serve(self, admitted: AdmittedT, incoming: Incoming, client: Client) -> None:
        """Answer a whole request."""


class BodyLimits(msgspec.Struct, frozen=True):
    """How much request body is kept: of one request, of all together, and for how long it may
    come.
    """

    body_bytes_max: int
    bodies_bytes_max: int
    body_seconds: float


class AsgiApp(Generic[AdmittedT]):
    """An ASGI 3 application around a core."""

    def __init__(self, core: Core[AdmittedT], limits: BodyLimits) -> None:
        """Serve `core` within `limits`."""
        self._core = core
        self._limits = limits
        self._bytes_kept = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        head = _head(scope)
        client = AsgiClient(receive, send)
        admitted = self._core.admit(head)
        body = _Body(self._limits, refusal=admitted if isinstance(admitted, Refusal) else None)
        try:
            with trio.move_on_after(self._limits.body_seconds) as patience:
                await body.read(head, receive, self._keep)
            if patience.cancelled_caught:
                body.refuse(RefusalKind.REQUEST_TIMEOUT, "The request body took too long to come.")
            if body.client_gone:
                return
            if body.refusal is not None:
                await self._core.refuse(body.refusal, head, client)
            else:
                whole = Incoming(head, b"".join(body.pieces))
                body.pieces.clear()
                await self._core.serve(cast("AdmittedT", admitted), whole, client)
        finally:
            self._bytes_kept -= body.bytes_kept

    def _keep(self, size: int) -> bool:
        """Take `size` bytes into the memory that all bodies share; False when it is used up."""
        if self._bytes_kept + size > self._limits.bodies_bytes_max:
            return False
        self._bytes_kept += size
        return True


class _Body:
    """A request body while it is read: its pieces, or the refusal that the rest is thrown away
    for.
    """

    def __init__(self, limits: BodyLimits, *, refusal: Refusal | None) -> None:
        self.pieces: list[bytes] = []
        self.bytes_kept = 0
        self.refusal = refusal
        self.client_gone = False
        self._limits = limits

    def refuse(
        self, kind: RefusalKind, message: str, retry_after_seconds: int | None = None
    ) -> None:
        """Refuse, unless it was refused already, and let go of what was kept."""
        if self.refusal is None:
            self.refusal = Refusal(kind, message, retry_after_seconds=retry_after_seconds)
        self.pieces.clear()

    async def read(self, head: Head, receive: Receive, keep: Callable[[int], bool]) -> None:
        """Read to the end. Past twice the limit nobody waits for the end any more."""
        limit = self._limits.body_bytes_max
        size = 0
        declared = head.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limit:
            self._too_large(limit)
        while True:
            message = await receive()
            if message["type"] != "http.request":
                self.client_gone = True
                return
            piece = cast("bytes", message.get("body", b""))
            size += len(piece)
            if size > limit:
                self._too_large(limit)
            elif piece and self.refusal is None:
                self._take(piece, keep)
            if not message.get("more_body", False) or size > 2 * limit:
                return

    def _take(self, piece: bytes, keep: Callable[[int], bool]) -> None:
        if keep(len(piece)):
            self.pieces.append(piece)
            self.bytes_kept += len(piece)
        else:
            self.refuse(
                RefusalKind.OVERLOADED,
                "Too many large requests are being read at once; try again in a moment.",
                retry_after_seconds=1,
            )

    def _too_large(self, limit: int) -> None:
        self.refuse(
            RefusalKind.REQUEST_TOO_LARGE, f"The request body is larger than {limit} bytes."
        )


class AsgiClient:
    """The client behind an ASGI connection."""

    def __init__(self, receive: Receive, send: Send) -> None:
        """Answer through `send`; `receive` is only read to notice a hang-up."""
        self._receive = receive
        self._send = send

    async def start(self, status: int, headers: Headers) -> None:
        """Send the response head."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """Send a piece of the body now."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        """Send the last piece of the body and the end of the message."""
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def gone(self) -> None:
        """Return once the client has hung up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _head(scope: Message) -> Head:
    headers = header_map(cast("Iterable[tuple[bytes, bytes]]", scope["headers"]))
    request_id = usable_request_id(headers.get(b"x-request-id"))
    return Head(
        method=str(scope["method"]),
        path=str(scope["path"]),
        headers=headers,
        request_id=request_id or "req_" + secrets.token_hex(12),
    )


async def _live(receive: Receive, send: Send) -> None:
    """The ASGI lifespan: nothing to start or stop, but it must be answered in full."""
    while True:
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return
