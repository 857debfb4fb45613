"""The fast face behind the guard: hostile clients, crowds, HTTP/2 beside it, and the end."""

import errno
import os
import resource
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import msgspec
import pytest
import trio
import trio.testing
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded

from cortexd.daemon.http_server import Closing, serve
from cortexd.deadlines import Deadlines
from cortexd.gateway.asgi import AsgiApp
from cortexd.gateway.bodies import BodyRoom
from cortexd.gateway.http1 import Http1Face, Http1Limits
from tests.daemon.test_http_server import ATTACKS, attack
from tests.support.faces import (
    BODY_LIMITS,
    LIMITS,
    Certificate,
    PathCore,
    Peer,
    Transport,
    served,
)

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
FLOOD = b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
async def test_no_client_can_end_the_server_or_leave_a_request_behind(
    name: str, tmp_path: Path
) -> None:
    parts, reset = ATTACKS[name]
    async with served("http1", "plain", tmp_path) as server:
        for _ in range(40):
            await trio.to_thread.run_sync(lambda: attack(server.port, *parts, reset=reset))
        assert await server.is_alive()
        assert server.contained == 0


async def test_a_client_that_asks_and_leaves_at_once_is_never_waited_for(tmp_path: Path) -> None:
    async with served("http1", "plain", tmp_path) as server:
        server.closing.grace_seconds = 3600
        for _ in range(50):
            async with server.peer() as peer:
                await peer.send(b"GET /silent HTTP/1.1\r\nhost: x\r\n\r\n")


async def test_a_client_that_has_gone_gives_its_place_free_at_once(tmp_path: Path) -> None:
    few = msgspec.structs.replace(LIMITS, connections_max=10, idle_seconds=60)
    async with served("http1", "plain", tmp_path, limits=few) as server:
        for _ in range(30):
            async with server.peer() as peer:
                await peer.send(GET)
                assert (await peer.answer()).status == 200


async def test_one_connection_too_many_is_turned_away_with_a_503(tmp_path: Path) -> None:
    one = msgspec.structs.replace(LIMITS, connections_max=1)
    async with served("http1", "plain", tmp_path, limits=one) as server, server.peer() as first:
        await first.send(FLOOD)
        await first.stream.receive_some(1)
        async with server.peer() as second:
            answer = await second.answer()
            assert (answer.status, answer.headers["connection"]) == (503, "close")
            assert await second.is_closed()


@pytest.mark.parametrize("transport", ["plain", "tls"])
async def test_hurry_ends_running_requests_at_once(transport: Transport, tmp_path: Path) -> None:
    patient = msgspec.structs.replace(LIMITS, send_stall_seconds=60)
    async with served("http1", transport, tmp_path, limits=patient) as server:
        server.closing.grace_seconds = 3600
        async with server.peer() as peer:
            await peer.send(FLOOD)
            await peer.stream.receive_some(1)
            server.closing.drain.set()
            server.closing.hurry.set()
            with trio.fail_after(5):
                await server.core.ended.wait()


async def test_a_drain_finds_a_connection_that_is_still_shaking_hands(tmp_path: Path) -> None:
    async with served("http1", "tls", tmp_path) as server:
        server.closing.grace_seconds = 3600
        bare = await trio.open_tcp_stream("127.0.0.1", server.port)
        secured = trio.SSLStream(
            bare,
            Certificate.shared().trusting,
            server_hostname="127.0.0.1",
            https_compatible=True,
        )
        assert await server.is_alive()  # so the one before has been accepted
        server.closing.drain.set()
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            await secured.do_handshake()
            assert await secured.receive_some() == b""
        await trio.aclose_forcefully(bare)


async def test_a_failed_handshake_harms_nobody(tmp_path: Path) -> None:
    async with served("http1", "tls", tmp_path) as server:
        for _ in range(5):
            await trio.to_thread.run_sync(lambda: attack(server.port, GET))
        assert await server.is_alive()
        assert server.contained == 0


async def test_a_client_that_negotiates_h2_gets_it_from_the_same_core(tmp_path: Path) -> None:
    trusting = Certificate.shared().client_context("h2", "http/1.1")
    async with (
        served("http1", "tls", tmp_path) as server,
        httpx.AsyncClient(verify=trusting, http2=True, trust_env=False) as client,
    ):
        answer = await client.post(f"https://127.0.0.1:{server.port}/echo", content=b"hello")
    assert (answer.http_version, answer.content) == ("HTTP/2", b"hello")
    assert server.core.paths == ["/echo"]


