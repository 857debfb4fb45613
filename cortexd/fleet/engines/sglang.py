"""Kind `sglang`: one model, as it was started.

`/health` may have it generate a token, so `/ready` is asked instead, which older versions lack. How
busy it is stands in `/v1/loads`, or in its metrics where these are on. Source:
https://docs.sglang.ai. It can give its memory back, but does not tell whether it has: so it is
never told to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.fleet.engines.engine import Engine
from cortexd.fleet.engines.exposition import read_samples, total
from cortexd.fleet.neuron import PollFailed
from cortexd.fleet.reports import NUMBER_LIMIT, ModelLoad, decoded, read_openai_models

if TYPE_CHECKING:
    from cortexd.fleet.view import Answered

LOADS = "/v1/loads?include=core"

_RUNNING = "sglang:num_running_reqs"
_WAITING = "sglang:num_queue_reqs"


class Queues(msgspec.Struct, frozen=True):
    """Requests that run and wait, and how many may run; over all workers. 0: not known."""

    running: int
    waiting: int
    running_max: int = 0


class _Worker(msgspec.Struct, frozen=True):
    num_running_reqs: object = None
    num_waiting_reqs: object = None
    max_running_requests: object = None


class _Loads(msgspec.Struct, frozen=True):
    loads: tuple[_Worker, ...]


class SgLang(Engine):
    """One model."""

    kind = "sglang"

    async def look(self) -> Answered:
        """See `Engine`."""
        try:
            await self.calls.get("/ready")
        except PollFailed as failed:
            if failed.status != 404:
                raise
        models = await self.listed("/v1/models", read_openai_models)
        queues = await self.maybe(LOADS, read_loads) or await self.maybe("/metrics", _read_metrics)
        if queues is None:
            return self.answered(models)
        loads = [
            ModelLoad(each.id, queues.running, queues.waiting, queues.running_max)
            for each in models
        ]
        return self.answered(models, loads)


def read_loads(body: bytes) -> Queues:
    """`GET /v1/loads`: summed over its workers; raises Garbage."""
    workers = decoded(body, _Loads).loads
    return Queues(
        running=sum(_count(each.num_running_reqs) for each in workers),
        waiting=sum(_count(each.num_waiting_reqs) for each in workers),
        running_max=sum(_count(each.max_running_requests) for each in workers),
    )


def _read_metrics(body: bytes) -> Queues | None:
    samples = read_samples(body, {_RUNNING, _WAITING})
    running = total(samples, _RUNNING)
    return None if running is None else Queues(running, total(samples, _WAITING) or 0)


def _count(number: object) -> int:
    return number if type(number) is int and 0 <= number < NUMBER_LIMIT else 0
