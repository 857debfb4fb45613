"""Clients that leave, at every stage of a request: it ends at once, and everything is given back.

The whole core behind the daemon's server, over real sockets, whichever way hang-ups are noticed
there: by the one task of all plain connections, or by a task of the request's own (TLS, ASGI).
"""

import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import pytest
import trio
import trio.testing

from cortexd.config.schema import Catalogue, CatalogueModel
from cortexd.daemon.http_server import Closing, serve
from cortexd.demo.admission import AdmissionLimits
from cortexd.demo.hardware import SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.fleet.reports import ModelId
from cortexd.gateway.asgi import AsgiApp
from cortexd.gateway.bodies import BodyRoom
from cortexd.gateway.http1 import Http1Face, Http1Limits
from cortexd.gateway.relay import Clocks
from tests.support.core import Core, core, key
from tests.support.faces import BODY_LIMITS, LIMITS, Certificate, Peer
from tests.support.fake_neuron import running, turned

Server = Literal["plain", "tls", "asgi"]

OAK = ModelId("org/oak")
QUIET = Clocks(first_byte_seconds=20, between_bytes_seconds=20, heartbeat_seconds=60)
RICH = key(hard_cap=10_000_000)
RECEIVED_BYTES_MAX = 4096
LONG = 7000


class Scene(msgspec.Struct):
    """A neuron, the gateway in front of it, and a way to connect."""

    neuron: SimulatedNeuron
    it: Core
    port: int
    certificate: Certificate | None

    async def ask(self, *, stream: bool) -> Peer:
        """A client that has sent one chat request. It takes little before it reads."""
        connected = trio.socket.socket()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED_BYTES_MAX)
        await connected.connect(("127.0.0.1", self.port))
        opened: trio.abc.Stream = trio.SocketStream(connected)
        if self.certificate is not None:
            trusting = self.certificate.trusting
            opened = trio.SSLStream(
                trio.SocketStream(connected), trusting, server_hostname="127.0.0.1"
            )
        peer = Peer(opened)
        asked = {
            "model": OAK,
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": LONG,
            "stream": stream,
        }
        body = json.dumps(asked).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-cap\r\n"
        await peer.send(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        return peer


@contextlib.asynccontextmanager
async def scene(server: Server, directory: Path, neuron: SimulatedNeuron) -> AsyncIterator[Scene]:
    """A gateway that serves until this is left."""
    certificate = Certificate.shared() if server == "tls" else None
    [plain] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = plain.socket.getsockname()[1]
    listener: trio.SocketListener | trio.SSLListener[trio.SocketStream] = plain
    if certificate is not None:
        listener = trio.SSLListener(plain, certificate.server_context(), https_compatible=True)
    room, closing = BodyRoom(BODY_LIMITS), Closing(grace_seconds=2)
    fast = Http1Limits(LIMITS.head_bytes_max, LIMITS.head_seconds, LIMITS.idle_seconds)
    catalogue = Catalogue(models=(CatalogueModel(OAK, vram_mb=16_000),))
    with trio.fail_after(30):
        async with (
            running(neuron),
            core(
                directory, {"a": neuron.url}, keys=[RICH], catalogue=catalogue, clocks=QUIET
            ) as it,
            trio.open_nursery() as nursery,
        ):
            face = None if server == "asgi" else Http1Face(it.gateway, fast, room, it.deadlines)
            app = AsgiApp(it.gateway, room)
            contained: list[bool] = []
            count = partial(contained.append, True)
            await nursery.start(
                partial(serve, app, [listener], LIMITS, closing, contained=count, fast=face)
            )
            yield Scene(neuron, it, port, certificate)
            closing.drain.set()
    assert not contained, "a hang-up is no fault"


def a_neuron(*, resident: bool = True, in_flight: int = 64, **switches: object) -> SimulatedNeuron:
    oak = SimulatedModel(OAK, 16_000, load_seconds=0, resident=resident)
    limits = AdmissionLimits(max_in_flight=in_flight, max_queue_depth=0)
    return SimulatedNeuron("a", [oak], admission=limits, switches=turned(**switches))


async def its_model_is_loading(at: Scene) -> None:
    await at.neuron.wait_for_path("/models/load")


async def it_is_in_line(at: Scene) -> None:
    while at.it.traffic.waiting.get(OAK) != 1:
        await trio.testing.wait_all_tasks_blocked(0.01)


async def the_neuron_has_it(at: Scene) -> None:
    await at.neuron.wait_for_hits(1)


async def some_of_it_is_written(at: Scene) -> None:
    await at.neuron.allow(3)
    await at.neuron.wait_for_tokens(3)


async def writing_to_it_is_stuck(at: Scene) -> None:
    """Its answer would be whole by now, if it had read."""
    await at.neuron.wait_for_hits(1)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert at.it.told == []


class Stage(msgspec.Struct, frozen=True):
    """A stage of a request, and how it comes there. `behind`: another one has its neuron."""

    neuron: Callable[[], SimulatedNeuron]
    reach: Callable[[Scene], Awaitable[None]]
    streams: tuple[bool, ...]
    behind: bool = False


LOADING = partial(a_neuron, resident=False, gated_loads=True)
FULL = partial(a_neuron, in_flight=1, gated=True)
SILENT = partial(a_neuron, silent=True)
SLOW = partial(a_neuron, gated=True)
TALKATIVE = partial(a_neuron, reply_tokens=LONG)
STAGES = {
    "its model is loading": Stage(LOADING, its_model_is_loading, (False, True)),
    "in line": Stage(FULL, it_is_in_line, (False, True), behind=True),
    "before the first byte": Stage(SILENT, the_neuron_has_it, (False, True)),
    "in mid-stream": Stage(SLOW, some_of_it_is_written, (True,)),
    "while a write is stuck": Stage(TALKATIVE, writing_to_it_is_stuck, (True,)),
}
CASES = [
    pytest.param(stage, stream, id=f"{name}, {'streamed' if stream else 'plain'}")
    for name, stage in STAGES.items()
    for stream in stage.streams
]


@pytest.mark.parametrize("server", ["plain", "tls", "asgi"])
@pytest.mark.parametrize(("stage", "stream"), CASES)
async def test_a_request_whose_client_leaves_ends_at_once_and_gives_everything_back(
    server: Server, stage: Stage, stream: bool, tmp_path: Path
) -> None:
    neuron = stage.neuron()
    async with scene(server, tmp_path, neuron) as at:
        others = [await at.ask(stream=True)] if stage.behind else []
        if others:
            await the_neuron_has_it(at)
        leaver = await at.ask(stream=stream)
        await stage.reach(at)
        leaver.leave()
        with trio.fail_after(3):
            while not at.it.told or neuron.in_flight > len(others):
                await trio.testing.wait_all_tasks_blocked(0.01)
        [told] = at.it.told
        assert told.code is None, "nobody was there to be refused"
        assert at.it.traffic.waiting == {}
        for other in others:
            other.leave()
        with trio.fail_after(3):
            while neuron.in_flight:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await at.it.standing()).reserved == 0


async def test_a_client_that_left_before_its_turn_costs_no_neuron_anything(tmp_path: Path) -> None:
    neuron = a_neuron(reply_tokens=5)
    async with scene("plain", tmp_path, neuron) as at:
        for request in range(1, 11):
            leaver = await at.ask(stream=False)
            leaver.leave()
            with trio.fail_after(3):
                while len(at.it.told) < request:
                    await trio.testing.wait_all_tasks_blocked(0.01)
        assert neuron.chat_hits == 0
        assert (await at.it.standing()).spent == 0
