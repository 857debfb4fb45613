"""Hypercorn, guarded: what a hostile client cannot do to the others."""

import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import httpx
import pytest
import trio
import trustme
from h2.connection import H2Connection

from cortexd.daemon.http_server import Closing, ServerLimits, serve

Message = Mapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LIMITS = ServerLimits(
    connections_max=50,
    head_bytes_max=65536,
    head_seconds=0.3,
    idle_seconds=5,
    send_stall_seconds=0.5,
)
RACES, CLIENTS = 20, 20
REQUEST = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n"


class Server:
    """A guarded server with an application that answers `/flood` without end."""

    def __init__(self) -> None:
        self.contained = 0
        self.begun, self.first_began = 0, trio.Event()
        self.floods_ended = trio.Event()
        self.silence_began, self.silence_ended = trio.Event(), trio.Event()
        self.closing = Closing(grace_seconds=0.5)
        self.port = 0

    async def app(self, scope: Message, receive: Receive, send: Send) -> None:
        """Read the body, then answer."""
        self.begun += 1
        self.first_began.set()
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/silent":
            self.silence_began.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            self.silence_ended.set()
            return
        if scope["path"] == "/flood":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._flood, send, name="flood")
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()
            return
        await send({"type": "http.response.body", "body": b"hello"})

    async def _flood(self, send: Send) -> None:
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                await trio.lowlevel.checkpoint()
        finally:
            self.floods_ended.set()

    def count(self) -> None:
        """Count a contained connection."""
        self.contained += 1

    async def stop_when_asked_something(self) -> None:
        """Drain in the middle of what comes."""
        await self.first_began.wait()
        self.closing.drain.set()

    async def connect(self) -> trio.SocketStream:
        """A bare connection to the server."""
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def alive(self) -> bool:
        """Whether a well-behaved client is still answered."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{self.port}/")
        return answer.text == "hello"


@contextlib.asynccontextmanager
async def running(
    limits: ServerLimits = LIMITS, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """A server on a free port; leaving drains it."""
    server = Server()
    [plain] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server.port = plain.socket.getsockname()[1]
    listener = plain if tls is None else trio.SSLListener(plain, tls, https_compatible=True)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:

            async def start(*, task_status: trio.TaskStatus[None]) -> None:
                await serve(
                    server.app,
                    [listener],
                    limits,
                    server.closing,
                    contained=server.count,
                    task_status=task_status,
                )

            await nursery.start(start, name="server")
            yield server
            server.closing.drain.set()


def attack(port: int, *parts: bytes, reset: bool = False) -> None:
    """Send each part on its own, then leave, by a reset where asked."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            peer.sendall(part)
        if reset:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


