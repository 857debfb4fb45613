"""The core as an ASGI application: head, bounded body, answer, hang-up, lifespan.

Runs under Hypercorn in the daemon and under any ASGI server or test client. A body is always read
to its end, within limits, before anything is answered: answering earlier can lose the answer to a
broken pipe.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Generic, cast

import trio

from cortexd.dialects.refusals import Refusal
from cortexd.gateway.bodies import Body, BodyLimits, BodyRoom
from cortexd.gateway.exchange import (
    AdmittedT,
    Core,
    End,
    Head,
    Headers,
    Incoming,
    header_map,
)
from cortexd.gateway.hang_ups import watched_by_a_task
from cortexd.gateway.request_ids import new_request_id, usable_request_id

__all__ = ["AsgiApp", "AsgiClient", "BodyLimits", "Core"]

Message = Mapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LENGTH_DIGITS_MAX = 18


class AsgiApp(Generic[AdmittedT]):
    """An ASGI 3 application around a core."""

    def __init__(self, core: Core[AdmittedT], limits: BodyLimits | BodyRoom) -> None:
        """Serve `core`. A `BodyRoom` is shared with another face; `BodyLimits` get one of their
        own.
        """
        self._core = core
        self.room = limits if isinstance(limits, BodyRoom) else BodyRoom(limits)

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
        refusal = admitted if isinstance(admitted, Refusal) else None
        body = Body(self.room, refusal=refusal, declared=_declared(head))
        try:
            with trio.move_on_after(self.room.limits.body_seconds) as patience:
                if not await _read(body, receive):
                    return  # the client has gone
            if patience.cancelled_caught:
                body.took_too_long()
            if body.refusal is not None:
                await self._core.refuse(body.refusal, head, client)
            else:
                whole = Incoming(head, body.whole())
                await self._core.serve(cast("AdmittedT", admitted), whole, client)
        finally:
            body.release()


async def _read(body: Body, receive: Receive) -> bool:
    """Read to the end, or until nobody waits for it; False when the client has gone."""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return False
        body.take(cast("bytes", message.get("body", b"")))
        if not message.get("more_body", False) or body.is_beyond:
            return True


def _declared(head: Head) -> int:
    declared = head.headers.get(b"content-length", b"")
    if not declared.isdigit():
        return 0
    return int(declared[:_LENGTH_DIGITS_MAX])  # more digits than that are too large either way


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

    def write_now(self, data: bytes) -> Awaitable[None] | None:
        """See `Client`. ASGI always has to wait."""
        return self.write(data)

    async def finish(self, data: bytes = b"") -> None:
        """Send the last piece of the body and the end of the message."""
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def gone(self) -> None:
        """Return once the client has hung up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def watching(self, hung_up: Callable[[], None]) -> AbstractAsyncContextManager[End]:
        """See `Client`. Needs a task of its own."""
        return watched_by_a_task(self.gone, hung_up)


def _head(scope: Message) -> Head:
    headers = header_map(cast("Iterable[tuple[bytes, bytes]]", scope["headers"]))
    request_id = usable_request_id(headers.get(b"x-request-id"))
    return Head(
        method=str(scope["method"]),
        path=str(scope["path"]),
        headers=headers,
        request_id=request_id or new_request_id(),
    )


async def _live(receive: Receive, send: Send) -> None:
    """The ASGI lifespan: nothing to start or stop, but it must be answered in full."""
    while True:
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return
