"""Kind `llama-router`: llama.cpp's server without a model of its own, which starts one for each.

Its list has every model with its state. A load is begun by a call and done when the list says so.
It loads on a request too, and unloads the model that was used least recently when it has as many as
it may have. What each loaded model's own server tells is asked for with the model's name, and never
in a way that loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from cortexd.config.schema import Limit
from cortexd.fleet.engines.engine import (
    LOAD_FAILED,
    MODELS_ASKED_MAX,
    Engine,
    NotNow,
    load_refused,
    said,
    unload_refused,
)
from cortexd.fleet.engines.llama_server import (
    Props,
    load_of,
    read_busy_slots,
    read_props,
    with_props,
)
from cortexd.fleet.reports import ModelId, ModelReport, context_of, decoded

if TYPE_CHECKING:
    from cortexd.fleet.load_calls import LoadSpec
    from cortexd.fleet.reports import ModelLoad
    from cortexd.fleet.view import Answered

LOAD = "/models/load"
UNLOAD = "/models/unload"

_FULL = "model limit reached"
"""What it says while the models that it would have to stop are in use, be it by a question."""

_STATUSES = {"downloading": "loading", "downloaded": "unloaded", "sleeping": "loaded"}


class _State(msgspec.Struct, frozen=True):
    value: str
    failed: bool = False


class _Model(msgspec.Struct, frozen=True):
    id: str
    status: _State
    meta: dict[str, object] | None = None


class _Models(msgspec.Struct, frozen=True):
    data: tuple[_Model, ...]


class LlamaRouter(Engine):
    """Many models, each in a server of its own that the router starts and stops."""

    kind = "llama-router"
    tells_failures = True

    async def look(self) -> Answered:
        """See `Engine`."""
        models = {model.id: model for model in await self.listed("/v1/models", read_router_models)}
        loads: list[ModelLoad] = []
        loaded = [model for model in models.values() if model.status == "loaded"]
        asked = loaded[:MODELS_ASKED_MAX]
        for model in asked:
            props, load = await self._one(model, among=len(asked))
            models[model.id] = with_props(
                model, msgspec.structs.replace(props, asleep=props.asleep or model.asleep)
            )
            loads.append(load)
        return self.answered(models.values(), loads)

    async def _one(self, model: ModelReport, *, among: int) -> tuple[Props, ModelLoad]:
        query = f"?model={quote(model.id, safe='')}&autoload=false"
        props = await self.maybe(f"/props{query}", read_props, among=among) or Props()
        awake = not (props.asleep or model.asleep)
        busy = None
        if awake:
            busy = await self.maybe(f"/slots{query}", read_busy_slots, among=among)
        return props, load_of(model, props, busy=busy)

    async def begin_load(self, spec: LoadSpec) -> None:
        """See `Engine`."""
        status, body = await self.told_to_load("POST", LOAD, {"model": spec.model})
        if status == 500 and _FULL in said(body):
            raise NotNow
        if status != 200 and not (status == 400 and "already running" in said(body)):
            raise load_refused(LOAD, status, body)

    async def begin_unload(self, model: ModelId) -> None:
        """See `Engine`."""
        status, body = await self.told_to_unload("POST", UNLOAD, {"model": model})
        gone = ("not running", "not found", "not loaded")
        if status != 200 and not (status == 400 and any(word in said(body) for word in gone)):
            raise unload_refused(UNLOAD, status, body)


def read_router_models(body: bytes) -> tuple[ModelReport, ...]:
    """`GET /v1/models` of a router; raises Garbage.

    A context is stated of loaded models only: what the file was trained for says little about what
    its server will be given.
    """
    found: dict[str, ModelReport] = {}
    for each in decoded(body, _Models).data:
        if each.id:
            context = context_of((each.meta or {}).get("n_ctx"))
            state = each.status.value
            report = ModelReport(
                ModelId(each.id),
                _STATUSES.get(state, state),
                limit=Limit(context=context),
                servable=LOAD_FAILED if each.status.failed else None,
                asleep=state == "sleeping",
            )
            found.setdefault(each.id, report)
    return tuple(found.values())
