"""Kind `llama-router`: bodies as llama.cpp's server build 11669 sent them without a model."""

from __future__ import annotations

import json

import pytest

from cortexd.fleet.load_calls import LoadFailed, UnloadFailed
from cortexd.fleet.pool import Pool
from cortexd.fleet.reports import ModelId, ModelLoad
from tests.fleet.engines.recorded import (
    Recorded,
    Reply,
    context,
    engine,
    load,
    looked,
    spec,
    states,
)
from tests.fleet.engines.test_llama_server import PROPS, SLOTS

DONE: Reply = (200, '{"success":true}')


def models(**status: object) -> Reply:
    """The list, with a status for each model: a word, or all of the object."""
    data = []
    for name, state in status.items():
        said = state if isinstance(state, dict) else {"value": state}
        entry = {
            "id": name,
            "aliases": [],
            "object": "model",
            "owned_by": "llamacpp",
            "status": {**said, "args": ["llama-server", "--ctx-size", "4096"]},
            "source": "models_dir",
            "context_length": 32768,
        }
        data.append(entry | ({"meta": {"n_ctx": 2048}} if said["value"] == "loaded" else {}))
    return 200, json.dumps({"data": data, "object": "list"})


def error(code: int, message: str) -> Reply:
    """An error as the router says it."""
    return code, {"error": {"code": code, "message": message, "type": "invalid_request_error"}}


async def test_every_state_has_a_word_of_the_fleet(pool: Pool) -> None:
    said = {
        "a": "unloaded",
        "b": "loading",
        "c": "loaded",
        "d": "sleeping",
        "e": "downloading",
        "f": "downloaded",
        "g": {"value": "unloaded", "failed": True, "exit_code": 1},
    }
    view = await looked("llama-router", Recorded({"GET /v1/models": models(**said)}), pool)
    assert states(view) == {
        "a": "unloaded",
        "b": "loading",
        "c": "loaded",
        "d": "loaded",
        "e": "loading",
        "f": "unloaded",
        "g": "unloaded",
    }
    assert [id for id, model in view.models.items() if model.asleep] == ["d"]
    assert not view.models[ModelId("g")].is_servable
    assert (context(view, "a"), context(view, "c")) == (None, 2048)


async def test_loaded_models_are_asked_one_by_one_how_busy_they_are(pool: Pool) -> None:
    recorded = Recorded(
        {
            "GET /v1/models": models(**{"org/c": "loaded", "a": "unloaded", "z": "sleeping"}),
            "GET /props?model=org%2Fc&autoload=false": PROPS,
            "GET /slots?model=org%2Fc&autoload=false": SLOTS,
        }
    )
    view = await looked("llama-router", recorded, pool)
    assert load(view, "org/c") == ModelLoad("org/c", in_flight=1, max_in_flight=2)
    assert not [call for call in recorded.asked if "model=a" in call]
    assert "GET /slots?model=z&autoload=false" not in recorded.asked, "that might wake it"


async def test_a_load_is_done_when_the_list_says_so(pool: Pool) -> None:
    recorded = Recorded(
        {"POST /models/load": DONE, "GET /v1/models": models(a="loading")},
        {"GET /v1/models": {"GET /v1/models": models(a="loaded")}},
    )
    async with engine("llama-router", recorded, pool) as (control, _):
        await control.load(spec("a"))
    assert recorded.sent == [("/models/load", {"model": "a"})]
    assert recorded.asked.count("GET /v1/models") == 2


async def test_a_model_that_is_running_already_is_waited_for(pool: Pool) -> None:
    recorded = Recorded(
        {
            "POST /models/load": error(400, "model is already running"),
            "GET /v1/models": models(a="loaded"),
        }
    )
    async with engine("llama-router", recorded, pool) as (control, _):
        await control.load(spec("a"))


@pytest.mark.parametrize(
    ("answer", "permanent", "reason"),
    [
        (error(404, "File Not Found"), True, "status 404: File Not Found"),
        (error(400, "model name is missing"), False, "status 400: model name is missing"),
        ((500, "oops"), False, "answered with status 500$"),
    ],
)
async def test_a_load_that_is_refused_fails_at_once(
    pool: Pool, answer: Reply, permanent: bool, reason: str
) -> None:
    recorded = Recorded({"POST /models/load": answer, "GET /v1/models": models(a="unloaded")})
    async with engine("llama-router", recorded, pool) as (control, _):
        with pytest.raises(LoadFailed, match=reason) as failed:
            await control.load(spec("a"))
    assert failed.value.permanent is permanent


async def test_a_router_that_has_no_room_at_this_moment_is_asked_again(pool: Pool) -> None:
    """Seen where the model that was to make room was just being asked how busy it is."""
    full = (500, {"error": {"code": 500, "message": "model limit reached, try again later"}})
    recorded = Recorded(
        {"POST /models/load": full, "GET /v1/models": models(a="loaded")},
        {"POST /models/load": {"POST /models/load": DONE}},
    )
    async with engine("llama-router", recorded, pool) as (control, _):
        await control.load(spec("a"))
    assert recorded.asked.count("POST /models/load") == 2


async def test_a_model_that_has_made_room_for_another_was_loaded(pool: Pool) -> None:
    recorded = Recorded(
        {"POST /models/load": DONE, "GET /v1/models": models(a="loading")},
        {"GET /v1/models": {"GET /v1/models": models(a="unloaded")}},
    )
    async with engine("llama-router", recorded, pool) as (control, _):
        await control.load(spec("a"))


async def test_a_load_that_comes_to_nothing_is_a_failure(pool: Pool) -> None:
    after = {"value": "unloaded", "failed": True, "exit_code": 1}
    recorded = Recorded(
        {"POST /models/load": DONE, "GET /v1/models": models(a="loading")},
        {"GET /v1/models": {"GET /v1/models": models(a=after)}},
    )
    async with engine("llama-router", recorded, pool) as (control, _):
        with pytest.raises(LoadFailed, match="says that the load failed"):
            await control.load(spec("a"))


async def test_an_unload_is_done_when_the_list_says_so(pool: Pool) -> None:
    recorded = Recorded(
        {"POST /models/unload": DONE, "GET /v1/models": models(a="loaded")},
        {"GET /v1/models": {"GET /v1/models": models(a="unloaded")}},
    )
    async with engine("llama-router", recorded, pool) as (control, _):
        await control.unload(ModelId("a"))
    assert recorded.asked.count("GET /v1/models") == 2


async def test_what_does_not_run_is_unloaded_and_other_errors_are_not(pool: Pool) -> None:
    recorded = Recorded(
        {
            "POST /models/unload": error(400, "model is not running"),
            "GET /v1/models": models(a="unloaded"),
        }
    )
    async with engine("llama-router", recorded, pool) as (control, _):
        await control.unload(ModelId("a"))
        recorded.replies["POST /models/unload"] = error(500, "cannot")
        with pytest.raises(UnloadFailed, match="status 500: cannot"):
            await control.unload(ModelId("a"))
