"""Kind `lmstudio`: bodies as its API documentation has them."""

from __future__ import annotations

import pytest

from cortexd.fleet.load_calls import LoadFailed, UnloadFailed
from cortexd.fleet.neuron import PollFailed
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


def models(*instances: tuple[str, int, object]) -> Reply:
    """The list with one chat model, loaded so often, and one for embeddings."""
    loaded = [
        {"id": name, "config": {"context_length": length, "parallel": parallel}}
        for name, length, parallel in instances
    ]
    chat = {
        "type": "llm",
        "publisher": "qwen",
        "key": "qwen/qwen3-8b",
        "display_name": "Qwen3 8B",
        "size_bytes": 5030000000,
        "loaded_instances": loaded,
        "max_context_length": 40960,
        "capabilities": {"vision": True, "trained_for_tool_use": True},
    }
    embedding = {"type": "embedding", "key": "nomic", "loaded_instances": [], "size_bytes": 1}
    return 200, {"models": [chat, embedding, {**chat, "loaded_instances": []}]}


async def test_a_model_with_an_instance_is_loaded_and_the_smallest_context_counts(
    pool: Pool,
) -> None:
    listed = models(("qwen/qwen3-8b", 16384, 4), ("qwen/qwen3-8b:2", 8192, 2))
    view = await looked("lmstudio", Recorded({"GET /api/v1/models": listed}), pool)
    assert states(view) == {"qwen/qwen3-8b": "loaded", "nomic": "unloaded"}
    assert context(view, "qwen/qwen3-8b") == 8192
    assert load(view, "qwen/qwen3-8b") == ModelLoad("qwen/qwen3-8b", max_in_flight=6)
    model = view.models[ModelId("qwen/qwen3-8b")]
    assert (model.capabilities, model.tool_call) == (("text", "vision"), True)
    assert view.models[ModelId("nomic")].capabilities == ("embedding",)


async def test_one_instance_that_does_not_say_leaves_the_number_unknown(pool: Pool) -> None:
    listed = models(("a", 16384, 4), ("b", 8192, None))
    view = await looked("lmstudio", Recorded({"GET /api/v1/models": listed}), pool)
    assert load(view, "qwen/qwen3-8b").max_in_flight == 0


async def test_a_load_is_asked_for_once_and_not_where_it_is_loaded(pool: Pool) -> None:
    done = (200, {"instance_id": "qwen/qwen3-8b", "status": "loaded", "type": "llm"})
    recorded = Recorded(
        {"GET /api/v1/models": models(), "POST /api/v1/models/load": done},
        {"POST /api/v1/models/load": {"GET /api/v1/models": models(("i", 4096, 1))}},
    )
    async with engine("lmstudio", recorded, pool) as (control, _):
        await control.load(spec("qwen/qwen3-8b"))
        await control.load(spec("qwen/qwen3-8b"))
    assert recorded.sent == [("/api/v1/models/load", {"model": "qwen/qwen3-8b"})]


async def test_a_load_that_is_refused_fails(pool: Pool) -> None:
    refused = (500, {"error": {"message": "insufficient resources", "type": "model_load_failed"}})
    recorded = Recorded({"POST /api/v1/models/load": refused})
    async with engine("lmstudio", recorded, pool) as (control, _):
        with pytest.raises(LoadFailed, match="insufficient resources"):
            await control.load(spec("qwen/qwen3-8b"))


async def test_an_unload_takes_every_instance(pool: Pool) -> None:
    unload = "POST /api/v1/models/unload"
    recorded = Recorded(
        {"GET /api/v1/models": models(("i", 4096, 1), ("j", 4096, 1)), unload: (200, {})},
        {unload: {"GET /api/v1/models": models()}},
    )
    async with engine("lmstudio", recorded, pool) as (control, _):
        await control.unload(ModelId("qwen/qwen3-8b"))
    path = "/api/v1/models/unload"
    assert recorded.sent == [(path, {"instance_id": "i"}), (path, {"instance_id": "j"})]


async def test_an_unload_that_fails_or_cannot_even_be_asked_for_says_why(pool: Pool) -> None:
    recorded = Recorded({"POST /api/v1/models/unload": (500, "busy")})
    async with engine("lmstudio", recorded, pool) as (control, _):
        with pytest.raises(UnloadFailed, match="instances are not known"):
            await control.unload(ModelId("qwen/qwen3-8b"))
        recorded.replies["GET /api/v1/models"] = models(("i", 4096, 1))
        with pytest.raises(UnloadFailed, match="status 500"):
            await control.unload(ModelId("qwen/qwen3-8b"))


async def test_a_list_that_is_none_is_a_missed_poll(pool: Pool) -> None:
    recorded = Recorded({"GET /api/v1/models": (200, '{"data":[]}')})
    async with engine("lmstudio", recorded, pool) as (control, _):
        with pytest.raises(PollFailed, match="no model list"):
            await control.poll()
