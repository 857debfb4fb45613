"""A small HTTP/1.1 server whose every byte is under control, for the simulated neuron.

Owns: connections, request parsing (llhttp), framing of replies, and the ways a connection can
end: kept alive, closed in the middle, reset, or dropped by the client. It notices a client that
hangs up while a reply is on its way or has not begun, and cancels that reply. It knows no path,
no JSON and no neuron.
"""

import enum
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

import httptools
import msgspec
import trio

BODY_BYTES_MAX = 64 * 1024 * 1024
_READ_BYTES = 65536
_PIPELINED_MAX = 8
_LINGER_ZERO = struct.pack("ii", 1, 0)

Listening = socket.socket
Headers = Sequence[tuple[bytes, bytes]]


class Request(msgspec.Struct, frozen=True):
    """One request, read whole.

    Header names are lower case; `path` is still percent-encoded and has no query.
    """

    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    keep_alive: bool

    def header(self, name: bytes) -> str | None:
        """The last value of header `name` (lower case), or None."""
        for known, value in reversed(self.headers):
            if known == name:
                return value.decode("latin-1")
        return None


class Framing(enum.Enum):
    """How the end of a body is told: by its length, by chunks, or by closing the connection."""

    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until_close"


class Reply:
    """The writing side of one request.

    Every method may raise `trio.BrokenResourceError` when the client is gone.
    """

    def __init__(self, stream: trio.SocketStream, *, keep_alive: bool) -> None:
        self._stream = stream
        self._framing = Framing.LENGTH
        self.keep_alive = keep_alive
        self.complete = False
        self.dribble = False
        """Set to send byte by byte, each in its own write."""

    @property
    def descriptor(self) -> int:
        """Of the connection; -1 once it is closed."""
        return self._stream.socket.fileno()

    async def send(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """A whole reply with a Content-Length."""
        await self.start(status, headers, Framing.LENGTH, body_bytes=len(body))
        await self.write(body)
        await self.end()

    async def start(
        self, status: int, headers: Headers, framing: Framing, *, body_bytes: int = 0
    ) -> None:
        """The head. `body_bytes` is announced with LENGTH only, and may be a lie."""
        self._framing = framing
        lines = [b"HTTP/1.1 %d %s" % (status, _phrase(status))]
        lines += [name + b": " + value for name, value in headers]
        if framing is Framing.CHUNKED:
            lines.append(b"transfer-encoding: chunked")
        elif framing is Framing.LENGTH:
            lines.append(b"content-length: %d" % body_bytes)
        else:
            self.keep_alive = False
        if not self.keep_alive:
            lines.append(b"connection: close")
        await self.raw(b"\r\n".join(lines) + b"\r\n\r\n")

    async def write(self, data: bytes) -> None:
        """A piece of the body, framed as `start` announced."""
        if not data:
            return
        if self._framing is Framing.CHUNKED:
            data = b"%x\r\n%s\r\n" % (len(data), data)
        await self.raw(data)

    async def end(self) -> None:
        """The regular end of the body.

        The connection is used again unless either side said otherwise.
        """
        if self._framing is Framing.CHUNKED:
            await self.raw(b"0\r\n\r\n")
        self.complete = True

    async def raw(self, data: bytes) -> None:
        """Bytes as they are, outside of any framing."""
        if self.dribble:
            for position in range(len(data)):
                await self._stream.send_all(data[position : position + 1])
        else:
            await self._stream.send_all(data)

    def reset(self) -> None:
        """Ends the connection with an RST, whatever was announced."""
        self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self.close()

    def close(self) -> None:
        """Ends the connection with a FIN, whatever was announced."""
        self.complete, self.keep_alive = True, False
        self._stream.socket.close()


Answer = Callable[[Request, Reply], Awaitable[None]]


async def serve_http(
    listening: socket.socket,
    answer: Answer,
    hung_up: Callable[[Request], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until cancelled, then closes every connection. Takes over the listening socket.

    `answer` writes one reply and is cancelled when its client hangs up; `hung_up` is then called
    with the request.
    """
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))

    async def serve_one(stream: trio.SocketStream) -> None:
        await _Connection(stream, answer, hung_up).serve()

    async with listener:
        task_status.started()
        await trio.serve_listeners(serve_one, [listener])


def bind(host: str, port: int) -> socket.socket:
    """A listening socket (port 0: a free one), usable before Trio runs.

    Raises OSError when the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


class _Connection:
    """One client.

    A task that reads ahead, so that EOF is noticed, beside the one that answers in order.
    """

    def __init__(
        self, stream: trio.SocketStream, answer: Answer, hung_up: Callable[[Request], None]
    ) -> None:
        self._stream = stream
        self._answer = answer
        self._hung_up = hung_up
        self._answering = False
        self._client_gone = False

    async def serve(self) -> None:
        send, receive = trio.open_memory_channel[Request](_PIPELINED_MAX)
        async with self._stream, trio.open_nursery() as nursery:
            nursery.start_soon(
                self._read, send, nursery.cancel_scope, name="demo connection reader"
            )
            async with receive:
                async for request in receive:
                    if not await self._answer_one(request):
                        break
            nursery.cancel_scope.cancel(reason="the last reply on this connection is out")

    async def _answer_one(self, request: Request) -> bool:
        """Whether the connection can be used again.

        Tells of a hang-up only when the reply has really stopped.
        """
        reply = Reply(self._stream, keep_alive=request.keep_alive)
        self._answering = True
        try:
            await self._answer(request, reply)
        except trio.BrokenResourceError:
            self._client_gone = True
        finally:
            self._answering = False
            if self._client_gone and not reply.complete:
                self._hung_up(request)
        return reply.complete and reply.keep_alive and not self._client_gone

    async def _read(
        self, send: trio.MemorySendChannel[Request], connection: trio.CancelScope
    ) -> None:
        """Parses until EOF or an error, then ends the connection and the reply under way."""
        try:
            async with send:
                await self._read_requests(send)
        except trio.BrokenResourceError:
            self._client_gone = True
        except trio.ClosedResourceError:
            pass  # this side closed or reset the connection on purpose
        connection.cancel(reason="this connection has ended")

    async def _read_requests(self, send: trio.MemorySendChannel[Request]) -> None:
        parsed = _Parsed()
        while data := await self._stream.receive_some(_READ_BYTES):
            try:
                parsed.parser.feed_data(data)
            except httptools.HttpParserError:
                if not self._answering:
                    await Reply(self._stream, keep_alive=False).send(400, b"bad request\n")
                return
            for request in parsed.take():
                await send.send(request)
        self._client_gone = True


class _Parsed:
    """Callbacks of llhttp that collect whole requests."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self._done: list[Request] = []
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()

    def take(self) -> list[Request]:
        done, self._done = self._done, []
        return done

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = []
        self._body = bytearray()

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_body(self, part: bytes) -> None:
        if len(self._body) + len(part) > BODY_BYTES_MAX:
            raise httptools.HttpParserError("body too large")
        self._body += part

    def on_message_complete(self) -> None:
        self._done.append(
            Request(
                method=self.parser.get_method().decode("ascii"),
                path=urlsplit(self._target.decode("latin-1")).path,
                headers=tuple(self._headers),
                body=bytes(self._body),
                keep_alive=self.parser.should_keep_alive(),
            )
        )


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Unknown"
