"""Kind `vllm`: one model, and LoRAs on top of it.

The list answers even while the engine below is dead, so `/health` counts as much. How busy it is
stands in its metrics. Started with sleep mode and its development endpoints, it can give its memory
back and fetch it again: asleep counts as unloaded, waking as a load.
Source: https://docs.vllm.ai.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.fleet.engines.engine import Engine, load_refused, unload_refused
from cortexd.fleet.engines.exposition import Sample, read_samples, total
from cortexd.fleet.reports import ModelId, ModelLoad, decoded, read_openai_models

if TYPE_CHECKING:
    from cortexd.fleet.load_calls import LoadSpec
    from cortexd.fleet.view import Answered

WAKE = "/wake_up"
SLEEP = "/sleep?level=1"

_RUNNING = "vllm:num_requests_running"
_WAITING = "vllm:num_requests_waiting"


class _Sleeping(msgspec.Struct, frozen=True):
    is_sleeping: bool


class Vllm(Engine):
    """One model that may sleep."""

    kind = "vllm"

    async def look(self) -> Answered:
        """See `Engine`."""
        await self.calls.get("/health")
        models = await self.listed("/v1/models", read_openai_models)
        if await self.maybe("/is_sleeping", _read_sleeping):
            models = tuple(msgspec.structs.replace(each, status="unloaded") for each in models)
        samples = await self.maybe("/metrics", _read_queues) or []
        return self.answered(models, [_load(model.id, samples) for model in models])

    async def begin_load(self, spec: LoadSpec) -> None:
        """See `Engine`. Whichever model is named, the whole engine wakes."""
        status, body = await self.told_to_load("POST", WAKE)
        if status != 200:
            raise load_refused(WAKE, status, body)

    async def begin_unload(self, model: ModelId) -> None:
        """See `Engine`. The engine's memory is its host's meanwhile."""
        status, body = await self.told_to_unload("POST", SLEEP)
        if status != 200:
            raise unload_refused(SLEEP, status, body)


def _read_sleeping(body: bytes) -> bool:
    return decoded(body, _Sleeping).is_sleeping


def _read_queues(body: bytes) -> list[Sample]:
    return read_samples(body, {_RUNNING, _WAITING})


def _load(model: ModelId, samples: list[Sample]) -> ModelLoad:
    return ModelLoad(
        model,
        in_flight=total(samples, _RUNNING, model_name=model) or 0,
        queue_depth=total(samples, _WAITING, model_name=model) or 0,
    )
