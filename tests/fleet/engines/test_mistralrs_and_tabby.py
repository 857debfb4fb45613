"""Kinds `mistralrs` and `tabby`: bodies as their sources have them."""

from __future__ import annotations

import pytest

from cortexd.fleet.load_calls import LoadFailed, UnloadFailed
from cortexd.fleet.neuron import PollFailed
from cortexd.fleet.pool import Pool
from cortexd.fleet.reports import ModelId, ModelLoad
from tests.fleet.engines.recorded import (
    BREAKS_OFF,
    Recorded,
    Reply,
    context,
    engine,
    load,
    looked,
    spec,
    states,
)


def listed(**status: str) -> Reply:
    """What mistral.rs lists, its stand-in first."""
    data = [{"id": "default", "object": "model", "owned_by": "local"}]
    data += [{"id": name, "object": "model", "status": each} for name, each in status.items()]
    return 200, {"object": "list", "data": data}


def told(status: str, error: str | None = None) -> Reply:
    """What it answers to a call, whatever came of it."""
    return 200, {"model_id": "a", "status": status, "error": error}


async def test_mistralrs_lists_states_and_its_stand_in_is_no_model(pool: Pool) -> None:
    recorded = Recorded({"GET /v1/models": listed(a="loaded", b="unloaded", c="reloading")})
    view = await looked("mistralrs", recorded, pool)
    assert states(view) == {"a": "loaded", "b": "unloaded", "c": "reloading"}


async def test_mistralrs_loads_and_the_list_has_the_last_word(pool: Pool) -> None:
    recorded = Recorded(
        {"GET /v1/models": listed(a="reloading"), "POST /v1/models/reload": told("loaded")},
        {"GET /v1/models": {"GET /v1/models": listed(a="loaded")}},
    )
    async with engine("mistralrs", recorded, pool) as (control, _):
        await control.load(spec("a"))
    assert recorded.sent == [("/v1/models/reload", {"model_id": "a"})]


@pytest.mark.parametrize(
    ("answer", "permanent", "reason"),
    [
        (told("not_found"), True, "'not_found'"),
        (told("no_loader_config"), True, "'no_loader_config'"),
        (told("internal_error", "no\nmemory"), False, "'internal_error': no memory"),
        ((500, "x"), False, "status 500"),
        ((200, "[]"), False, "status 200"),
    ],
)
async def test_a_200_of_mistralrs_proves_nothing(
    pool: Pool, answer: Reply, permanent: bool, reason: str
) -> None:
    recorded = Recorded({"POST /v1/models/reload": answer})
    async with engine("mistralrs", recorded, pool) as (control, _):
        with pytest.raises(LoadFailed, match=reason) as failed:
            await control.load(spec("a"))
    assert failed.value.permanent is permanent


async def test_mistralrs_unloads(pool: Pool) -> None:
    call = "POST /v1/models/unload"
    recorded = Recorded(
        {"GET /v1/models": listed(a="loaded"), call: told("unloaded")},
        {call: {"GET /v1/models": listed(a="unloaded")}},
    )
    async with engine("mistralrs", recorded, pool) as (control, _):
        await control.unload(ModelId("a"))
        recorded.replies[call] = told("internal_error", "locked")
        with pytest.raises(UnloadFailed, match="'internal_error': locked"):
            await control.unload(ModelId("a"))
        recorded.replies[call] = (503, '{"message":"busy"}')
        with pytest.raises(UnloadFailed, match="status 503: busy"):
            await control.unload(ModelId("a"))


CARDS: Reply = (
    200,
    '{"object":"list","data":[{"id":"a-exl2","object":"model","owned_by":"tabbyAPI"},'
    '{"id":"b-exl3","object":"model","owned_by":"tabbyAPI"}]}',
)
NONE: Reply = (503, '{"detail":"No models are currently loaded."}')
PROGRESS = (
    'data: {"model_type":"model","module":1,"modules":2,"status":"processing"}\r\n\r\n'
    'data: {"model_type":"model","module":2,"modules":2,"status":"finished"}\r\n\r\n'
)
BROKE_OFF = 'data: {"error":{"message":"out of memory","trace":""}}\r\n\r\n'


def current(name: str) -> Reply:
    """`/v1/model` while a model is loaded."""
    parameters = {"max_seq_len": 16384, "cache_size": 16384, "max_batch_size": 8}
    return 200, {"id": name, "object": "model", "parameters": {**parameters, "use_vision": True}}


