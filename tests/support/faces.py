"""Both faces of a core as servers on real sockets, and a client that trusts neither.

`http1` is the fast face as the daemon runs it; `stock` is the ASGI face under stock Hypercorn. The
core here answers by path and remembers what it was asked. Answers are read with h11, which is
strict and none of ours.
"""

import contextlib
import ssl
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Literal, cast

import h11
import msgspec
import trio
import trio.testing
import trustme
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from hypercorn.typing import ASGIFramework

from cortexd.daemon.http_server import Closing, ServerLimits, serve
from cortexd.deadlines import Deadlines, watched_deadlines
from cortexd.dialects.refusals import Refusal, RefusalKind, render
from cortexd.gateway.asgi import AsgiApp
from cortexd.gateway.bodies import BodyLimits, BodyRoom
from cortexd.gateway.exchange import Client, Head, Incoming
from cortexd.gateway.http1 import Http1Face, Http1Limits

FaceName = Literal["http1", "stock"]
Transport = Literal["plain", "tls"]

BODY_LIMITS = BodyLimits(body_bytes_max=100_000, bodies_bytes_max=150_000, body_seconds=5)
LIMITS = ServerLimits(
    connections_max=50,
    head_bytes_max=16_384,
    head_seconds=5,
    idle_seconds=5,
    send_stall_seconds=5,
)
PIECES = (b"one, ", b"two, ", b"three")


class PathCore:
    """A core that does what the path says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Incoming] = []
        self.refused: list[Refusal] = []
        self.at_work = 0
        self.began, self.ended = trio.Event(), trio.Event()
        self.hang_ups = 0

    @property
    def paths(self) -> list[str]:
        """The paths that were served, in order."""
        return [incoming.head.path for incoming in self.asked]

    def hung_up(self) -> None:
        """Count a client that left while it was watched."""
        self.hang_ups += 1

    def admit(self, head: Head) -> str | Refusal:
        """Refuse `/no` by its head."""
        return Refusal(RefusalKind.INVALID_API_KEY, "no") if head.path == "/no" else head.path

    async def refuse(self, refusal: Refusal, head: Head, client: Client) -> None:
        """Answer with the refusal."""
        self.refused.append(refusal)
        rendered = render(refusal, request_id=head.request_id)
        length = (b"content-length", b"%d" % len(rendered.body))
        await client.start(rendered.status, (*rendered.headers, length))
        await client.finish(rendered.body)

    async def serve(self, admitted: str, incoming: Incoming, client: Client) -> None:
        """Answer; `began` and `ended` tell of it."""
        self.asked.append(incoming)
        self.at_work += 1
        self.began.set()
        try:
            await self._answer(admitted, incoming, client)
        finally:
            self.at_work -= 1
            self.ended.set()

    async def _answer(self, path: str, incoming: Incoming, client: Client) -> None:
        match path:
            case "/silent":
                await client.gone()
            case "/watched":
                async with client.watching(self.hung_up):
                    await trio.sleep_forever()
            case "/looked":
                async with client.watching(self.hung_up):
                    await trio.testing.wait_all_tasks_blocked()
                await client.start(200, ((b"content-length", b"5"),))
                await client.finish(b"there")
            case "/flood":
                await self._flood(client)
            case "/pieces":
                await client.start(200, ((b"content-type", b"text/plain"),))
                for piece in PIECES:
                    await client.write(piece)
                await client.finish()
            case "/empty" | "/unchanged":
                await client.start(204 if path == "/empty" else 304, ())
                await client.finish()
            case "/unfinished":
                await client.start(200, ())
                await client.write(b"half")
            case "/broken":
                await client.start(200, ((b"content-length", b"10"),))
                await client.write(b"half")
                raise ZeroDivisionError
            case _:
                length = (b"content-length", b"%d" % len(incoming.body))
                await client.start(200, ((b"content-type", b"text/plain"), length))
                await client.finish(incoming.body)

    async def _flood(self, client: Client) -> None:
        async with trio.open_nursery() as nursery:

            async def pour() -> None:
                await client.start(200, ())
                while True:
                    await client.write(b"x" * 65_536)
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(pour)
            await client.gone()
            nursery.cancel_scope.cancel()


class Answer(msgspec.Struct, frozen=True):
    """One whole answer. `interim`: statuses of what came before it."""

    status: int
    headers: dict[str, str]
    body: bytes
    interim: tuple[int, ...]


class Peer:
    """A client's end of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._ahead = b""

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(data)

    async def send_bytewise(self, data: bytes) -> None:
        """Send bytes one by one; the server gets a chance to look at each."""
        for index in range(len(data)):
            await self.stream.send_all(data[index : index + 1])
            await trio.lowlevel.checkpoint()

    async def answer(self, method: str = "GET") -> Answer:
        """The next whole answer. Raises what h11 raises when it is not HTTP/1.1."""
        reader = h11.Connection(our_role=h11.CLIENT)
        reader.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        reader.send(h11.EndOfMessage())
        if self._ahead:
            reader.receive_data(self._ahead)
        status, headers, body, interim = 0, dict[str, str](), b"", list[int]()
        with trio.fail_after(10):
            while True:
                match reader.next_event():
                    case h11.NEED_DATA:
                        reader.receive_data(bytes(await self.stream.receive_some()))
                    case h11.InformationalResponse() as event:
                        interim.append(event.status_code)
                    case h11.Response() as event:
                        status = event.status_code
                        headers = {name.decode(): text.decode() for name, text in event.headers}
                    case h11.Data() as event:
                        body += bytes(event.data)
                    case h11.EndOfMessage():
                        break
                    case other:
                        raise AssertionError(f"the connection ended with {other!r}")
        self._ahead = reader.trailing_data[0]
        return Answer(status, headers, body, tuple(interim))

    async def is_closed(self) -> bool:
        """Whether the server closes without another byte."""
        return await self.rest() == b""

    async def rest(self) -> bytes:
        """Everything until the end of the connection, however it ends."""
        received, self._ahead = self._ahead, b""
        with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError):
            while data := await self.stream.receive_some():
                received += data
        return received

    def leave(self) -> None:
        """Close at once, without a goodbye in TLS."""
        stream = self.stream
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        assert isinstance(stream, trio.SocketStream)
        stream.socket.close()


