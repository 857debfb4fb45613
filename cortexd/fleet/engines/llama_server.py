"""Kind `llama-server`: llama.cpp's server with one model, as it was started.

The list has the context, per slot. `/props` tells how many slots there are and whether it sleeps,
`/slots` how many work, `/metrics` (only with --metrics) how many requests wait. All but the list
may be switched off. `/slots` is not asked of a sleeping server: that might wake it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.fleet.engines.engine import Engine
from cortexd.fleet.engines.exposition import read_samples, total
from cortexd.fleet.reports import (
    ModelLoad,
    ModelReport,
    context_of,
    decoded,
    read_openai_models,
)

if TYPE_CHECKING:
    from cortexd.fleet.view import Answered

SLOTS_MAX = 4_096
"""More slots than that are no number of slots."""

_WAITING = "llamacpp:requests_deferred"


class Props(msgspec.Struct, frozen=True):
    """Of `/props`, what matters; `slots` None: it does not say."""

    slots: int | None = None
    asleep: bool = False
    context: int | None = None
    capabilities: tuple[str, ...] = ()


class _Settings(msgspec.Struct, frozen=True):
    n_ctx: object = None


class _Props(msgspec.Struct, frozen=True):
    total_slots: object = None
    is_sleeping: object = None
    default_generation_settings: _Settings = _Settings()
    modalities: dict[str, object] = {}


class _Slot(msgspec.Struct, frozen=True):
    is_processing: bool = False


class LlamaServer(Engine):
    """One model, in slots that share its context."""

    kind = "llama-server"

    async def look(self) -> Answered:
        """See `Engine`."""
        models = await self.listed("/v1/models", read_openai_models)
        props = await self.maybe("/props", read_props) or Props()
        busy = None if props.asleep else await self.maybe("/slots", read_busy_slots)
        waiting = await self.maybe("/metrics", _read_waiting)
        loads = [load_of(model, props, busy=busy, waiting=waiting) for model in models]
        return self.answered([with_props(model, props) for model in models], loads)


def read_props(body: bytes) -> Props:
    """`GET /props`; raises Garbage."""
    said = decoded(body, _Props)
    seen = ("vision", "video", "audio")
    return Props(
        slots=_count(said.total_slots),
        asleep=said.is_sleeping is True,
        context=context_of(said.default_generation_settings.n_ctx),
        capabilities=("text", *(each for each in seen if said.modalities.get(each) is True)),
    )


def read_busy_slots(body: bytes) -> int:
    """`GET /slots`: how many of them work; raises Garbage."""
    return sum(slot.is_processing for slot in decoded(body, tuple[_Slot, ...]))


def with_props(model: ModelReport, props: Props) -> ModelReport:
    """What is known of a model that these props are about; the smaller context counts."""
    stated = [each for each in (model.limit.context, props.context) if each is not None]
    limit = msgspec.structs.replace(model.limit, context=min(stated, default=None))
    return msgspec.structs.replace(
        model, limit=limit, capabilities=props.capabilities, asleep=props.asleep
    )


def load_of(
    model: ModelReport, props: Props, *, busy: int | None, waiting: int | None = None
) -> ModelLoad:
    """How busy a model is; what is not known counts as nothing."""
    return ModelLoad(
        model.id,
        in_flight=busy or 0,
        queue_depth=waiting or 0,
        max_in_flight=props.slots or 0,
    )


def _read_waiting(body: bytes) -> int:
    return total(read_samples(body, {_WAITING}), _WAITING) or 0


def _count(number: object) -> int | None:
    return number if type(number) is int and 0 < number <= SLOTS_MAX else None
