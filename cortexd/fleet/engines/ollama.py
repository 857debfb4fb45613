"""Kind `ollama`: many models on its disk, some of them in memory.

`/api/tags` lists what it has, `/api/ps` what is in memory, with its size there and its context.
Loading is a request without a prompt that keeps the model for ever; unloading is one that keeps it
for no time. A load of a model for embeddings is refused there, an unload is not; it is loaded by a
request for no embedding. Source: https://github.com/ollama/ollama/blob/main/docs/api.md, and
server/routes.go for what is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.config.schema import Limit
from cortexd.fleet.engines.engine import Engine, load_refused, said, unload_refused
from cortexd.fleet.neuron import NoAnswer
from cortexd.fleet.reports import NUMBER_LIMIT, Garbage, ModelId, ModelReport, context_of, decoded

if TYPE_CHECKING:
    from cortexd.fleet.load_calls import LoadSpec
    from cortexd.fleet.view import Answered

GENERATE = "/api/generate"
EMBED = "/api/embed"
FOR_EVER = -1

_BAD_REQUEST = 400
_NO_TEXT = "does not support generate"
_MB = 1024 * 1024
_CAPABILITIES = {"completion": "text", "vision": "vision", "embedding": "embedding"}


class Resident(msgspec.Struct, frozen=True):
    """A model in memory; None: it does not say."""

    vram_mb: int | None = None
    context: int | None = None


class _Tag(msgspec.Struct, frozen=True):
    name: str


class _Tags(msgspec.Struct, frozen=True):
    models: tuple[_Tag, ...]


class _Process(msgspec.Struct, frozen=True):
    name: str
    size_vram: object = None
    context_length: object = None


class _Processes(msgspec.Struct, frozen=True):
    models: tuple[_Process, ...]


class _Show(msgspec.Struct, frozen=True):
    capabilities: tuple[str, ...]


class Ollama(Engine):
    """Many models; which of them are in memory is up to whoever asked last, cortexd included."""

    kind = "ollama"

    async def look(self) -> Answered:
        """See `Engine`."""
        models = await self.listed("/api/tags", read_tags)
        resident = await self.calls.read("/api/ps", read_processes)
        return self.answered(_report(model, resident.get(model.id)) for model in models)

    async def begin_load(self, spec: LoadSpec) -> None:
        """See `Engine`."""
        path, keep = GENERATE, _keep(spec.model, FOR_EVER)
        status, body = await self.told_to_load("POST", path, keep)
        if status == _BAD_REQUEST and _NO_TEXT in said(body):
            path = EMBED
            status, body = await self.told_to_load("POST", path, keep)
        if status != 200:
            raise load_refused(path, status, body)

    async def begin_unload(self, model: ModelId) -> None:
        """See `Engine`. A model that it does not have is not in its memory."""
        status, body = await self.told_to_unload("POST", GENERATE, _keep(model, 0))
        if status not in (200, 404):
            raise unload_refused(GENERATE, status, body)

    async def capabilities(self, model: ModelId) -> tuple[str, ...] | None:
        """See `Engine`."""
        try:
            status, body = await self.calls.ask(
                "POST", "/api/show", msgspec.json.encode({"model": model})
            )
            return read_capabilities(body) if status == 200 else None
        except (NoAnswer, Garbage):
            return None


def read_tags(body: bytes) -> tuple[ModelReport, ...]:
    """`GET /api/tags`: every model as unloaded; raises Garbage."""
    names = dict.fromkeys(each.name for each in decoded(body, _Tags).models if each.name)
    return tuple(ModelReport(ModelId(name), "unloaded") for name in names)


def read_processes(body: bytes) -> dict[ModelId, Resident]:
    """`GET /api/ps`: what is in memory; raises Garbage."""
    return {
        ModelId(each.name): Resident(_mb(each.size_vram), context_of(each.context_length))
        for each in decoded(body, _Processes).models
    }


def read_capabilities(body: bytes) -> tuple[str, ...] | None:
    """`POST /api/show`: what cortexd has a word for; raises Garbage."""
    told = decoded(body, _Show).capabilities
    return tuple(_CAPABILITIES[each] for each in told if each in _CAPABILITIES) or None


def _report(model: ModelReport, resident: Resident | None) -> ModelReport:
    if resident is None:
        return model
    return ModelReport(
        model.id,
        "loaded",
        vram_used_mb=resident.vram_mb,
        limit=Limit(context=resident.context),
    )


def _keep(model: str, seconds: int) -> dict[str, object]:
    return {"model": model, "keep_alive": seconds, "stream": False}


def _mb(size_bytes: object) -> int | None:
    if type(size_bytes) is int and 0 < size_bytes < NUMBER_LIMIT:
        return -(-size_bytes // _MB)
    return None