class Served:
    """A face that listens, and its core."""

    def __init__(self, core: PathCore, room: BodyRoom, trusting: ssl.SSLContext | None) -> None:
        self.core = core
        self.room = room
        self.closing = Closing(grace_seconds=2)
        self.contained = 0
        self.port = 0
        self._trusting = trusting

    def count(self) -> None:
        """Count a contained connection."""
        self.contained += 1

    @contextlib.asynccontextmanager
    async def peer(self) -> AsyncIterator[Peer]:
        """A connection; left with its socket closed."""
        stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        if self._trusting is not None:
            assert isinstance(stream, trio.SocketStream)
            secured = trio.SSLStream(
                stream, self._trusting, server_hostname="127.0.0.1", https_compatible=True
            )
            with trio.fail_after(10):
                await secured.do_handshake()
            stream = secured
        peer = Peer(stream)
        try:
            yield peer
        finally:
            peer.leave()

    async def is_alive(self) -> bool:
        """Whether a well-behaved client is still answered."""
        async with self.peer() as peer:
            await peer.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            return (await peer.answer()).status == 200


class Certificate:
    """One certificate for all tests: making one takes as long as ten of them."""

    _lock = threading.Lock()
    _made: "Certificate | None" = None

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self.issued = self._authority.issue_cert("127.0.0.1")
        self.trusting = self.client_context("http/1.1")

    def client_context(self, *protocols: str) -> ssl.SSLContext:
        """A client's side of TLS that trusts the server, and offers these protocols."""
        context = ssl.create_default_context()
        context.set_alpn_protocols(protocols)
        self._authority.configure_trust(context)
        return context

    @classmethod
    def shared(cls) -> "Certificate":
        """The one that is made once."""
        with cls._lock:
            cls._made = cls._made or cls()
            return cls._made

    def server_context(self) -> ssl.SSLContext:
        """The server's side of TLS, as the daemon sets it up."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["h2", "http/1.1"])
        self.issued.configure_cert(context)
        return context


@contextlib.asynccontextmanager
async def served(
    face: FaceName,
    transport: Transport,
    directory: Path,
    *,
    limits: ServerLimits = LIMITS,
    body_limits: BodyLimits = BODY_LIMITS,
) -> AsyncIterator[Served]:
    """A face on a free port. Leaving drains it, and every request must then have ended."""
    certificate = Certificate.shared() if transport == "tls" else None
    core, room = PathCore(), BodyRoom(body_limits)
    server = Served(core, room, None if certificate is None else certificate.trusting)
    with trio.fail_after(30):
        async with watched_deadlines() as deadlines, trio.open_nursery() as nursery:
            if face == "stock":
                await _start_stock(nursery, server, limits, certificate, directory)
            else:
                await _start_fast(nursery, server, limits, certificate, deadlines)
            yield server
            server.closing.drain.set()
    assert core.at_work == 0, "a request outlived its server"
    assert room.bytes_kept == 0, "a body outlived its request"


async def _start_fast(
    nursery: trio.Nursery,
    server: Served,
    limits: ServerLimits,
    certificate: Certificate | None,
    deadlines: Deadlines,
) -> None:
    [plain] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server.port = plain.socket.getsockname()[1]
    listener = plain
    if certificate is not None:
        secure = trio.SSLListener(plain, certificate.server_context(), https_compatible=True)
    fast = Http1Limits(limits.head_bytes_max, limits.head_seconds, limits.idle_seconds)
    await nursery.start(
        partial(
            serve,
            AsgiApp(server.core, server.room),
            [listener if certificate is None else secure],
            limits,
            server.closing,
            contained=server.count,
            fast=Http1Face(server.core, fast, server.room, deadlines),
        ),
        name="fast face",
    )


async def _start_stock(
    nursery: trio.Nursery,
    server: Served,
    limits: ServerLimits,
    certificate: Certificate | None,
    directory: Path,
) -> None:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.h11_max_incomplete_size = limits.head_bytes_max
    config.keep_alive_timeout = limits.idle_seconds
    config.graceful_timeout = server.closing.grace_seconds
    if certificate is not None:
        chain, key = directory / "chain.pem", directory / "key.pem"
        certificate.issued.private_key_pem.write_to_path(str(key))
        for blob in certificate.issued.cert_chain_pems:
            blob.write_to_path(str(chain), append=True)
        config.certfile, config.keyfile = str(chain), str(key)
    app = cast("ASGIFramework", AsgiApp(server.core, server.room))
    [url] = await nursery.start(
        partial(hypercorn_serve, app, config, shutdown_trigger=server.closing.drain.wait),
        name="stock Hypercorn",
    )
    server.port = int(url.rpartition(":")[2])
