"""Kind `ollama`: bodies as its API documentation has them."""

from __future__ import annotations

import pytest

from cortexd.fleet.load_calls import LoadFailed, UnloadFailed
from cortexd.fleet.neuron import MODELS_MAX, PollFailed
from cortexd.fleet.pool import Pool
from cortexd.fleet.reports import ModelId
from tests.fleet.engines.recorded import Recorded, Reply, context, engine, looked, spec, states

TAGS: Reply = (
    200,
    '{"models":[{"name":"qwen3:8b","model":"qwen3:8b","modified_at":"2025-05-10T08:06:48Z",'
    '"size":5225388164,"digest":"500a","details":{"format":"gguf","family":"qwen3"}},'
    '{"name":"llama3.2:latest","model":"llama3.2:latest","size":2019393189}]}',
)
EMPTY: Reply = (200, '{"models":[]}')
RESIDENT: Reply = (
    200,
    '{"models":[{"name":"qwen3:8b","model":"qwen3:8b","size":6654289920,"digest":"500a",'
    '"details":{},"expires_at":"2318-06-06T14:38:31Z","size_vram":6654289920,'
    '"context_length":4096}]}',
)
LOADED: Reply = (200, '{"model":"qwen3:8b","response":"","done":true,"done_reason":"load"}')
GONE: Reply = (200, '{"model":"qwen3:8b","response":"","done":true,"done_reason":"unload"}')
UNKNOWN: Reply = (404, '{"error":"model \'nope\' not found"}')


async def test_what_is_in_memory_is_loaded_with_its_size_and_context(pool: Pool) -> None:
    view = await looked("ollama", Recorded({"GET /api/tags": TAGS, "GET /api/ps": RESIDENT}), pool)
    assert states(view) == {"qwen3:8b": "loaded", "llama3.2:latest": "unloaded"}
    assert context(view, "qwen3:8b") == 4096
    assert view.models[ModelId("qwen3:8b")].vram_used_mb == 6347


async def test_without_either_list_it_misses(pool: Pool) -> None:
    async with engine("ollama", Recorded({"GET /api/tags": TAGS}), pool) as (control, _):
        with pytest.raises(PollFailed, match="/api/ps answered with status 404"):
            await control.poll()
    garbled = Recorded({"GET /api/tags": TAGS, "GET /api/ps": (200, '{"models":{}}')})
    async with engine("ollama", garbled, pool) as (control, _):
        with pytest.raises(PollFailed, match="cannot be understood"):
            await control.poll()


async def test_a_list_of_more_models_than_can_be_worked_with_is_a_miss(pool: Pool) -> None:
    tags = {"models": [{"name": str(number)} for number in range(MODELS_MAX + 1)]}
    recorded = Recorded({"GET /api/tags": (200, tags), "GET /api/ps": (200, {"models": []})})
    async with engine("ollama", recorded, pool) as (control, _):
        with pytest.raises(PollFailed, match="it lists 1001 models"):
            await control.poll()


async def test_a_load_is_a_request_without_a_prompt_that_keeps_the_model(pool: Pool) -> None:
    recorded = Recorded(
        {"GET /api/tags": TAGS, "GET /api/ps": EMPTY, "POST /api/generate": LOADED},
        {"POST /api/generate": {"GET /api/ps": RESIDENT}},
    )
    async with engine("ollama", recorded, pool) as (control, _):
        await control.load(spec("qwen3:8b"))
    keep = {"model": "qwen3:8b", "keep_alive": -1, "stream": False}
    assert recorded.sent == [("/api/generate", keep)]


async def test_a_model_for_embeddings_is_loaded_by_a_request_for_no_embedding(pool: Pool) -> None:
    refused = (400, '{"error":"\\"qwen3:8b\\" does not support generate"}')
    recorded = Recorded(
        {
            "GET /api/tags": TAGS,
            "GET /api/ps": EMPTY,
            "POST /api/generate": refused,
            "POST /api/embed": (200, '{"model":"qwen3:8b","embeddings":[]}'),
        },
        {"POST /api/embed": {"GET /api/ps": RESIDENT}},
    )
    async with engine("ollama", recorded, pool) as (control, _):
        await control.load(spec("qwen3:8b"))
        [first, second] = recorded.sent
        assert second == ("/api/embed", first[1])
        recorded.replies["POST /api/embed"] = (500, '{"error":"out of memory"}')
        with pytest.raises(LoadFailed, match="/api/embed answered with status 500: out of memory"):
            await control.load(spec("qwen3:8b"))


async def test_an_unload_keeps_it_for_no_time(pool: Pool) -> None:
    recorded = Recorded(
        {"GET /api/tags": TAGS, "GET /api/ps": RESIDENT, "POST /api/generate": GONE},
        {"POST /api/generate": {"GET /api/ps": EMPTY}},
    )
    async with engine("ollama", recorded, pool) as (control, _):
        await control.unload(ModelId("qwen3:8b"))
    drop = {"model": "qwen3:8b", "keep_alive": 0, "stream": False}
    assert recorded.sent == [("/api/generate", drop)]


async def test_a_model_that_it_does_not_have_cannot_be_loaded_and_is_unloaded(pool: Pool) -> None:
    recorded = Recorded(
        {"GET /api/tags": TAGS, "GET /api/ps": EMPTY, "POST /api/generate": UNKNOWN}
    )
    async with engine("ollama", recorded, pool) as (control, _):
        with pytest.raises(LoadFailed, match="status 404: model 'nope' not found") as failed:
            await control.load(spec("nope"))
        assert failed.value.permanent
        await control.unload(ModelId("nope"))
        recorded.replies["POST /api/generate"] = (500, '{"error":"out of memory"}')
        with pytest.raises(UnloadFailed, match="out of memory"):
            await control.unload(ModelId("qwen3:8b"))


async def test_it_tells_what_a_model_can_do(pool: Pool) -> None:
    shown = (200, '{"modelfile":"","capabilities":["completion","vision","tools"]}')
    recorded = Recorded({"POST /api/show": shown})
    async with engine("ollama", recorded, pool) as (control, _):
        assert await control.capabilities(ModelId("gemma3")) == ("text", "vision")
        recorded.replies["POST /api/show"] = (200, '{"capabilities":"all"}')
        assert await control.capabilities(ModelId("gemma3")) is None
        recorded.replies["POST /api/show"] = UNKNOWN
        assert await control.capabilities(ModelId("gemma3")) is None
