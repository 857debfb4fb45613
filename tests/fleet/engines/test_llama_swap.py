"""Kind `llama-swap`: bodies as its API describes them."""

from __future__ import annotations

import pytest

from cortexd.fleet.load_calls import LoadFailed, UnloadFailed
from cortexd.fleet.neuron import PollFailed
from cortexd.fleet.pool import Pool
from cortexd.fleet.reports import ModelId
from tests.fleet.engines.recorded import Recorded, Reply, engine, looked, spec, states

MODELS: Reply = (
    200,
    '{"object":"list","data":['
    '{"id":"qwen","object":"model","created":1,"owned_by":"llama-swap"},'
    '{"id":"org/big","object":"model","created":1,"owned_by":"llama-swap"},'
    '{"id":"c","object":"model"},{"id":"d","object":"model"}]}',
)


def running(**states: str) -> Reply:
    """`/running` with these models."""
    each = [{"model": name, "state": state, "ttl": 0} for name, state in states.items()]
    return 200, {"running": each}


async def test_what_is_configured_is_unloaded_unless_it_runs(pool: Pool) -> None:
    now = running(**{"qwen": "ready", "org/big": "starting", "c": "stopping"})
    view = await looked(
        "llama-swap", Recorded({"GET /v1/models": MODELS, "GET /running": now}), pool
    )
    assert states(view) == {
        "qwen": "loaded",
        "org/big": "loading",
        "c": "unloaded",
        "d": "unloaded",
    }


async def test_without_the_list_of_what_runs_it_misses(pool: Pool) -> None:
    async with engine("llama-swap", Recorded({"GET /v1/models": MODELS}), pool) as (control, _):
        with pytest.raises(PollFailed, match="/running answered with status 404"):
            await control.poll()


async def test_a_load_is_a_question_after_the_models_health(pool: Pool) -> None:
    recorded = Recorded(
        {
            "GET /v1/models": MODELS,
            "GET /running": running(),
            "GET /upstream/org/big/health": (200, "OK"),
        },
        {"GET /upstream/org/big/health": {"GET /running": running(**{"org/big": "ready"})}},
    )
    async with engine("llama-swap", recorded, pool) as (control, _):
        await control.load(spec("org/big"))
        recorded.replies["GET /upstream/org/big/health"] = (502, "exited")
        with pytest.raises(LoadFailed, match="/upstream answered with status 502"):
            await control.load(spec("org/big"))


async def test_an_unload_names_the_model(pool: Pool) -> None:
    call = "POST /api/models/unload/qwen"
    recorded = Recorded(
        {"GET /v1/models": MODELS, "GET /running": running(qwen="ready"), call: (200, "OK")},
        {call: {"GET /running": running()}},
    )
    async with engine("llama-swap", recorded, pool) as (control, _):
        await control.unload(ModelId("qwen"))
        with pytest.raises(UnloadFailed, match="status 404"):
            await control.unload(ModelId("d"))
