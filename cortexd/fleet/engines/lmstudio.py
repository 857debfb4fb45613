"""Kind `lmstudio`: LM Studio's server, with many models on its disk and instances of some.

Its own list names each model by a key, with its loaded instances and their contexts. An unload
names an instance, so every instance of the model goes. Source: https://lmstudio.ai/docs/developer.
Loading on a request and unloading after a while are on by default there and should be off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.config.schema import Limit
from cortexd.fleet.engines.engine import Engine, load_refused, unload_refused
from cortexd.fleet.load_calls import UnloadFailed
from cortexd.fleet.neuron import PollFailed
from cortexd.fleet.reports import Garbage, ModelId, ModelLoad, ModelReport, context_of, decoded

if TYPE_CHECKING:
    from cortexd.fleet.load_calls import LoadSpec
    from cortexd.fleet.view import Answered

MODELS = "/api/v1/models"
LOAD = "/api/v1/models/load"
UNLOAD = "/api/v1/models/unload"

PARALLEL_MAX = 4_096
"""More requests at a time than that are no number of requests."""


class _Config(msgspec.Struct, frozen=True):
    context_length: object = None
    parallel: object = None


class _Instance(msgspec.Struct, frozen=True):
    id: str
    config: _Config = _Config()


class _Abilities(msgspec.Struct, frozen=True):
    vision: object = None
    trained_for_tool_use: object = None


class Listed(msgspec.Struct, frozen=True):
    """A model as LM Studio lists it."""

    key: str
    type: str = "llm"
    loaded_instances: tuple[_Instance, ...] = ()
    max_context_length: object = None
    capabilities: _Abilities | None = None


class _Models(msgspec.Struct, frozen=True):
    models: tuple[Listed, ...]


class LmStudio(Engine):
    """Many models, each with any number of instances."""

    kind = "lmstudio"

    async def look(self) -> Answered:
        """See `Engine`."""
        try:
            listed = await self.calls.read(MODELS, read_listed)
        except Garbage as garbage:
            raise PollFailed(f"the model list is no model list: {garbage.reason}") from None
        loads = [ModelLoad(ModelId(each.key), max_in_flight=_parallel(each)) for each in listed]
        return self.answered(map(_report, listed), loads)

    async def begin_load(self, spec: LoadSpec) -> None:
        """See `Engine`. A second load would make a second instance, so a loaded model is left."""
        if any(report.id == spec.model for report in await self._loaded()):
            return
        status, body = await self.told_to_load("POST", LOAD, {"model": spec.model})
        if status != 200:
            raise load_refused(LOAD, status, body)

    async def _loaded(self) -> list[ModelReport]:
        try:
            listed = await self.calls.read(MODELS, read_listed)
        except (PollFailed, Garbage):
            return []
        return [report for report in map(_report, listed) if report.status == "loaded"]

    async def begin_unload(self, model: ModelId) -> None:
        """See `Engine`."""
        try:
            listed = await self.calls.read(MODELS, read_listed)
        except (PollFailed, Garbage) as failed:
            raise UnloadFailed(f"its instances are not known: {failed.reason}") from None
        instances = [
            one.id for each in listed if each.key == model for one in each.loaded_instances
        ]
        for instance in instances:
            status, body = await self.told_to_unload("POST", UNLOAD, {"instance_id": instance})
            if status not in (200, 404):
                raise unload_refused(UNLOAD, status, body)


def read_listed(body: bytes) -> tuple[Listed, ...]:
    """`GET /api/v1/models`; raises Garbage. Of entries with one key the first counts."""
    found: dict[str, Listed] = {}
    for each in decoded(body, _Models).models:
        if each.key:
            found.setdefault(each.key, each)
    return tuple(found.values())


def _report(listed: Listed) -> ModelReport:
    contexts = [context_of(each.config.context_length) for each in listed.loaded_instances]
    stated = [each for each in (*contexts, context_of(listed.max_context_length)) if each]
    can = listed.capabilities or _Abilities()
    text = ("embedding",) if listed.type == "embedding" else ("text",)
    return ModelReport(
        ModelId(listed.key),
        "loaded" if listed.loaded_instances else "unloaded",
        capabilities=(*text, "vision") if can.vision is True else text,
        limit=Limit(context=min(stated, default=None)),
        tool_call=can.trained_for_tool_use is True,
    )


def _parallel(listed: Listed) -> int:
    """Requests that all instances take at a time; 0 where one of them does not say."""
    each = [one.config.parallel for one in listed.loaded_instances]
    counts = [n for n in each if type(n) is int and 0 < n <= PARALLEL_MAX]
    return sum(counts) if len(counts) == len(each) else 0
