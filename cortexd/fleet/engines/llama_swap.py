"""Kind `llama-swap`: a proxy that starts one engine or another, by the model that is asked for.

The list has what is configured, `/running` what runs. A load is a request for the model's health,
which is answered once its engine is up. Source: https://github.com/mostlygeek/llama-swap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from cortexd.fleet.engines.engine import Engine, load_refused, unload_refused
from cortexd.fleet.reports import ModelId, decoded, read_openai_models

if TYPE_CHECKING:
    from cortexd.fleet.load_calls import LoadSpec
    from cortexd.fleet.view import Answered

_STATUSES = {"ready": "loaded", "starting": "loading", "stopping": "unloaded"}


class _Running(msgspec.Struct, frozen=True):
    model: str
    state: str = "ready"


class _AllRunning(msgspec.Struct, frozen=True):
    running: tuple[_Running, ...] = ()


class LlamaSwap(Engine):
    """Many models, each in an engine that is started when it is wanted."""

    kind = "llama-swap"

    async def look(self) -> Answered:
        """See `Engine`."""
        models = await self.listed("/v1/models", read_openai_models)
        states = await self.calls.read("/running", read_running)
        return self.answered(
            msgspec.structs.replace(model, status=states.get(model.id, "unloaded"))
            for model in models
        )

    async def begin_load(self, spec: LoadSpec) -> None:
        """See `Engine`."""
        path = f"/upstream/{quote(spec.model)}/health"
        status, body = await self.told_to_load("GET", path)
        if status != 200:
            raise load_refused("/upstream", status, body)

    async def begin_unload(self, model: ModelId) -> None:
        """See `Engine`."""
        path = f"/api/models/unload/{quote(model)}"
        status, body = await self.told_to_unload("POST", path)
        if status != 200:
            raise unload_refused("/api/models/unload", status, body)


def read_running(body: bytes) -> dict[ModelId, str]:
    """`GET /running`: states in the words of the neuron protocol; raises Garbage.

    What is shut down, or in a state that nobody knows, does not run.
    """
    running = decoded(body, _AllRunning).running
    return {ModelId(each.model): _STATUSES.get(each.state, "unloaded") for each in running}