ATTACKS: dict[str, tuple[tuple[bytes, ...], bool]] = {
    "bytes after a Connection: close request": (
        (REQUEST + b"connection: close\r\n\r\n{}", b"GARBAGE"),
        False,
    ),
    "pipelined garbage": ((REQUEST + b"\r\n{}\x16\x03\x01\x02",), False),
    "pipelined garbage and a reset": ((REQUEST + b"\r\n{}\x16\x03\x01\x02",), True),
    "no HTTP at all": ((b"\x16\x03\x01\r\n\r\n",), False),
    "a reset right after the request": ((REQUEST + b"\r\n{}",), True),
    "a reset in the body": ((REQUEST + b"\r\n{",), True),
    "ten pipelined requests and a reset": (((REQUEST + b"\r\n{}") * 10,), True),
    "an HTTP/2 preface and garbage": (
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0garbagegarbage",),
        False,
    ),
    "an h2c upgrade and garbage": (
        (
            b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade, http2-settings\r\n"
            b"http2-settings: AAMAAABkAAQAAP__\r\n\r\nxxxxx",
        ),
        False,
    ),
    "a path that is not ASCII": ((b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",), False),
    "a websocket handshake": (
        (
            b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
        ),
        False,
    ),
}


async def test_a_client_that_has_gone_gives_its_place_free_at_once() -> None:
    """Under stock Hypercorn a closed connection is kept until its idle time is over."""
    async with running(ServerLimits(10, 65536, 5, idle_seconds=60, send_stall_seconds=5)) as server:
        for _ in range(30):
            async with await server.connect() as peer:
                await peer.send_all(REQUEST + b"\r\n{}")
                with trio.fail_after(5):
                    assert (await peer.receive_some()).startswith(b"HTTP/1.1 200")


async def test_a_client_that_asks_and_leaves_at_once_is_never_waited_for() -> None:
    """Its request may be about to begin when it goes; one that nobody ends would wait for ever."""
    async with running() as server:
        server.closing.grace_seconds = 3600
        for _ in range(50):
            async with await server.connect() as peer:
                await peer.send_all(REQUEST + b"\r\n{}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
async def test_no_client_can_end_the_server(name: str) -> None:
    """Stock Hypercorn 0.18 dies of the first of these within a few hundred connections."""
    parts, reset = ATTACKS[name]
    async with running() as server:
        for _ in range(40):
            await trio.to_thread.run_sync(lambda: attack(server.port, *parts, reset=reset))
        assert await server.alive()


async def test_a_client_that_never_reads_is_cut_off_and_its_request_ends() -> None:
    """Under stock Hypercorn the request, its reservation and its neuron stay taken for ever."""
    async with running() as server:
        with socket.create_connection(("127.0.0.1", server.port), 5) as peer:
            peer.sendall(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
            with trio.fail_after(10):
                await server.floods_ended.wait()
            assert await server.alive()


async def test_a_client_that_never_reads_cannot_hold_up_the_shutdown() -> None:
    patient = ServerLimits(50, 65536, 5, 5, send_stall_seconds=60)
    with socket.socket() as peer:
        async with running(patient) as server:
            peer.connect(("127.0.0.1", server.port))
            peer.sendall(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
            assert await server.alive()
            began = trio.current_time()
        assert trio.current_time() - began < 10


async def test_hurry_ends_running_requests_at_once() -> None:
    async with running(ServerLimits(50, 65536, 5, 5, send_stall_seconds=60)) as server:
        server.closing.grace_seconds = 3600
        async with await server.connect() as peer:
            await peer.send_all(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
            await peer.receive_some(1)
            server.closing.drain.set()
            server.closing.hurry.set()
            with trio.fail_after(10):
                await server.floods_ended.wait()


async def test_a_request_that_comes_while_the_server_stops_is_answered_or_not_begun() -> None:
    """One that was begun without anybody to hear its answer would be charged for nothing."""
    for _ in range(RACES):
        async with running() as server, trio.open_nursery() as nursery:
            clients = [await server.connect() for _ in range(CLIENTS)]
            nursery.start_soon(server.stop_when_asked_something)
            heard = 0
            for client in clients:
                await client.send_all(REQUEST + b"\r\nhi")
            for client in clients:
                async with client:
                    answer = b""
                    with contextlib.suppress(trio.BrokenResourceError):
                        while data := await client.receive_some():
                            answer += data
                    heard += b"hello" in answer
        assert heard == server.begun


async def test_a_head_that_dribbles_in_is_cut_off() -> None:
    async with running() as server, await server.connect() as peer:
        await peer.send_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ")
        with trio.fail_after(5):
            assert await peer.receive_some() == b""


async def test_a_second_head_on_a_kept_alive_connection_must_also_come_in_time() -> None:
    limits = ServerLimits(50, 65536, 0.3, 60, 5)
    async with running(limits) as server, await server.connect() as peer:
        await peer.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += await peer.receive_some()
        await peer.send_all(b"GET / HT")
        with trio.fail_after(5):
            assert await peer.receive_some() == b""


async def test_an_oversized_head_is_refused() -> None:
    async with running() as server:
        async with await server.connect() as peer:
            await peer.send_all(b"GET / HTTP/1.1\r\nx: " + b"y" * 70000 + b"\r\n\r\n")
            with trio.fail_after(5):
                answer = await peer.receive_some()
        assert answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))


async def test_one_connection_too_many_is_turned_away_with_a_503() -> None:
    limits = ServerLimits(1, 65536, 5, 5, 5)
    async with running(limits) as server, await server.connect() as first:
        await first.send_all(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
        await first.receive_some(1)
        async with await server.connect() as second:
            received = b""
            with trio.fail_after(5):
                while data := await second.receive_some():
                    received += data
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert f"content-length: {len(body)}".encode() in head


async def test_tls_connections_are_served_and_a_failed_handshake_harms_nobody() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with running(tls=context) as server:
        for _ in range(5):
            await trio.to_thread.run_sync(lambda: attack(server.port, b"GET / HTTP/1.1\r\n\r\n"))
        async with httpx.AsyncClient(verify=trusting, trust_env=False) as client:
            answer = await client.get(f"https://127.0.0.1:{server.port}/")
        assert answer.text == "hello"


@pytest.mark.parametrize(
    "after", [b"", b"\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"x" * 70_000]
)
async def test_a_hang_up_is_seen_whatever_was_sent_after_the_request(after: bytes) -> None:
    """Stock Hypercorn stops reading while bytes wait behind a request."""
    async with running(ServerLimits(50, 65536, 5, 5, 30)) as server:
        async with await server.connect() as peer:
            await peer.send_all(REQUEST.replace(b"/x", b"/silent") + b"\r\n{}" + after)
            with trio.fail_after(5):
                await server.silence_began.wait()
        with trio.fail_after(5):
            await server.silence_ended.wait()


async def test_too_much_sent_ahead_of_an_answer_ends_the_connection() -> None:
    async with running(ServerLimits(50, 65536, 5, 5, 30)) as server:
        async with await server.connect() as peer:
            await peer.send_all(REQUEST.replace(b"/x", b"/silent") + b"\r\n{}")
            with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await peer.send_all(b"x" * 65536)
        with trio.fail_after(5):
            await server.silence_ended.wait()
        assert await server.alive()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with running() as server, await server.connect() as peer:
        await peer.send_all((REQUEST + b"\r\n{}") * 3)
        received = b""
        with trio.fail_after(5):
            while received.count(b"hello") < 3:
                received += await peer.receive_some()
        assert received.count(b"HTTP/1.1 200") == 3


async def test_an_h2_client_that_grants_no_window_is_cut_off() -> None:
    """Its socket may be read all the while: what blocks is HTTP/2's own flow control."""
    async with running() as server, await server.connect() as peer:
        connection = H2Connection()
        connection.initiate_connection()
        head = {":method": "GET", ":path": "/flood", ":scheme": "http", ":authority": "x"}
        connection.send_headers(1, list(head.items()), end_stream=True)
        await peer.send_all(connection.data_to_send())
        with trio.fail_after(10):
            while await peer.receive_some():
                pass
            await server.floods_ended.wait()
        assert await server.alive()
