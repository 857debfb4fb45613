"""What a neuron has generated and nobody has looked at yet, when its request ends: never free.

A client that hangs up pays for what was seen and for what may be on its way. That is only true of a
gateway that looks; one that stood still, or that a client kept from looking, has to look back.
"""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from cortexd.gateway.exchange import End
from cortexd.gateway.relay import Clocks
from tests.fleet.scripted import Peer, ok, scripted
from tests.support.core import RecordingClient, core, key
from tests.support.surfaces import MODEL

OUTPUT = 4000
PROMPT = 32
IN_FLIGHT = 64
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MODELS = [{"id": MODEL, "harness": "candle", "status": "loaded", "devices": [0]}]
BODY = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": OUTPUT,
    "stream": True,
}
Play = Callable[[Peer], Awaitable[None]]


def tokens(count: int) -> bytes:
    """Chunks of one token each."""
    delta = {"index": 0, "delta": {"content": "x" * 100}, "finish_reason": None}
    event = b"data: " + msgspec.json.encode({"id": "c", "choices": [delta]}) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event) * count


def neuron(play: Play) -> Callable[[Peer], Awaitable[None]]:
    """A neuron that is polled as usual, and plays its answer to a chat."""

    async def script(peer: Peer) -> None:
        while request := await peer.request():
            if request.startswith(b"POST"):
                await play(peer)
                await peer.hung_up()
                return
            told: object = {"uptime_secs": 9}
            if request.startswith(b"GET /models "):
                told = MODELS
            elif b"/endpoint " in request.split(b"\r\n")[0]:
                port = socket_of(peer).getsockname()[1]
                told = {"url": f"http://127.0.0.1:{port}"}
            await peer.send(ok(json.dumps(told).encode()))

    return script


def write_at_once(peer: Peer, data: bytes) -> None:
    """Have it wait on the gateway's connection before the gateway can do anything."""
    assert os.write(socket_of(peer).fileno(), data) == len(data)


def socket_of(peer: Peer) -> trio.socket.SocketType:
    """Of a plain connection."""
    assert isinstance(peer.stream, trio.SocketStream)
    return peer.stream.socket


class Quick(RecordingClient):
    """A client for which nothing has to be waited, and whose hang-up is heard at once."""

    def __init__(self) -> None:
        super().__init__()
        self._tell: Callable[[], None] = lambda: None
        self._scope = trio.CancelScope()

    def write_now(self, data: bytes) -> None:
        """Keep a piece."""
        self.pieces.append(data)

    @asynccontextmanager
    async def watching(self, hung_up: Callable[[], None]) -> AsyncIterator[End]:
        """As a connection does it that is told by the sentinel."""
        self._tell = hung_up
        yield lambda _: self._scope.cancel()

    def hang_up(self) -> None:
        """Leave: before any other task has its turn."""
        self._tell()
        self._scope.cancel()

    async def stay(self, asking: Awaitable[object]) -> None:
        """Wait for an answer, or for the hang-up."""
        with self._scope:
            await asking


PATIENT = Clocks(first_byte_seconds=20, between_bytes_seconds=20)


async def spent(
    directory: Path, client: RecordingClient, play: Play, clocks: Clocks = PATIENT
) -> int:
    """What the request of this client costs, to which a neuron plays its answer."""
    async with (
        scripted(neuron(play), within_seconds=30) as server,
        core(directory, {"a": server.url}, keys=[key(hard_cap=10**6)], clocks=clocks) as it,
    ):
        asking = it.ask(BODY, client=client)
        await (client.stay(asking) if isinstance(client, Quick) else asking)
        standing = await it.standing()
        assert standing.reserved == 0
        return standing.spent


def going_still(client: Quick, more: int) -> Play:
    """Two tokens are seen; so many more have come when the gateway hears of the hang-up."""

    async def play(peer: Peer) -> None:
        await peer.send(HEAD + tokens(2))
        await trio.testing.wait_all_tasks_blocked()
        assert client.tokens == 2
        write_at_once(peer, tokens(more))
        client.hang_up()

    return play


@pytest.mark.parametrize("more", [1, 20, 150])
async def test_who_hangs_up_on_a_gateway_that_stood_still_pays_for_what_came_meanwhile(
    tmp_path: Path, more: int
) -> None:
    client = Quick()
    assert await spent(tmp_path, client, going_still(client, more)) == PROMPT + 2 + more + IN_FLIGHT


async def test_more_than_is_looked_through_is_charged_in_full(tmp_path: Path) -> None:
    client = Quick()
    assert await spent(tmp_path, client, going_still(client, 300)) == PROMPT + OUTPUT


async def test_an_answer_that_began_while_nobody_looked_is_charged_in_full(
    tmp_path: Path,
) -> None:
    client = Quick()

    async def play(peer: Peer) -> None:
        await trio.testing.wait_all_tasks_blocked()
        write_at_once(peer, HEAD + tokens(150))
        client.hang_up()

    assert await spent(tmp_path, client, play) == PROMPT + OUTPUT


async def test_who_hangs_up_before_the_first_token_pays_for_the_prompt(tmp_path: Path) -> None:
    client = Quick()

    async def play(peer: Peer) -> None:
        await trio.testing.wait_all_tasks_blocked()
        client.hang_up()

    assert await spent(tmp_path, client, play) == PROMPT + IN_FLIGHT


async def test_a_client_that_does_not_take_a_heartbeat_and_leaves_is_charged_in_full(
    tmp_path: Path,
) -> None:
    """The neuron's tokens wait behind it."""
    is_stuck = trio.Event()

    class Stuck(RecordingClient):
        async def write(self, data: bytes) -> None:
            is_stuck.set()
            await self.gone()

    client = Stuck()

    async def play(peer: Peer) -> None:
        await peer.send(HEAD)
        await is_stuck.wait()
        await peer.send(tokens(100))
        await trio.testing.wait_all_tasks_blocked()
        client.hang_up()

    clocks = Clocks(first_byte_seconds=20, between_bytes_seconds=20, heartbeat_seconds=0.01)
    assert await spent(tmp_path, client, play, clocks) == PROMPT + OUTPUT
