"""Hypercorn, guarded: the one door to it. It speaks HTTP/2, and all else where no face is fast.

Stock Hypercorn 0.18 on Trio has two faults that a gateway with budgets cannot have: an exception in
one connection (which a client can cause with a few stray bytes) ends the whole server, and a client
that never reads pins its request and the shutdown for ever. Here every send has a deadline, heads
must arrive in time, and a hang-up is always seen; `http_server.py` contains what is raised.

Imported when somebody first speaks HTTP/2, as Hypercorn is a tenth of an idle daemon's memory.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    AppWrapper,
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    ConnectionState,
    Scope,
)

from cortexd.daemon.accepting import Stream
from cortexd.daemon.server_limits import HANDSHAKE_SECONDS, ServerLimits

AsgiApplication = Callable[
    [
        Mapping[str, object],
        Callable[[], Awaitable[Mapping[str, object]]],
        Callable[[Mapping[str, object]], Awaitable[None]],
    ],
    Awaitable[None],
]

_CLOSE_SECONDS = 1
_UNSENT_BYTES_MAX = 262_144  # of an HTTP/2 stream, beyond which its sender waits
_READS_AHEAD = 4  # reads of up to 64 KiB that wait for the protocol


class Hypercorn:
    """What Hypercorn's connections of one listener share."""

    def __init__(self, app: AsgiApplication, limits: ServerLimits) -> None:
        """Serve `app`."""
        self.app = ASGIWrapper(cast("ASGIFramework", app))
        self.limits = limits
        self.config = _hypercorn_config(limits)
        self.context = WorkerContext(None)

    def connection(self, stream: Stream, already_read: bytes = b"") -> "HypercornConnection":
        """A connection, to be `run`. `already_read`: what has been received of it before."""
        return HypercornConnection(self, stream, already_read)

    async def drain(self) -> None:
        """Let idle connections go now, and busy ones after their answer."""
        await self.context.terminated.set()


