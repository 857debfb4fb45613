"""Kind `llama-server`: bodies as llama.cpp's server build 11669 sent them."""

from __future__ import annotations

import pytest

from cortexd.fleet.load_calls import LoadFailed, UnloadFailed
from cortexd.fleet.neuron import PollFailed
from cortexd.fleet.pool import Pool
from cortexd.fleet.reports import ModelId, ModelLoad
from tests.fleet.engines.recorded import (
    SILENT,
    Recorded,
    Reply,
    context,
    engine,
    load,
    looked,
    spec,
    states,
    view_of,
)

MODELS: Reply = (
    200,
    '{"models":[{"name":"endless","model":"endless","capabilities":["completion"]}],'
    '"object":"list","data":[{"id":"endless","aliases":["endless"],"tags":[],"object":"model",'
    '"architecture":{"input_modalities":["text"],"output_modalities":["text"]},'
    '"created":1795949067,"owned_by":"llamacpp","meta":{"vocab_type":2,"n_vocab":448,'
    '"n_ctx":2048,"n_ctx_train":32768,"n_embd":64,"n_params":139584,"size":558336}}]}',
)
PROPS: Reply = (
    200,
    '{"default_generation_settings":{"params":{"seed":4294967295},"n_ctx":2048},"total_slots":2,'
    '"model_alias":"endless","modalities":{"vision":true,"video":false,"audio":false},'
    '"endpoint_slots":true,"is_sleeping":false}',
)
SLOTS: Reply = (
    200,
    '[{"id":0,"n_ctx":2048,"speculative":false,"is_processing":true},'
    '{"id":1,"n_ctx":2048,"speculative":false,"is_processing":false}]',
)
METRICS: Reply = (
    200,
    "# HELP llamacpp:requests_processing Number of requests processing\n"
    "# TYPE llamacpp:requests_processing gauge\n"
    "llamacpp:requests_processing 1\n"
    "# TYPE llamacpp:requests_deferred gauge\n"
    "llamacpp:requests_deferred 3\n",
)
OFF: Reply = (
    501,
    '{"error":{"code":501,"message":"This server does not support metrics endpoint. Start it with '
    '`--metrics`","type":"not_supported_error"}}',
)
ALL = {
    "GET /v1/models": MODELS,
    "GET /props": PROPS,
    "GET /slots": SLOTS,
    "GET /metrics": METRICS,
}


async def test_a_poll_tells_context_slots_and_how_many_of_them_are_taken(pool: Pool) -> None:
    view = await looked("llama-server", Recorded(ALL), pool)
    assert states(view) == {"endless": "loaded"}
    assert context(view, "endless") == 2048
    assert load(view, "endless") == ModelLoad(
        "endless", in_flight=1, queue_depth=3, max_in_flight=2
    )
    assert view.models[ModelId("endless")].capabilities == ("text", "vision")


async def test_all_but_the_list_may_be_switched_off(pool: Pool) -> None:
    off = {path: OFF for path in ALL if path != "GET /v1/models"}
    view = await looked("llama-server", Recorded({**ALL, **off}), pool)
    assert states(view) == {"endless": "loaded"}
    assert load(view, "endless") == ModelLoad("endless")


async def test_a_silent_extra_costs_a_share_of_the_time_and_not_the_poll(pool: Pool) -> None:
    recorded = Recorded({**ALL, "GET /slots": SILENT})
    async with engine("llama-server", recorded, pool, timeout_seconds=0.4) as (control, _):
        answered = await control.poll()
    assert [load.max_in_flight for load in answered.loads] == [2]


async def test_what_extras_told_stands_while_they_fail(pool: Pool) -> None:
    """Else all that waits is sent to its slots at once."""
    recorded = Recorded(ALL)
    async with engine("llama-server", recorded, pool) as (control, neuron):
        before = view_of(neuron, await control.poll())
        down = (500, '{"error":{"message":"busy"}}')
        recorded.replies.update({path: down for path in ALL if path != "GET /v1/models"})
        answered = await control.poll()
        assert view_of(neuron, answered).models == before.models
        assert answered.withheld == ("/props", "/slots", "/metrics")
        control.forget()
        assert load(view_of(neuron, await control.poll()), "endless") == ModelLoad("endless")


async def test_a_sleeping_server_can_serve_and_is_not_asked_what_might_wake_it(pool: Pool) -> None:
    asleep = (200, '{"total_slots":2,"is_sleeping":true}')
    recorded = Recorded({**ALL, "GET /props": asleep})
    view = await looked("llama-server", recorded, pool)
    model = view.models[ModelId("endless")]
    assert model.asleep
    assert model.can_serve
    assert "GET /slots" not in recorded.asked


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ((503, '{"error":{"message":"Loading model","code":503}}'), "answered with status 503"),
        ((401, '{"error":{"message":"Invalid API Key","code":401}}'), "answered with status 401"),
        ((200, '{"data":7}'), "no model list"),
        ((200, "<html>"), "no model list"),
    ],
)
async def test_a_server_that_lists_nothing_misses(pool: Pool, models: Reply, reason: str) -> None:
    async with engine("llama-server", Recorded({"GET /v1/models": models}), pool) as (control, _):
        with pytest.raises(PollFailed, match=reason):
            await control.poll()


async def test_it_has_the_model_that_it_was_started_with(pool: Pool) -> None:
    recorded = Recorded(ALL)
    async with engine("llama-server", recorded, pool) as (control, _):
        with pytest.raises(LoadFailed, match=r"kind llama-server.*start it with other") as failed:
            await control.load(spec("other"))
        assert failed.value.permanent
        with pytest.raises(UnloadFailed, match="kind llama-server"):
            await control.unload(ModelId("endless"))
        assert await control.capabilities(ModelId("endless")) is None
    assert recorded.asked == []


@pytest.mark.parametrize(
    "props",
    [
        '{"total_slots":-1,"default_generation_settings":{"n_ctx":1e99}}',
        '{"total_slots":true,"modalities":{"vision":"yes"}}',
        '{"total_slots":9999999999,"is_sleeping":"no"}',
        '{"default_generation_settings":[]}',
        "[[[[",
        "null",
    ],
)
async def test_nonsense_beside_the_list_is_as_good_as_nothing(pool: Pool, props: str) -> None:
    recorded = Recorded({**ALL, "GET /props": (200, props), "GET /slots": (200, '{"a":1}')})
    view = await looked("llama-server", recorded, pool)
    assert load(view, "endless") == ModelLoad("endless", queue_depth=3)
    assert context(view, "endless") == 2048
