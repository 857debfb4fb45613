"""Connections, guarded: who speaks on each, how many there are, and how they end.

Serves a core on listening sockets: HTTP/1.1 by the fast face where there is one, HTTP/2 (by ALPN,
or where a client begins with it) by Hypercorn. Whatever happens in one connection stays in it and
is counted. Refuses to know what is asked and answered.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Protocol

import trio

from cortexd.daemon.accepting import Accepted, Listener, Stream, accept
from cortexd.daemon.server_limits import HANDSHAKE_SECONDS, ServerLimits
from cortexd.gateway.http1_wire import PlainWire, TlsWire, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cortexd.daemon.hypercorn_connection import (
        AsgiApplication,
        Hypercorn,
        HypercornConnection,
    )

__all__ = ["Closing", "Listener", "ServerLimits", "leaves", "serve"]

log = logging.getLogger("cortexd.http")

_TURN_AWAY_SECONDS = 1
_TURNED_AWAY_BODY = (
    b'{"error":{"message":"Too many connections; try again in a moment.",'
    b'"type":"api_error","param":null,"code":"overloaded"}}'
)
_TURNED_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
) % (len(_TURNED_AWAY_BODY), _TURNED_AWAY_BODY)


class Closing:
    """How a server is asked to stop: `drain` stops accepting; `hurry`, or the grace, ends the
    rest.
    """

    def __init__(self, grace_seconds: float) -> None:
        """Running requests get `grace_seconds` after `drain` is set."""
        self.grace_seconds = grace_seconds
        self.drain = trio.Event()
        self.hurry = trio.Event()


class Conversation(Protocol):
    """One connection of the fast face."""

    async def run(self) -> bytes:
        """Serve it to its end; or return what has come of it, when it is HTTP/2 after all."""

    def drain(self) -> None:
        """Let it go now if it is idle, or after its answer."""


class Face(Protocol):
    """The fast face, as far as this module has to know it."""

    async def watch(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Notice hang-ups on all connections, until cancelled."""

    def connection(self, wire: Wire) -> Conversation:
        """A connection that has just been accepted."""


