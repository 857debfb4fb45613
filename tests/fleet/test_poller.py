"""Pollers against scripted neurons: real sockets, a clock that jumps."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from cortexd.config.schema import Neuron, Polling, Secret
from cortexd.fleet.board import Board
from cortexd.fleet.neuron import REPLY_BYTES_MAX
from cortexd.fleet.poller import BREATH_SECONDS, run_poller
from cortexd.fleet.pool import Pool
from cortexd.fleet.reports import ModelId
from cortexd.fleet.routing import route_to
from cortexd.fleet.view import NeuronName, NeuronView
from tests.fleet.scripted import Peer, ok, scripted
from tests.fleet.talking import NOT_FOUND, Talk, beast

BEAST = NeuronName("beast")
A, B = ModelId("org/a"), ModelId("b")
POLLING = Polling(interval_seconds=5, timeout_seconds=2, misses_to_unhealthy=3)
Clock = trio.testing.MockClock


class Polled:
    """A poller at work. `next` makes time pass until it has polled once more."""

    def __init__(self, board: Board, clock: trio.testing.MockClock, pictures: Pictures) -> None:
        self.board = board
        self._clock = clock
        self._pictures = pictures

    @property
    def view(self) -> NeuronView:
        return self.board.view.neurons[BEAST]

    async def next(self, *, after_seconds: float = POLLING.interval_seconds) -> NeuronView:
        await trio.testing.wait_all_tasks_blocked()
        self._clock.jump(after_seconds)
        return await self._pictures.receive()


Pictures = trio.MemoryReceiveChannel[NeuronView]


class PublishingBoard(Board):
    """A board that also tells the test of every new picture."""

    def __init__(self, neuron: Neuron, tell: trio.MemorySendChannel[NeuronView]) -> None:
        super().__init__([neuron])
        self._tell = tell

    def publish(self, neuron: NeuronView) -> None:
        super().publish(neuron)
        self._tell.send_nowait(neuron)


@asynccontextmanager
async def polled(
    neuron: Neuron, pool: Pool, clock: trio.testing.MockClock
) -> AsyncIterator[Polled]:
    """Run a poller until the block is left; the first poll has been made."""
    clock.rate = 1
    tell, pictures = trio.open_memory_channel[NeuronView](10)
    board = PublishingBoard(neuron, tell)
    async with trio.open_nursery() as nursery, tell, pictures:
        await nursery.start(run_poller, neuron, board, pool, POLLING, name="poller")
        await pictures.receive()
        yield Polled(board, clock, pictures)
        nursery.cancel_scope.cancel()


async def test_the_first_poll_is_on_the_board_when_the_poller_has_started(
    pool: Pool, mock_clock: Clock
) -> None:
    talk = Talk()
    async with (
        scripted(talk.script, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        view = poller.view
    assert (view.healthy, view.misses, view.uptime_seconds) == (True, 0, 100)
    assert (view.models[A].load.in_flight, view.models[A].can_serve) == (3, True)
    assert view.discovery is not None
    assert view.discovery.hostname == "h"
    assert neuron.connections == 1


async def test_a_neuron_that_is_not_there_does_not_keep_the_poller_from_starting(
    pool: Pool, mock_clock: Clock
) -> None:
    async with polled(beast("http://127.0.0.1:1"), pool, mock_clock) as poller:
        assert (poller.view.healthy, poller.view.misses) == (False, 1)
        assert poller.view.reason == "/models: connection refused"


async def test_the_address_of_a_model_is_looked_up_once_per_load_not_per_poll(
    pool: Pool, mock_clock: Clock
) -> None:
    talk = Talk()
    endpoint = "/models/org%2Fa/endpoint"
    async with (
        scripted(talk.script, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        for _ in range(3):
            view = await poller.next()
            assert view.models[A].base_url == "http://127.0.0.1:8001"
        assert (talk.hits[endpoint], talk.hits["/models"], talk.hits["/discovery"]) == (1, 4, 1)
        talk.replies["/models"] = ok(b"[]")
        assert (await poller.next()).models == {}
        talk.replies["/models"] = ok(b'[{"id":"org/a"}]')
        talk.replies[endpoint] = ok(b'{"url":"http://10.0.0.9:8002"}')
        assert (await poller.next()).models[A].base_url == "http://10.0.0.9:8002"
        assert talk.hits[endpoint] == 2


async def test_a_model_without_a_known_address_is_asked_for_again_at_every_poll(
    pool: Pool, mock_clock: Clock
) -> None:
    talk = Talk()
    endpoint = "/models/org%2Fa/endpoint"
    async with (
        scripted(talk.script, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        talk.replies["/models"] = ok(b"[]")
        await poller.next()
        talk.replies["/models"] = ok(b'[{"id":"org/a"}]')
        talk.replies[endpoint] = NOT_FOUND
        view = await poller.next()
        assert view.models[A].base_url == neuron.url, "tried where the neuron itself is"
        for wrong in (ok(b'{"url":"ftp://x"}'), ok(b'{"url":7}'), ok(b"<html>")):
            talk.replies[endpoint] = wrong
            view = await poller.next()
            assert (view.healthy, view.models[A].can_serve) == (True, False)
        talk.replies[endpoint] = ok(b'{"url":"http://0.0.0.0:7"}')
        assert (await poller.next()).models[A].base_url == "http://127.0.0.1:7"


async def test_addresses_are_looked_up_only_for_models_that_are_there(
    pool: Pool, mock_clock: Clock
) -> None:
    talk = Talk()
    listed = b'[{"id":"org/a","status":"loading"},{"id":"b","status":"unloaded"}]'
    talk.replies["/models"] = ok(listed)
    async with (
        scripted(talk.script, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        assert poller.view.models.keys() == {A, B}
        assert talk.hits["/models/org%2Fa/endpoint"] == talk.hits["/models/b/endpoint"] == 0


async def test_three_misses_make_a_neuron_unhealthy_and_one_answer_heals_it(
    pool: Pool, mock_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cortexd.fleet")
    talk = Talk()
    fine = talk.replies["/models"]
    async with (
        scripted(talk.script, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        talk.replies["/models"] = b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"
        health = [(await poller.next()).healthy for _ in range(5)]
        assert health == [True, True, False, False, False]
        assert poller.view.reason == "/models answered with status 500"
        assert not poller.view.models[A].is_servable
        talk.replies["/models"] = fine
        healed = await poller.next()
        assert (healed.healthy, healed.models[A].can_serve) == (True, True)
        assert talk.hits["/models/org%2Fa/endpoint"] == talk.hits["/discovery"] == 2
    told = [
        (record.levelname, record.getMessage().split(" ")[0])
        for record in caplog.records
        if record.name == "cortexd.fleet"
    ]
    assert told == [
        ("INFO", "event=neuron_healthy"),
        ("WARNING", "event=neuron_missed"),
        ("ERROR", "event=neuron_unhealthy"),
        ("INFO", "event=neuron_healthy"),
    ]


HUGE = b"HTTP/1.1 200 OK\r\n\r\n" + b"[" + b" " * (REPLY_BYTES_MAX + 10)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (ok(b"<html>"), "the model list is no model list: not JSON"),
        (ok(b'[{"id":'), "the model list is no model list: not JSON"),
        (ok(b'{"a":1}'), "the model list is no model list: Expected `array`, got `object`"),
        (ok(b'[{"id":"a","limit":{"context":-1}}]'), "the model list is no model list: "),
        (ok(b"[]", b"content-encoding: gzip"), "/models: it answered compressed"),
        (
            b"HTTP/1.1 302 Go\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n",
            "/models answered with st",
        ),
        (b"junk", "/models: it does not speak HTTP/1.1"),
        (HUGE, "/models: it answered with more than 4194304 bytes"),
    ],
)
async def test_garbage_is_a_miss_with_a_reason_and_nothing_worse(
    pool: Pool, mock_clock: Clock, reply: bytes, reason: str
) -> None:
    talk = Talk()
    async with (
        scripted(talk.script, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        talk.replies["/models"] = reply
        view = await poller.next()
        assert (view.healthy, view.misses) == (True, 1)
        assert (view.reason or "").startswith(reason)
        talk.replies["/models"] = ok(b"[]")
        assert (await poller.next()).misses == 0


async def test_silence_is_a_miss_after_the_timeout(pool: Pool, mock_clock: Clock) -> None:
    talk = Talk()
    async with (
        scripted(talk.script, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        talk.replies["/models"] = b""
        before = talk.hits["/models"]
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(POLLING.interval_seconds)
        while talk.hits["/models"] == before:
            await trio.testing.wait_all_tasks_blocked()
        view = await poller.next(after_seconds=POLLING.timeout_seconds)
        assert view.reason == "/models: no answer within 2 s"


HALF = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n{"


@pytest.mark.parametrize(
    "reply", [NOT_FOUND, ok(b"<html>"), ok(b'{"uptime_secs":-1}'), b"junk", HALF]
)
async def test_bad_health_does_not_make_a_neuron_miss(
    pool: Pool, mock_clock: Clock, reply: bytes
) -> None:
    talk = Talk()
    talk.replies["/health"] = talk.replies["/discovery"] = reply
    async with (
        scripted(talk.script, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        view = poller.view
        assert (view.healthy, view.misses, view.uptime_seconds) == (True, 0, None)
        assert (view.models[A].can_serve, view.models[A].load.in_flight) == (True, 0)


async def test_discovery_is_asked_again_while_the_prompt_limit_is_unknown(
    pool: Pool, mock_clock: Clock
) -> None:
    talk = Talk()
    talk.replies["/discovery"] = ok(b'{"hostname":"h"}')
    async with (
        scripted(talk.script, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        await poller.next()
        talk.replies["/discovery"] = ok(b'{"hostname":"h2","max_prompt_tokens":9}')
        view = await poller.next()
        assert view.discovery is not None
        assert view.discovery.max_prompt_tokens == 9
        await poller.next()
        assert talk.hits["/discovery"] == 3


async def test_a_neuron_that_restarted_between_polls_is_asked_for_everything_anew(
    pool: Pool, mock_clock: Clock
) -> None:
    talk = Talk()
    async with (
        scripted(talk.script, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        talk.replies["/health"] = ok(b'{"uptime_secs":1}')
        await poller.next()
        assert talk.hits["/models/org%2Fa/endpoint"] == talk.hits["/discovery"] == 2


async def test_a_doubt_brings_the_next_poll_forward(pool: Pool, mock_clock: Clock) -> None:
    talk = Talk()
    async with (
        scripted(talk.script, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        poller.board.doubt(BEAST)
        await poller.next(after_seconds=BREATH_SECONDS)
        assert talk.hits["/models"] == 2
        assert talk.hits["/models/org%2Fa/endpoint"] == 1


async def test_a_doubt_about_a_model_has_its_address_looked_up_again(
    pool: Pool, mock_clock: Clock
) -> None:
    """A model may have been unloaded and loaded elsewhere between two polls."""
    talk = Talk()
    async with (
        scripted(talk.script, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        talk.replies["/models/org%2Fa/endpoint"] = ok(b'{"url":"http://localhost:8002"}')
        poller.board.doubt(BEAST, A)
        view = await poller.next(after_seconds=BREATH_SECONDS)
        assert view.models[A].base_url == "http://127.0.0.1:8002"


async def test_an_answer_that_may_be_older_than_what_is_known_is_not_believed(
    pool: Pool, mock_clock: Clock
) -> None:
    """The model was listed, then unloaded, and the rest of the poll took its time."""
    talk, asked, released = Talk(), trio.Event(), trio.Event()

    async def slow_health(peer: Peer) -> None:
        while request := await peer.request():
            path = request.split()[1].decode()
            talk.hits[path] += 1
            if path == "/health" and talk.hits[path] == 2:
                asked.set()
                await released.wait()
            await peer.send(talk.replies.get(path, NOT_FOUND))

    async with (
        scripted(slow_health, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(POLLING.interval_seconds)
        await asked.wait()
        poller.board.withdraw(BEAST, A)
        talk.replies["/models"] = ok(b'[{"id":"b"}]')
        released.set()
        assert A not in (await poller.next(after_seconds=0)).models
        view = await poller.next(after_seconds=BREATH_SECONDS)
        assert view.models.keys() == {B}
        assert talk.hits["/models"] == 3


async def test_many_doubts_do_not_make_many_polls(pool: Pool, mock_clock: Clock) -> None:
    talk = Talk()
    async with (
        scripted(talk.script, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        mock_clock.rate = 0
        for _ in range(100):
            poller.board.doubt(BEAST)
            await trio.testing.wait_all_tasks_blocked()
        assert talk.hits["/models"] == 1
        await poller.next(after_seconds=BREATH_SECONDS)
        await trio.testing.wait_all_tasks_blocked()
        assert talk.hits["/models"] == 2


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_an_openai_server_is_polled_by_its_model_list_alone(
    pool: Pool, mock_clock: Clock, suffix: str
) -> None:
    talk = Talk()
    talk.replies["/v1/models"] = ok(b'{"object":"list","data":[{"id":"m","max_model_len":64}]}')
    async with scripted(talk.script, within_seconds=60) as neuron:
        server = beast(neuron.url + suffix, kind="openai", api_key=Secret("sk-up"))
        async with polled(server, pool, mock_clock) as poller:
            model = (await poller.next()).models[ModelId("m")]
            assert (model.can_serve, model.base_url, model.limit.context) == (True, neuron.url, 64)
            view = poller.board.view.neurons[BEAST]
            route = route_to(view, ModelId("m"), server.api_key)
            assert (route.kind, route.api_key) == ("openai", "sk-up")
    assert talk.hits == {"/v1/models": 2}
    assert b"\r\nauthorization: Bearer sk-up\r\n" in talk.asked[0]
