"""Kind `mistralrs`: mistral.rs, whose list has the state of each model that it was started with.

Its calls answer with 200 whatever happens: what counts is the `status` in the answer, and then the
list. Source: https://github.com/EricLBuehler/mistral.rs/blob/master/docs/HTTP.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.fleet.engines.engine import Engine, load_refused, unload_refused
from cortexd.fleet.load_calls import LoadFailed, UnloadFailed, shown
from cortexd.fleet.reports import ModelId, ModelReport, decoded, read_openai_models

if TYPE_CHECKING:
    from cortexd.fleet.load_calls import LoadSpec
    from cortexd.fleet.view import Answered

LOAD = "/v1/models/reload"
UNLOAD = "/v1/models/unload"
STAND_IN = "default"
"""A name in its list that stands for whichever model is its default; a model of its own it is
not."""

_NEVER = ("not_found", "no_loader_config")


class _Model(msgspec.Struct, frozen=True):
    id: str
    status: str = "loaded"


class _Models(msgspec.Struct, frozen=True):
    data: tuple[_Model, ...]


class Told(msgspec.Struct, frozen=True):
    """Its answer to a call: what state the model is in now, and why it is no other."""

    status: str = ""
    error: str | None = None

    @property
    def words(self) -> str:
        """The answer for a log."""
        what = f"it answered with the status {shown(self.status)!r}"
        return f"{what}: {shown(self.error)}" if self.error else what


class MistralRs(Engine):
    """The models that it was started with, each of them in memory or not."""

    kind = "mistralrs"

    async def look(self) -> Answered:
        """See `Engine`."""
        return self.answered(await self.listed("/v1/models", read_mistralrs_models))

    async def begin_load(self, spec: LoadSpec) -> None:
        """See `Engine`."""
        status, body = await self.told_to_load("POST", LOAD, {"model_id": spec.model})
        told = read_told(body)
        if status != 200 or told is None:
            raise load_refused(LOAD, status, body)
        if told.status not in ("loaded", "reloading"):
            raise LoadFailed(f"{LOAD}: {told.words}", permanent=told.status in _NEVER)

    async def begin_unload(self, model: ModelId) -> None:
        """See `Engine`."""
        status, body = await self.told_to_unload("POST", UNLOAD, {"model_id": model})
        told = read_told(body)
        if status != 200 or told is None:
            raise unload_refused(UNLOAD, status, body)
        if told.status not in ("unloaded", "not_found"):
            raise UnloadFailed(f"{UNLOAD}: {told.words}")


def read_mistralrs_models(body: bytes) -> tuple[ModelReport, ...]:
    """`GET /v1/models`; raises Garbage."""
    states = {each.id: each.status for each in decoded(body, _Models).data}
    return tuple(
        msgspec.structs.replace(model, status=states[model.id])
        for model in read_openai_models(body)
        if model.id != STAND_IN
    )


def read_told(body: bytes) -> Told | None:
    """What a call answered; None: nothing that can be read."""
    try:
        return msgspec.json.decode(body, type=Told)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
