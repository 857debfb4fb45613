"""Kind `tabby`: TabbyAPI, with many models on its disk and at most one in memory.

`/v1/model` tells which one and its context, `/v1/models` (with the admin key) what else there is. A
load answers with a stream of its progress; it makes the model before leave by itself. Source:
https://github.com/theroyallab/tabbyAPI/wiki.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.config.schema import Limit
from cortexd.fleet.engines.engine import Engine, load_refused, unload_refused
from cortexd.fleet.neuron import PollFailed
from cortexd.fleet.reports import Garbage, ModelId, ModelLoad, ModelReport, context_of, decoded

if TYPE_CHECKING:
    from cortexd.fleet.load_calls import LoadSpec
    from cortexd.fleet.view import Answered

CURRENT = "/v1/model"
LOAD = "/v1/model/load"
UNLOAD = "/v1/model/unload"

BATCH_MAX = 4_096
"""More requests at a time than that are no number of requests."""

_NONE_LOADED = (400, 404, 503)


class _Parameters(msgspec.Struct, frozen=True):
    max_seq_len: object = None
    max_batch_size: object = None
    use_vision: object = None


class Current(msgspec.Struct, frozen=True):
    """The model in memory."""

    id: str
    parameters: _Parameters | None = None


class _Card(msgspec.Struct, frozen=True):
    id: str


class _Cards(msgspec.Struct, frozen=True):
    data: tuple[_Card, ...]


class Tabby(Engine):
    """One model at a time."""

    kind = "tabby"

    async def look(self) -> Answered:
        """See `Engine`."""
        names = await self.listed("/v1/models", read_cards)
        current = await self._current()
        reports = {each.id: each for each in names}
        if current is None:
            return self.answered(reports.values())
        model = ModelId(current.id)
        reports[model] = _report(current)
        batch = (current.parameters or _Parameters()).max_batch_size
        counted = batch if type(batch) is int and 0 < batch <= BATCH_MAX else 0
        return self.answered(reports.values(), [ModelLoad(model, max_in_flight=counted)])

    async def _current(self) -> Current | None:
        try:
            return await self.calls.read(CURRENT, read_current)
        except PollFailed as failed:
            if failed.status in _NONE_LOADED:
                return None
            raise

    async def begin_load(self, spec: LoadSpec) -> None:
        """See `Engine`. Its progress is read to its end; the list then tells what came of it."""
        status, body = await self.told_to_load("POST", LOAD, {"model_name": spec.model})
        if status != 200:
            raise load_refused(LOAD, status, body)

    async def begin_unload(self, model: ModelId) -> None:
        """See `Engine`. Another model than the one that is meant is left where it is."""
        try:
            current = await self._current()
        except (PollFailed, Garbage):
            current = Current(model)
        if current is None or current.id != model:
            return
        status, body = await self.told_to_unload("POST", UNLOAD)
        if status != 200:
            raise unload_refused(UNLOAD, status, body)


def read_cards(body: bytes) -> tuple[ModelReport, ...]:
    """`GET /v1/models`: every model as unloaded; raises Garbage."""
    names = dict.fromkeys(each.id for each in decoded(body, _Cards).data if each.id)
    return tuple(ModelReport(ModelId(name), "unloaded") for name in names)


def read_current(body: bytes) -> Current:
    """`GET /v1/model`; raises Garbage."""
    return decoded(body, Current)


def _report(current: Current) -> ModelReport:
    parameters = current.parameters or _Parameters()
    seen = ("text", "vision") if parameters.use_vision is True else ("text",)
    return ModelReport(
        ModelId(current.id),
        "loaded",
        capabilities=seen,
        limit=Limit(context=context_of(parameters.max_seq_len)),
    )