async def serve(
    app: AsgiApplication,
    listeners: Sequence[Listener],
    limits: ServerLimits,
    closing: Closing,
    *,
    contained: Callable[[], None],
    fast: Face | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `closing`; returns when the last connection has ended.

    HTTP/1.1 is served by the `fast` face, or by `app` without one; HTTP/2 always by `app`.
    `contained` is called for every connection that ended in an exception.
    """
    server = _Server(app, fast, limits, contained)
    if fast is None or any(isinstance(listener, trio.SSLListener) for listener in listeners):
        server.hypercorn()  # it will be needed, and here nobody waits for it
    async with trio.open_nursery() as connections:
        if fast is not None:
            await connections.start(fast.watch, name="hang-ups")
        async with trio.open_nursery() as accepting:
            for listener in listeners:
                await accepting.start(
                    accept, listener, server.connection, connections, name="accept connections"
                )
            task_status.started()
            await closing.drain.wait()
            accepting.cancel_scope.cancel(reason="draining")
        await server.drain(closing)
        connections.cancel_scope.cancel(reason="grace is over")


class _Server:
    """What the connections of one listener share."""

    def __init__(
        self,
        app: AsgiApplication,
        fast: Face | None,
        limits: ServerLimits,
        contained: Callable[[], None],
    ) -> None:
        self.fast = fast
        self.limits = limits
        self.contained = contained
        self.live: set[_Guarded] = set()
        self.ended = trio.Event()
        self.is_draining = False
        self._app = app
        self._hypercorn: Hypercorn | None = None

    def hypercorn(self) -> Hypercorn:
        """Who speaks HTTP/2. Without TLS hardly any client does, so whoever is the first pays for
        importing it, once: some 50 ms, for which the others wait as well.
        """
        if self._hypercorn is None:
            from cortexd.daemon.hypercorn_connection import Hypercorn

            self._hypercorn = Hypercorn(self._app, self.limits)
        return self._hypercorn

    async def connection(self, accepted: Accepted) -> None:
        """Serve one accepted connection; nothing that happens in it leaves it."""
        if len(self.live) >= self.limits.connections_max:
            await _turn_away(accepted)
            return
        guarded = _Guarded(self, accepted)
        self.live.add(guarded)
        try:
            await guarded.run()
        except* Exception as faults:
            self.contained()
            kinds = sorted({type(fault).__name__ for fault in leaves(faults)})
            log.warning("event=connection_contained faults=%s", ",".join(kinds))
        finally:
            self.live.discard(guarded)
            guarded.close()
            if not self.live:
                self.ended.set()

    async def drain(self, closing: Closing) -> None:
        """Let idle connections go now and busy ones within the grace; then break off the rest."""
        self.is_draining = True
        if self._hypercorn is not None:
            await self._hypercorn.drain()
        self.ended = trio.Event()
        for guarded in self.live:
            guarded.drain()
        if self.live:
            with trio.move_on_after(closing.grace_seconds):
                async with trio.open_nursery() as waiting:
                    waiting.start_soon(_wait_then_cancel, closing.hurry, waiting, name="hurry")
                    await self.ended.wait()
                    waiting.cancel_scope.cancel(reason="all connections ended")
        for guarded in self.live:
            guarded.break_off()


class _Guarded:
    """One accepted connection, from finding out who speaks on it to its end."""

    def __init__(self, server: _Server, accepted: Accepted) -> None:
        self._server = server
        self._accepted = accepted
        self._conversation: Conversation | None = None
        self._hypercorn: HypercornConnection | None = None

    async def run(self) -> None:
        server, accepted = self._server, self._accepted
        if server.fast is None:
            await self._run_hypercorn(_stream(accepted))
            return
        stall_seconds = server.limits.send_stall_seconds
        if isinstance(accepted, socket.socket):
            wire: Wire = PlainWire(accepted, stall_seconds=stall_seconds)
        else:
            if not await _shake_hands(accepted):
                return
            if accepted.selected_alpn_protocol() == "h2":
                await self._run_hypercorn(accepted)
                return
            wire = TlsWire(accepted, stall_seconds=stall_seconds)
        self._conversation = server.fast.connection(wire)
        if server.is_draining:
            self._conversation.drain()
        already_read = await self._conversation.run()
        if already_read:
            await self._run_hypercorn(_stream(accepted), already_read)

    async def _run_hypercorn(self, stream: Stream, already_read: bytes = b"") -> None:
        self._hypercorn = self._server.hypercorn().connection(stream, already_read)
        await self._hypercorn.run()

    def drain(self) -> None:
        if self._conversation is not None:
            self._conversation.drain()

    def break_off(self) -> None:
        """End what a cancel would not."""
        if self._hypercorn is not None:
            self._hypercorn.break_off()

    def close(self) -> None:
        """Close the socket at once; it may be closed already."""
        accepted = self._accepted
        if isinstance(accepted, trio.SSLStream):
            accepted.transport_stream.socket.close()
        elif accepted.fileno() >= 0:
            trio.lowlevel.notify_closing(accepted)
            accepted.close()


def _stream(accepted: Accepted) -> Stream:
    """What Hypercorn wants of a connection."""
    if isinstance(accepted, socket.socket):
        return trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
    return accepted


async def _shake_hands(stream: trio.SSLStream[trio.SocketStream]) -> bool:
    with trio.move_on_after(HANDSHAKE_SECONDS):
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError:
            return False
        return True
    return False


async def _turn_away(accepted: Accepted) -> None:
    """One connection too many: say so where that can be said in plain bytes, and close."""
    stream = _stream(accepted)
    if isinstance(stream, trio.SocketStream):
        with trio.move_on_after(_TURN_AWAY_SECONDS):
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await stream.send_all(_TURNED_AWAY)
    await trio.aclose_forcefully(stream)


async def _wait_then_cancel(event: trio.Event, nursery: trio.Nursery) -> None:
    await event.wait()
    nursery.cancel_scope.cancel(reason="hurry")


def leaves(group: BaseExceptionGroup[BaseException]) -> Sequence[BaseException]:
    """The exceptions in a group of groups."""
    found: list[BaseException] = []
    for fault in group.exceptions:
        found += leaves(fault) if isinstance(fault, BaseExceptionGroup) else [fault]
    return found