async def test_a_plain_client_that_begins_with_h2_gets_it(tmp_path: Path) -> None:
    async with served("http1", "plain", tmp_path) as server, server.peer() as peer:
        body, status = await over_h2(peer.stream)
    assert (status, body) == (b"200", b"hello")
    assert server.core.asked[0].body == b"hello"


async def over_h2(stream: trio.abc.Stream) -> tuple[bytes, bytes]:
    """Post `hello` over HTTP/2 without any upgrade; body and status of the answer."""
    connection = H2Connection()
    connection.initiate_connection()
    head = {":method": "POST", ":path": "/echo", ":scheme": "http", ":authority": "x"}
    connection.send_headers(1, list(head.items()))
    connection.send_data(1, b"hello", end_stream=True)
    await stream.send_all(connection.data_to_send())
    body, status = b"", b""
    with trio.fail_after(5):
        while True:
            for event in connection.receive_data(bytes(await stream.receive_some())):
                match event:
                    case ResponseReceived(headers=headers):
                        status = dict(headers or ())[b":status"]
                    case DataReceived(data=data):
                        body += data or b""
                    case StreamEnded():
                        return body, status
                    case _:
                        pass
            await stream.send_all(connection.data_to_send())


async def test_h2_in_the_middle_of_a_connection_is_no_request(tmp_path: Path) -> None:
    async with served("http1", "plain", tmp_path) as server, server.peer() as peer:
        await peer.send(GET + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await peer.answer()).status == 200
        assert (await peer.answer()).status == 505
        assert await peer.is_closed()


async def test_a_unix_socket_is_served_too(tmp_path: Path, deadlines: Deadlines) -> None:
    core, closing = PathCore(), Closing(grace_seconds=1)
    listener = trio.socket.socket(socket.AF_UNIX)
    await listener.bind(str(tmp_path / "socket"))
    listener.listen()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(
                serve,
                AsgiApp(core, BODY_LIMITS),
                [trio.SocketListener(listener)],
                LIMITS,
                closing,
                contained=lambda: None,
                fast=Http1Face(core, Http1Limits(16_384, 5, 5), BodyRoom(BODY_LIMITS), deadlines),
            )
        )
        async with await trio.open_unix_socket(str(tmp_path / "socket")) as stream:
            peer = Peer(stream)
            await peer.send(GET)
            assert (await peer.answer()).status == 200
        closing.drain.set()
    assert core.paths == ["/"]


async def test_a_crowd_that_comes_at_once_is_accepted(tmp_path: Path) -> None:
    """More than fit into one turn of accepting."""
    crowd = msgspec.structs.replace(LIMITS, connections_max=300)
    async with served("http1", "plain", tmp_path, limits=crowd) as server:
        sockets = [socket.socket() for _ in range(200)]
        try:
            for each in sockets:
                each.setblocking(False)
                assert each.connect_ex(("127.0.0.1", server.port)) in (0, errno.EINPROGRESS)
            for each in sockets:
                with trio.fail_after(10):
                    await trio.lowlevel.wait_writable(each)
                    each.send(GET)
                    await trio.lowlevel.wait_readable(each)
                assert each.recv(100).startswith(b"HTTP/1.1 200")
        finally:
            for each in sockets:
                each.close()


@pytest.fixture
def no_descriptors() -> Iterator[list[int]]:
    """Fill the process's table of descriptors when called; it is emptied again at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        yield taken
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_process_without_descriptors_accepts_again_when_it_has_some(
    tmp_path: Path, no_descriptors: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async with served("http1", "plain", tmp_path) as server:
        peer = socket.socket()
        with peer:
            peer.setblocking(False)
            while True:
                try:
                    no_descriptors.append(os.open(os.devnull, os.O_RDONLY))
                except OSError:
                    break
            peer.connect_ex(("127.0.0.1", server.port))
            with trio.fail_after(5):
                await trio.lowlevel.wait_writable(peer)
                peer.send(GET)
                while "event=accept_failed" not in caplog.text:
                    await trio.lowlevel.checkpoint()
            for _ in range(20):
                os.close(no_descriptors.pop())
            with trio.fail_after(5):
                await trio.lowlevel.wait_readable(peer)
            assert peer.recv(100).startswith(b"HTTP/1.1 200")
