"""A neuron's end of the wire, scripted by the test: raw bytes on real sockets."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from cortexd.fleet.outgoing import header_lines
from cortexd.fleet.pool import Answer, Outgoing, Pool

if TYPE_CHECKING:
    import ssl


class Peer:
    """One accepted connection, seen from the neuron's side."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self.stream = stream
        self._unread = bytearray()

    async def request(self) -> bytes:
        """The next whole request, head and body; b"" when the other side has closed."""
        while (head_size := self._unread.find(b"\r\n\r\n") + 4) < 4:
            if not await self._more():
                return b""
        found = re.search(rb"(?i)content-length: (\d+)", self._unread[:head_size])
        size = head_size + (int(found[1]) if found else 0)
        while len(self._unread) < size:
            if not await self._more():
                return b""
        request = bytes(self._unread[:size])
        del self._unread[:size]
        return request

    async def _more(self) -> bool:
        data = await self.stream.receive_some(1 << 20)
        self._unread += data
        return bool(data)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def hung_up(self) -> None:
        """Return once the other side has closed."""
        try:
            while await self._more():
                pass
        except trio.BrokenResourceError:
            return

    async def reset(self) -> None:
        """Close with unread data in the buffer, which the kernel turns into a reset."""
        await trio.aclose_forcefully(self.stream)


Script = Callable[[Peer], Awaitable[None]]


class Scripted:
    """A listening neuron. `connections` counts what it has accepted."""

    def __init__(self, url: str, port: int) -> None:
        self.url = url
        self.port = port
        self.connections = 0


@asynccontextmanager
async def scripted(
    *scripts: Script, tls: ssl.SSLContext | None = None, within_seconds: float = 5
) -> AsyncIterator[Scripted]:
    """Serve each new connection by the next script, and all later ones by the last.

    A connection is closed when its script returns. Leaving cancels the scripts. Everything has to
    be done `within_seconds`.
    """
    with trio.fail_after(within_seconds):
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
        server = Scripted(f"{scheme}://{host}:{port}", port)

        async def serve(accepted: trio.SocketStream) -> None:
            script = scripts[min(server.connections, len(scripts) - 1)]
            server.connections += 1
            stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = accepted
            if tls is not None:
                stream = trio.SSLStream(accepted, tls, server_side=True, https_compatible=True)
            try:
                await script(Peer(stream))
            except trio.BrokenResourceError:
                pass
            finally:
                await trio.aclose_forcefully(stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, [listener], name="scripted neuron")
            yield server
            nursery.cancel_scope.cancel()


def answering(*answers: bytes) -> Script:
    """A script that answers one request after the other with raw bytes, then waits for the end."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.send(answer)
        await peer.hung_up()

    return script


def ok(body: bytes, *headers: bytes) -> bytes:
    """A plain 200 with a length."""
    lines = [b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def ask(
    pool: Pool,
    url: str,
    *,
    body: bytes = b"",
    method: str = "POST",
    first_byte_seconds: float = math.inf,
    between_bytes_seconds: float = math.inf,
) -> Answer:
    return await pool.send(
        Outgoing(url, method, "/v1/x", header_lines(((b"a", b"b"),)), body),
        first_byte_seconds=first_byte_seconds,
        between_bytes_seconds=between_bytes_seconds,
    )


async def whole(answer: Answer) -> bytes:
    pieces = []
    while data := await answer.read():
        pieces.append(data)
    return b"".join(pieces)