class HypercornConnection(TCPServer):
    """Hypercorn's connection with deadlines on what it waits for."""

    def __init__(self, server: Hypercorn, stream: Stream, already_read: bytes) -> None:
        """For `Hypercorn` only."""
        super().__init__(
            _with_deadline(server.app, self),
            server.config,
            server.context,
            ConnectionState({}),
            cast("trio.SSLStream[trio.SocketStream]", stream),
        )
        self.limits = server.limits
        self._already_read = already_read
        self._sending: trio.CancelScope | None = None
        self._waiting_for_head = True
        self._patience_seconds = server.limits.head_seconds
        self._broken_off = False
        self._client_is_gone = False
        self._at_work = trio.Lock()
        self._leaves = False

    def break_off(self) -> None:
        """End a send that is under way, and all later ones at once."""
        self._broken_off = True
        if self._sending is not None:
            self._sending.cancel(reason="the server stops")

    async def protocol_send(self, event: Event) -> None:
        """Send with a deadline, shielded: half a frame would corrupt the streams beside it."""
        if isinstance(event, RawData):
            if event.data and not await self._send_in_time(event.data):
                await self.protocol.handle(Closed())
            return
        if isinstance(event, Updated):
            if self._client_is_gone:
                return
            self._waiting_for_head = event.idle
            limits = self.limits
            self._patience_seconds = (
                limits.head_seconds if self._has_half_a_head() else limits.idle_seconds
            )
        await super().protocol_send(event)

    def _has_half_a_head(self) -> bool:
        """Whether the next request began to arrive before the last one was answered."""
        protocol = self.protocol.protocol
        return isinstance(protocol, H11Protocol) and bool(protocol.connection.trailing_data[0])

    async def _send_in_time(self, data: bytes) -> bool:
        """True when sent; otherwise the connection is closed and False is returned."""
        async with self.send_lock:
            seconds = 0.0 if self._broken_off else self.limits.send_stall_seconds
            with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds) as scope:
                self._sending = scope
                try:
                    await self.stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                    return False
                finally:
                    self._sending = None
            if scope.cancelled_caught:
                await trio.aclose_forcefully(self.stream)
                return False
        return True

    async def _read_data(self) -> None:
        """Read in one task and have the protocol work in another, so that a hang-up is always seen.

        The stock class does both in one, and stops reading while bytes that came after a request
        wait for its answer: their sender could leave unnoticed.
        """
        unread, arrived = trio.open_memory_channel[bytes](_READS_AHEAD)
        if self._already_read:
            unread.send_nowait(self._already_read)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._work_on, arrived, name="protocol")
            await self._receive(unread)
            nursery.cancel_scope.cancel(reason="the client is gone")
        # Only now: a request that was just being begun would miss its disconnect.
        self._client_is_gone = True
        await self.protocol.handle(Closed())
        await self.idle_task.stop()  # or it would keep the place of a closed connection

    async def _receive(self, unread: trio.MemorySendChannel[bytes]) -> None:
        """Read until the client has gone, or has sent too much ahead of its answer."""
        while True:
            try:
                data = bytes(await self.stream.receive_some(MAX_RECV))
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                return
            if not data:
                return
            try:
                unread.send_nowait(data)
            except trio.WouldBlock:
                if self._awaits_an_answer():
                    return
                await unread.send(data)

    async def _work_on(self, arrived: trio.MemoryReceiveChannel[bytes]) -> None:
        """Hand what arrived to the protocol; the first bytes of a head start its clock."""
        async for data in arrived:
            head_seconds = self.limits.head_seconds
            if self._waiting_for_head and self._patience_seconds != head_seconds:
                self._patience_seconds = head_seconds
                await self.idle_task.restart(self._task_group, self._idle_timeout)
            async with self._at_work:
                if self._leaves:
                    return
                await self.protocol.handle(RawData(data))

    async def wait_for_window(self) -> None:
        """Wait until no stream of an HTTP/2 connection holds more than a little unsent data."""
        protocol = self.protocol.protocol
        if isinstance(protocol, H2Protocol):
            for buffer in tuple(protocol.stream_buffers.values()):
                if len(buffer.buffer) > _UNSENT_BYTES_MAX:
                    await buffer.drain()

    def _awaits_an_answer(self) -> bool:
        """Whether the request has been read to its end, so that more bytes are the next one's."""
        protocol = self.protocol.protocol
        return isinstance(protocol, H11Protocol) and protocol.connection.their_state is h11.DONE

    async def _idle_timeout(self) -> None:
        with trio.move_on_after(self._patience_seconds):
            await self.context.terminated.wait()
        # A request that begins in this very moment ends this task here, as the connection is not
        # idle any more. None can begin from here on, since nobody would hear its answer.
        async with self._at_work:
            self._leaves = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_SECONDS):
            await self._initiate_server_close()

    async def _close(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_SECONDS):
            await super()._close()


def _with_deadline(app: AppWrapper, connection: HypercornConnection) -> AppWrapper:
    """The application, whose HTTP/2 sends end when the client grants no window for too long.

    Over HTTP/1.1 each send is a write to the socket, which has its own deadline. Over HTTP/2 it
    only fills a buffer, whose own back-pressure gives way as soon as the window is used up.
    """

    async def call(
        scope: Scope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        sync_spawn: Callable[..., object],
        call_soon: Callable[..., object],
    ) -> None:
        async def send_in_time(message: ASGISendEvent) -> None:
            with trio.move_on_after(connection.limits.send_stall_seconds) as patience:
                await send(message)
                await connection.wait_for_window()
            if patience.cancelled_caught:
                await trio.aclose_forcefully(connection.stream)

        is_http2 = scope["type"] == "http" and scope["http_version"] == "2"
        await app(scope, receive, send_in_time if is_http2 else send, sync_spawn, call_soon)

    return call


def _hypercorn_config(limits: ServerLimits) -> Config:
    config = Config()
    config.errorlog = logging.getLogger("cortexd.http")
    config.include_server_header = False
    config.h11_max_incomplete_size = limits.head_bytes_max
    config.h2_max_header_list_size = limits.head_bytes_max
    config.ssl_handshake_timeout = HANDSHAKE_SECONDS
    config.keep_alive_max_requests = 1_000_000_000
    return config
