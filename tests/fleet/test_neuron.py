"""The control clients where a poll is not simply answered; the rest is seen through the poller."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from cortexd.config.schema import NeuronKind
from cortexd.fleet.engines.controls import control_of
from cortexd.fleet.neuron import MODELS_MAX, PollFailed
from cortexd.fleet.pool import Pool
from cortexd.fleet.reports import ModelId
from cortexd.fleet.view import Answered
from tests.fleet.scripted import ok, scripted
from tests.fleet.talking import NOT_FOUND, Talk, beast

A = ModelId("org/a")
Clock = trio.testing.MockClock


async def poll_with_a_silent(
    path: str, pool: Pool, clock: Clock, *, silent_seconds: float
) -> Answered:
    """One poll with two seconds for it, of a neuron that does not answer on one path."""
    talk = Talk()
    talk.replies[path] = b""
    answers: list[Answered] = []
    async with scripted(talk.script, within_seconds=60) as neuron:
        control = control_of(beast(neuron.url), pool, timeout_seconds=2)

        async def poll() -> None:
            answers.append(await control.poll())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll, name="poll")
            while talk.hits[path] == 0:
                await trio.testing.wait_all_tasks_blocked()
            clock.jump(silent_seconds)
        await control.aclose()
    return answers[0]


async def test_silent_health_costs_half_of_the_time_and_not_the_addresses(
    pool: Pool, mock_clock: Clock
) -> None:
    answered = await poll_with_a_silent("/health", pool, mock_clock, silent_seconds=1)
    assert answered.health is None
    assert answered.discovery is not None
    assert answered.endpoints == {A: "http://127.0.0.1:8001"}


async def test_a_neuron_began_no_sooner_than_its_seconds_allow(
    pool: Pool, mock_clock: Clock
) -> None:
    """Counted from when it was asked, whatever its answer took, and also if that is an old one."""
    talk = Talk()
    talk.replies["/health"] = ok(b'{"uptime_secs":5}')
    mock_clock.jump(100)
    async with scripted(talk.script, within_seconds=60) as neuron:
        control = control_of(beast(neuron.url), pool, timeout_seconds=2)
        assert (await control.poll()).started_after_ms == 94_000
        mock_clock.jump(30)
        talk.replies["/health"] = ok(b"<html>")
        assert (await control.poll()).started_after_ms == 94_000
        talk.replies["/health"] = NOT_FOUND
        assert (await control.poll()).started_after_ms is None
        await control.aclose()


@pytest.mark.parametrize("told", ["{}", '{"uptime_secs":0}', '{"models":[]}'])
async def test_a_neuron_that_does_not_tell_its_uptime_began_nobody_knows_when(
    pool: Pool, mock_clock: Clock, told: str
) -> None:
    """Else it begins with every poll, and no load outlives the next one."""
    talk = Talk()
    talk.replies["/health"] = ok(told.encode())
    mock_clock.jump(100)
    async with scripted(talk.script, within_seconds=60) as neuron:
        control = control_of(beast(neuron.url), pool, timeout_seconds=2)
        answered = await control.poll()
        assert (answered.health is None, answered.started_after_ms) == (False, None)
        await control.aclose()


@pytest.mark.parametrize(
    ("polls", "started_after_ms"),
    [
        pytest.param((5, 5, 5), (94_000, 95_000, 95_000), id="stands still"),
        pytest.param((5, 0, 5), (94_000, None, 95_000), id="is left out once"),
        pytest.param((60, 60, 120), (39_000, 40_000, 39_000), id="is told in minutes"),
        pytest.param((5, 34, 64), (94_000, 95_000, 95_000), id="was nearly a second more"),
        pytest.param((50, 2, 32), (49_000, 127_000, 127_000), id="restarts"),
        pytest.param((50, 0, 30), (49_000, None, 129_000), id="restarts just now"),
    ],
)
async def test_only_an_uptime_that_falls_shows_a_restart(
    pool: Pool,
    mock_clock: Clock,
    polls: tuple[int, ...],
    started_after_ms: tuple[int | None, ...],
) -> None:
    """A load that began after a neuron was heard of must not look older than its process."""
    talk, told = Talk(), []
    mock_clock.jump(100)
    async with scripted(talk.script, within_seconds=100) as neuron:
        control = control_of(beast(neuron.url), pool, timeout_seconds=2)
        for uptime in polls:
            talk.replies["/health"] = ok(b'{"uptime_secs":%d}' % uptime)
            told.append((await control.poll()).started_after_ms)
            mock_clock.jump(30)
        await control.aclose()
    assert tuple(told) == started_after_ms


async def test_a_silent_discovery_costs_the_discovery_only(pool: Pool, mock_clock: Clock) -> None:
    answered = await poll_with_a_silent("/discovery", pool, mock_clock, silent_seconds=0.5)
    assert answered.health is not None
    assert answered.discovery is None
    assert answered.endpoints == {A: "http://127.0.0.1:8001"}


async def test_a_silent_address_costs_no_other_model_its_own_and_is_asked_for_last(
    pool: Pool, mock_clock: Clock
) -> None:
    """Else one model that hangs keeps all later ones of its neuron from being served, for ever."""
    talk = Talk()
    talk.replies["/models"] = ok(b'[{"id":"org/a"},{"id":"b"}]')
    talk.replies["/models/org%2Fa/endpoint"] = b""
    talk.replies["/models/b/endpoint"] = ok(b'{"url":"http://localhost:8002"}')
    async with scripted(talk.script, within_seconds=60) as neuron:
        control = control_of(beast(neuron.url), pool, timeout_seconds=2)
        for turn in (1, 2):
            answers: list[Answered] = []

            async def poll(answers: list[Answered] = answers) -> None:
                answers.append(await control.poll())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(poll, name="poll")
                while talk.hits["/models/org%2Fa/endpoint"] < turn:
                    await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(0.5)
            assert answers[0].endpoints == {ModelId("b"): "http://127.0.0.1:8002"}
            assert answers[0].discovery is not None
            control.forget_endpoints([ModelId("b")])
        await control.aclose()
    asked = [request.split()[1] for request in talk.asked if b"/endpoint" in request]
    a, b = b"/models/org%2Fa/endpoint", b"/models/b/endpoint"
    assert asked == [a, b, b, a]


@pytest.mark.parametrize(
    ("reply", "timeout_seconds", "reason"),
    [
        (NOT_FOUND, 5, "status 404"),
        (b"", 0.03, "no answer within"),
        (ok(b"[]"), 5, "no model list"),
    ],
)
async def test_an_openai_server_misses_like_a_neuron(
    pool: Pool, reply: bytes, timeout_seconds: float, reason: str
) -> None:
    talk = Talk()
    talk.replies["/v1/models"] = reply
    async with scripted(talk.script) as neuron:
        server = beast(neuron.url, kind="openai")
        control = control_of(server, pool, timeout_seconds=timeout_seconds)
        control.forget()
        control.forget_endpoints([A])
        with pytest.raises(PollFailed, match=reason):
            await control.poll()
        await control.aclose()


@pytest.mark.parametrize(
    ("kind", "path"),
    [("neuron", "/models"), ("openai", "/v1/models"), ("vllm", "/v1/models")],
)
async def test_a_list_of_more_models_than_can_be_worked_with_is_a_miss(
    pool: Pool, kind: NeuronKind, path: str
) -> None:
    """Every decision goes through them, and none of their addresses is asked for."""
    talk, listed = Talk(), [{"id": str(number)} for number in range(MODELS_MAX + 1)]
    talk.replies[path] = ok(json.dumps(listed if kind == "neuron" else {"data": listed}).encode())
    async with scripted(talk.script) as neuron:
        control = control_of(beast(neuron.url, kind=kind), pool, timeout_seconds=2)
        with pytest.raises(PollFailed, match="it lists 1001 models; more than 1000 are not read"):
            await control.poll()
        await control.aclose()
    assert not [asked for asked in talk.hits if "endpoint" in asked]


async def test_a_model_whose_id_is_hostile_is_asked_for_by_its_quoted_id(pool: Pool) -> None:
    talk = Talk()
    talk.replies["/models"] = ok(rb'[{"id":"../x?y#z\r\nA: b\u00e9"}]')
    path = "/models/..%2Fx%3Fy%23z%0D%0AA%3A%20b%C3%A9/endpoint"
    talk.replies[path] = ok(b'{"url":"http://localhost:1"}')
    async with scripted(talk.script) as neuron:
        control = control_of(beast(neuron.url), pool, timeout_seconds=2)
        answered = await control.poll()
        await control.aclose()
    assert talk.hits[path] == 1
    assert len(answered.endpoints) == 1
