"""A client's connection as bytes, plain or TLS: in, out within a deadline, and closed.

Owns sockets, their errors and slow readers, all of which come out as "the client has gone".
Refuses to know HTTP. Plain TCP works on the descriptor and waits only where the kernel makes it;
TLS goes through trio's own stream.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Protocol

import trio

RECEIVE_BYTES = 65_536
_STRIDE_BYTES = 65_536
_LINGER_SECONDS = 1
_NOTSENT_LOWAT_BYTES = 16_384  # of what a slow client leaves in the kernel, as trio has it


class Wire(Protocol):
    """What the face needs of a connection. One task may receive while another sends."""

    @property
    def descriptor(self) -> int | None:
        """Where the kernel can tell of a hang-up by itself; None when one has to read for it."""

    async def receive(self) -> bytes:
        """Wait for bytes; b"" once the client has gone. A cancel loses nothing."""

    def receive_now(self) -> bytes | None:
        """What has come already; None when one has to wait, b"" once the client has gone."""

    def send_now(self, data: bytes) -> int:
        """Send what goes without waiting; how much that was. Of an error `send` tells."""

    async def send(self, data: bytes) -> bool:
        """Send all of it; False when the client has gone, or takes nothing for too long.

        A cancel leaves an unknown part sent.
        """

    def break_off(self) -> None:
        """Close at once, whoever is waiting; may be called again."""

    async def close(self, *, unread: bool) -> None:
        """Close so that everything sent can arrive; `unread`: the client may still be sending.

        Takes a second or so at most.
        """


class PlainWire:
    """A TCP or Unix connection, on the descriptor."""

    __slots__ = ("_socket", "_stall_seconds")

    def __init__(self, connected: socket.socket, *, stall_seconds: float) -> None:
        """Take over a connected socket. Each 64 KiB must be taken within `stall_seconds`."""
        self._socket = connected
        self._stall_seconds = stall_seconds
        connected.setblocking(False)
        if connected.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):  # it may be gone already
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connected.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOTSENT_LOWAT_BYTES
                )

    async def receive(self) -> bytes:
        """See `Wire`. Always checkpoints."""
        while True:
            try:
                await trio.lowlevel.wait_readable(self._socket)
                return self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                return b""

    @property
    def descriptor(self) -> int | None:
        """See `Wire`."""
        return self._socket.fileno()

    def receive_now(self) -> bytes | None:
        """See `Wire`."""
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def send_now(self, data: bytes) -> int:
        """See `Wire`."""
        try:
            return self._socket.send(data)
        except OSError:
            return 0

    async def send(self, data: bytes) -> bool:
        """See `Wire`. Checkpoints only if it has to wait."""
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        return sent == len(data) or await self._send_rest(memoryview(data)[sent:])

    async def _send_rest(self, rest: memoryview) -> bool:
        with trio.CancelScope() as patience:
            while rest:
                patience.deadline = trio.current_time() + self._stall_seconds
                goal = max(0, len(rest) - _STRIDE_BYTES)
                while len(rest) > goal:
                    try:
                        await trio.lowlevel.wait_writable(self._socket)
                        rest = rest[self._socket.send(rest) :]
                    except BlockingIOError:
                        continue
                    except (OSError, trio.ClosedResourceError):
                        return False
            return True
        return False

    def break_off(self) -> None:
        """See `Wire`."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    async def close(self, *, unread: bool) -> None:
        """See `Wire`. To close with bytes unread would reset the connection, and what we sent last
        would be lost on its way.
        """
        if unread:
            with trio.move_on_after(_LINGER_SECONDS), contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
                while await self.receive():
                    pass
        self.break_off()


class TlsWire:
    """A TLS connection whose handshake is done."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream], *, stall_seconds: float) -> None:
        """Take over a stream. Each 64 KiB must be taken within `stall_seconds`."""
        self._stream = stream
        self._stall_seconds = stall_seconds

    async def receive(self) -> bytes:
        """See `Wire`."""
        try:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    @property
    def descriptor(self) -> int | None:
        """See `Wire`."""
        return None

    def receive_now(self) -> bytes | None:
        """See `Wire`. TLS always has to wait."""
        return None

    def send_now(self, data: bytes) -> int:
        """See `Wire`. TLS always has to wait."""
        return 0

    async def send(self, data: bytes) -> bool:
        """See `Wire`."""
        rest = memoryview(data)
        with trio.CancelScope() as patience:
            while rest:
                patience.deadline = trio.current_time() + self._stall_seconds
                try:
                    await self._stream.send_all(rest[:_STRIDE_BYTES])
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return False
                rest = rest[_STRIDE_BYTES:]
            return True
        return False

    def break_off(self) -> None:
        """See `Wire`."""
        self._stream.transport_stream.socket.close()

    async def close(self, *, unread: bool) -> None:
        """See `Wire`. Says goodbye in TLS too, so that nobody takes the end for a cut."""
        with trio.move_on_after(_LINGER_SECONDS):
            try:
                if unread:
                    await self._stream.transport_stream.send_eof()
                    while await self._stream.transport_stream.receive_some(RECEIVE_BYTES):
                        pass
                else:
                    await self._stream.aclose()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        self.break_off()
