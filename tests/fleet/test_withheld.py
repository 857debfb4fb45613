"""Calls that the rest can do without, and that do not answer for once."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio.testing

from cortexd.fleet.neuron import KEPT_SECONDS
from cortexd.fleet.pool import Pool
from cortexd.fleet.reports import ModelId, ModelLoad
from cortexd.fleet.view import DeviceView
from tests.fleet.scripted import ok, scripted
from tests.fleet.talking import NOT_FOUND, Talk, beast
from tests.fleet.test_poller import BEAST, POLLING, A, Polled, polled

Clock = trio.testing.MockClock
HEALTH = ok(
    b'{"uptime_secs":100,"devices":[{"index":0,"vram_used_mb":20000,"vram_free_mb":4000}],'
    b'"models":[{"id":"org/a","in_flight":3,"max_in_flight":4}]}'
)
FAILS = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"
BUSY = ModelLoad("org/a", in_flight=3, max_in_flight=4)
FULL = (DeviceView(0, vram_used_mb=20_000, vram_free_mb=4_000),)


@asynccontextmanager
async def healthy(pool: Pool, clock: Clock) -> AsyncIterator[tuple[Talk, Polled]]:
    """A neuron that has told of its limits and its memory once."""
    talk = Talk()
    talk.replies["/health"] = HEALTH
    async with (
        scripted(talk.script, within_seconds=KEPT_SECONDS + 60) as neuron,
        polled(beast(neuron.url), pool, clock) as poller,
    ):
        yield talk, poller


@pytest.mark.parametrize("reply", [FAILS, ok(b"<html>"), b"junk"])
async def test_limits_and_memory_stand_while_a_neuron_does_not_tell_them(
    pool: Pool, mock_clock: Clock, caplog: pytest.LogCaptureFixture, reply: bytes
) -> None:
    """Else one bad answer reads as "no limit, nobody else there, all memory free"."""
    caplog.set_level(logging.WARNING, "cortexd.fleet")
    async with healthy(pool, mock_clock) as (talk, poller):
        talk.replies["/health"] = reply
        for _ in range(2):
            view = await poller.next()
            assert (view.models[A].load, view.devices, view.uptime_seconds) == (BUSY, FULL, 100)
            assert view.withheld == ("/health",)
        talk.replies["/health"] = ok(b'{"uptime_secs":200}')
        view = await poller.next()
        assert (view.models[A].load, view.devices, view.withheld) == (ModelLoad("org/a"), (), ())
    told = [each.getMessage().split(" do=")[0] for each in caplog.records]
    assert told == ["event=neuron_withholds neuron=beast call=/health kept_seconds=300"]


async def test_what_is_not_told_for_long_is_not_known_any_more(
    pool: Pool, mock_clock: Clock
) -> None:
    async with healthy(pool, mock_clock) as (talk, poller):
        talk.replies["/health"] = FAILS
        view = await poller.next(after_seconds=KEPT_SECONDS - 1)
        assert view.models[A].load == BUSY
        view = await poller.next()
        assert (view.models[A].load, view.devices, view.withheld) == (ModelLoad("org/a"), (), ())


async def test_a_call_that_a_neuron_does_not_have_any_more_tells_nothing(
    pool: Pool, mock_clock: Clock
) -> None:
    async with healthy(pool, mock_clock) as (talk, poller):
        talk.replies["/health"] = NOT_FOUND
        view = await poller.next()
        assert (view.models[A].load, view.withheld) == (ModelLoad("org/a"), ())


async def test_what_a_neuron_told_before_it_was_down_counts_no_more(
    pool: Pool, mock_clock: Clock
) -> None:
    async with healthy(pool, mock_clock) as (talk, poller):
        fine = talk.replies["/models"]
        talk.replies["/models"] = talk.replies["/health"] = FAILS
        for _ in range(POLLING.misses_to_unhealthy):
            await poller.next()
        talk.replies["/models"] = fine
        view = await poller.next()
        assert (view.healthy, view.models[A].load) == (True, ModelLoad("org/a"))


async def test_memory_told_before_a_model_left_is_of_before_until_it_is_told_again(
    pool: Pool, mock_clock: Clock
) -> None:
    """Nothing is placed by it meanwhile: it may be free now, or a stranger's."""
    async with healthy(pool, mock_clock) as (talk, poller):
        await poller.next()
        talk.replies["/models"], talk.replies["/health"] = ok(b"[]"), FAILS
        poller.board.withdraw(BEAST, ModelId(A))
        await poller.next(after_seconds=0)
        view = await poller.next(after_seconds=1)
        assert (view.models, view.devices, view.memory_is_old) == ({}, FULL, True)
        assert not view.is_stale, "it has been asked since, and does not list it"
        talk.replies["/health"] = HEALTH
        assert not (await poller.next()).memory_is_old


async def test_a_model_whose_address_is_not_told_is_logged_once(
    pool: Pool, mock_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "cortexd.fleet")
    talk = Talk()
    talk.replies["/models/org%2Fa/endpoint"] = FAILS
    async with (
        scripted(talk.script, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        assert (await poller.next()).models[A].unaddressed == 2
    told = [each.getMessage().split(" do=")[0] for each in caplog.records]
    assert told == ["event=address_unknown neuron=beast model=org/a"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (
            ok(b'{"devices":[{"index":0,"vram_total_mb":24564.5}],"max_prompt_tokens":9}'),
            "Expected `int`, got `float` - at `$.devices[0].vram_total_mb`",
        ),
        (FAILS, "answered with status 503"),
    ],
)
async def test_why_nothing_is_known_of_the_cards_is_logged_once(
    pool: Pool, mock_clock: Clock, caplog: pytest.LogCaptureFixture, reply: bytes, reason: str
) -> None:
    caplog.set_level(logging.WARNING, "cortexd.fleet")
    talk = Talk()
    fine, talk.replies["/discovery"] = talk.replies["/discovery"], reply
    async with (
        scripted(talk.script, within_seconds=60) as neuron,
        polled(beast(neuron.url), pool, mock_clock) as poller,
    ):
        view = await poller.next()
        assert (view.undiscovered, view.undiscovered_polls) == (f"/discovery: {reason}", 2)
        talk.replies["/discovery"] = fine
        view = await poller.next()
        assert (view.undiscovered, view.undiscovered_polls) == (None, 0)
    told = [each.getMessage().split(" do=")[0] for each in caplog.records]
    assert told == [f'event=neuron_undiscovered neuron=beast reason="/discovery: {reason}"']
