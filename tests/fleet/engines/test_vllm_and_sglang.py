"""Kinds `vllm` and `sglang`: bodies as their documentation and sources have them."""

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

MODELS: Reply = (
    200,
    '{"object":"list","data":[{"id":"org/a","object":"model","created":1,"owned_by":"vllm",'
    '"root":"org/a","parent":null,"max_model_len":32768,"permission":[]},'
    '{"id":"my-lora","object":"model","created":1,"owned_by":"vllm","root":"/loras/my",'
    '"parent":"org/a","max_model_len":null}]}',
)
METRICS: Reply = (
    200,
    "# TYPE vllm:num_requests_running gauge\n"
    'vllm:num_requests_running{engine="0",model_name="org/a"} 2.0\n'
    'vllm:num_requests_running{engine="1",model_name="org/a"} 1.0\n'
    'vllm:num_requests_waiting{engine="0",model_name="org/a"} 4.0\n'
    'vllm:num_requests_waiting{engine="1",model_name="org/a"} NaN\n',
)
VLLM = {"GET /health": (200, ""), "GET /v1/models": MODELS, "GET /metrics": METRICS}
AWAKE: Reply = (200, '{"is_sleeping":false}')
ASLEEP: Reply = (200, '{"is_sleeping":true}')


async def test_vllm_tells_its_context_and_in_its_metrics_how_busy_it_is(pool: Pool) -> None:
    view = await looked("vllm", Recorded(VLLM), pool)
    assert states(view) == {"org/a": "loaded", "my-lora": "loaded"}
    assert (context(view, "org/a"), context(view, "my-lora")) == (32768, None)
    assert load(view, "org/a") == ModelLoad("org/a", in_flight=3, queue_depth=4)


async def test_a_vllm_whose_engine_is_dead_misses_although_it_lists_models(pool: Pool) -> None:
    recorded = Recorded({**VLLM, "GET /health": (503, "")})
    async with engine("vllm", recorded, pool) as (control, _):
        with pytest.raises(PollFailed, match="/health answered with status 503"):
            await control.poll()


async def test_a_sleeping_vllm_is_unloaded_and_to_load_it_is_to_wake_it(pool: Pool) -> None:
    recorded = Recorded(
        {**VLLM, "GET /is_sleeping": ASLEEP, "POST /wake_up": (200, "")},
        {"POST /wake_up": {"GET /is_sleeping": AWAKE}},
    )
    async with engine("vllm", recorded, pool) as (control, _):
        assert {each.status for each in (await control.poll()).models} == {"unloaded"}
        await control.load(spec("org/a"))
        assert {each.status for each in (await control.poll()).models} == {"loaded"}


async def test_to_unload_vllm_is_to_put_it_to_sleep(pool: Pool) -> None:
    recorded = Recorded(
        {**VLLM, "GET /is_sleeping": AWAKE, "POST /sleep?level=1": (200, "")},
        {"POST /sleep?level=1": {"GET /is_sleeping": ASLEEP}},
    )
    async with engine("vllm", recorded, pool) as (control, _):
        await control.unload(ModelId("org/a"))
    assert recorded.sent == [("/sleep?level=1", None)]


async def test_a_vllm_without_sleep_mode_says_so(pool: Pool) -> None:
    async with engine("vllm", Recorded(VLLM), pool) as (control, _):
        with pytest.raises(LoadFailed, match="/wake_up answered with status 404") as failed:
            await control.load(spec("org/a"))
        assert failed.value.permanent
        with pytest.raises(UnloadFailed, match="status 404"):
            await control.unload(ModelId("org/a"))


SGLANG = {
    "GET /ready": (200, ""),
    "GET /v1/models": (
        200,
        '{"object":"list","data":[{"id":"org/a","object":"model","created":1,'
        '"owned_by":"sglang","root":"org/a","max_model_len":8192}]}',
    ),
}
LOADS = "GET /v1/loads?include=core"
SGLANG_METRICS: Reply = (
    200,
    'sglang:num_running_reqs{model_name="org/a",tp_rank="0"} 5.0\n'
    'sglang:num_queue_reqs{model_name="org/a",tp_rank="0"} 6.0\n',
)


async def test_sglang_tells_how_busy_its_workers_are_together(pool: Pool) -> None:
    worker = {"num_running_reqs": 2, "num_waiting_reqs": 1, "max_running_requests": 32}
    loads = (200, {"loads": [worker, {**worker, "num_waiting_reqs": -1}, {"token_usage": 0.5}]})
    view = await looked("sglang", Recorded({**SGLANG, LOADS: loads}), pool)
    assert context(view, "org/a") == 8192
    assert load(view, "org/a") == ModelLoad("org/a", in_flight=4, queue_depth=1, max_in_flight=64)


async def test_an_older_sglang_tells_it_in_its_metrics_or_not_at_all(pool: Pool) -> None:
    older = {"GET /v1/models": SGLANG["GET /v1/models"]}
    view = await looked("sglang", Recorded(older), pool)
    assert load(view, "org/a") == ModelLoad("org/a")
    view = await looked("sglang", Recorded({**older, "GET /metrics": SGLANG_METRICS}), pool)
    assert load(view, "org/a") == ModelLoad("org/a", in_flight=5, queue_depth=6)


async def test_an_sglang_that_is_not_ready_misses_and_is_never_asked_for_its_health(
    pool: Pool,
) -> None:
    recorded = Recorded({**SGLANG, "GET /ready": (503, "")})
    async with engine("sglang", recorded, pool) as (control, _):
        with pytest.raises(PollFailed, match="/ready answered with status 503"):
            await control.poll()
    assert "GET /health" not in recorded.asked


async def test_an_sglang_is_not_told_to_load(pool: Pool) -> None:
    recorded = Recorded(SGLANG)
    async with engine("sglang", recorded, pool) as (control, _):
        with pytest.raises(LoadFailed, match="kind sglang"):
            await control.load(spec("org/a"))
    assert recorded.asked == []