async def test_tabby_tells_which_of_its_models_is_loaded(pool: Pool) -> None:
    recorded = Recorded({"GET /v1/models": CARDS, "GET /v1/model": current("b-exl3")})
    view = await looked("tabby", recorded, pool)
    assert states(view) == {"a-exl2": "unloaded", "b-exl3": "loaded"}
    assert context(view, "b-exl3") == 16384
    assert load(view, "b-exl3") == ModelLoad("b-exl3", max_in_flight=8)


async def test_a_tabby_without_a_model_is_healthy(pool: Pool) -> None:
    view = await looked("tabby", Recorded({"GET /v1/models": CARDS, "GET /v1/model": NONE}), pool)
    assert view.healthy
    assert states(view) == {"a-exl2": "unloaded", "b-exl3": "unloaded"}


async def test_a_tabby_that_refuses_its_key_misses(pool: Pool) -> None:
    refused = (401, '{"detail":"Invalid API key"}')
    recorded = Recorded({"GET /v1/models": CARDS, "GET /v1/model": refused})
    async with engine("tabby", recorded, pool) as (control, _):
        with pytest.raises(PollFailed, match="/v1/model answered with status 401"):
            await control.poll()


async def test_tabby_loads_with_a_stream_of_its_progress(pool: Pool) -> None:
    call = "POST /v1/model/load"
    recorded = Recorded(
        {"GET /v1/models": CARDS, "GET /v1/model": NONE, call: (200, PROGRESS)},
        {call: {"GET /v1/model": current("a-exl2")}},
    )
    async with engine("tabby", recorded, pool) as (control, _):
        await control.load(spec("a-exl2"))
    assert recorded.sent == [("/v1/model/load", {"model_name": "a-exl2"})]


async def test_a_load_that_broke_off_behind_a_200_is_a_failure(pool: Pool) -> None:
    recorded = Recorded(
        {"GET /v1/models": CARDS, "GET /v1/model": NONE, "POST /v1/model/load": (200, BROKE_OFF)}
    )
    async with engine("tabby", recorded, pool) as (control, _):
        with pytest.raises(LoadFailed, match="does not have it"):
            await control.load(spec("a-exl2"))


async def test_tabby_unloads_the_model_that_is_meant_and_no_other(pool: Pool) -> None:
    call = "POST /v1/model/unload"
    recorded = Recorded(
        {"GET /v1/models": CARDS, "GET /v1/model": current("a-exl2"), call: (200, "")},
        {call: {"GET /v1/model": NONE}},
    )
    async with engine("tabby", recorded, pool) as (control, _):
        await control.unload(ModelId("b-exl3"))
        assert recorded.sent == []
        await control.unload(ModelId("a-exl2"))
        assert recorded.sent == [("/v1/model/unload", None)]
        await control.unload(ModelId("a-exl2"))
        assert len(recorded.sent) == 1


@pytest.mark.parametrize("current", [(401, "{}"), (200, "[]"), (200, "{")])
async def test_a_tabby_that_does_not_say_which_model_it_has_is_told_to_unload_all_the_same(
    pool: Pool, current: Reply
) -> None:
    call = "POST /v1/model/unload"
    recorded = Recorded(
        {"GET /v1/models": CARDS, "GET /v1/model": current, call: (200, "")},
        {call: {"GET /v1/model": NONE}},
    )
    async with engine("tabby", recorded, pool) as (control, _):
        await control.unload(ModelId("a-exl2"))
        assert recorded.sent == [("/v1/model/unload", None)]
        recorded.replies |= {"GET /v1/model": current, call: (500, '{"detail":"busy"}')}
        with pytest.raises(UnloadFailed, match="status 500: busy"):
            await control.unload(ModelId("a-exl2"))


async def test_a_tabby_that_knows_no_such_model_fails_the_load_for_good(pool: Pool) -> None:
    unknown = (404, '{"detail":"model not found"}')
    recorded = Recorded({"POST /v1/model/load": unknown})
    async with engine("tabby", recorded, pool) as (control, _):
        with pytest.raises(LoadFailed, match="model not found") as failed:
            await control.load(spec("nope"))
    assert failed.value.permanent


async def test_an_engine_that_breaks_off_fails_the_call(pool: Pool) -> None:
    calls = ["POST /v1/models/reload", "POST /v1/models/unload"]
    recorded = Recorded(dict.fromkeys(calls, BREAKS_OFF))
    async with engine("mistralrs", recorded, pool) as (control, _):
        with pytest.raises(LoadFailed, match=r"^/v1/models/reload: "):
            await control.load(spec("a"))
        with pytest.raises(UnloadFailed, match=r"^/v1/models/unload: "):
            await control.unload(ModelId("a"))
