"""What neurons say about themselves: JSON bytes -> frozen structs, or `Garbage`.

Owns the wire shapes of the neuron protocol's read calls and of an OpenAI server's model list.
Unknown fields are ignored and missing ones have a default; a value of a wrong type or out of range
makes the whole reply garbage, because a neuron that is wrong about one thing cannot be believed
about the next. Refuses to know how a reply was fetched, and what follows from it.
"""

from __future__ import annotations

from typing import Annotated, NewType, TypeVar

import msgspec
from msgspec import Meta

from cortexd.config.schema import Cost, Limit

ModelId = NewType("ModelId", str)

NUMBER_LIMIT = 2**53
"""Numbers from neurons are below this: what every JSON reader keeps exact."""

DEVICES_MAX = 64
"""Cards of a neuron that are looked at: what a neuron says must not cost unbounded time."""

_CONTEXT_TOKENS_MIN = 2  # room for one token in and one out; less is no statement about a context

_Number = Annotated[int, Meta(ge=0, lt=NUMBER_LIMIT)]
_Amount = Annotated[float, Meta(ge=0, lt=NUMBER_LIMIT)]
_Degrees = Annotated[float, Meta(gt=-1e6, lt=1e6)]
_Id = Annotated[str, Meta(min_length=1, max_length=1024)]


class Garbage(Exception):
    """A reply that is not what it should be; `reason` says where, and repeats nothing of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Servable(msgspec.Struct, frozen=True):
    """A neuron's own word on whether a loaded model can answer, e.g. reason "insufficient_vram"."""

    ok: bool
    reason: str | None = None
    detail: str | None = None


class ModelLoad(msgspec.Struct, frozen=True):
    """How busy a model is. `rejected_*` count since the model was loaded; 0 in a `max_*`: unknown.

    `kv_budget_mb` 0: admission by memory is off. Speeds are in tokens per second.
    """

    id: _Id
    in_flight: _Number = 0
    queue_depth: _Number = 0
    max_in_flight: _Number = 0
    max_queue_depth: _Number = 0
    rejected_queue_full: _Number = 0
    rejected_timeout: _Number = 0
    rejected_per_principal: _Number = 0
    anon_in_flight: _Number = 0
    anon_max_in_flight: _Number = 0
    rejected_anon_yield: _Number = 0
    rejected_kv_timeout: _Number = 0
    rejected_kv_unservable: _Number = 0
    kv_budget_mb: _Number = 0
    kv_available_mb: _Number = 0
    tok_s_prefill: _Amount = 0.0
    tok_s_decode: _Amount = 0.0


class DeviceHealth(msgspec.Struct, frozen=True):
    """One graphics card right now."""

    index: _Number
    vram_used_mb: _Number | None = None
    vram_free_mb: _Number | None = None
    utilization_pct: _Amount | None = None
    temp_c: _Degrees | None = None


class FailedLoad(msgspec.Struct, frozen=True):
    """A model that could not be loaded while the neuron warmed up."""

    model_id: str
    error: str = ""


class Activation(msgspec.Struct, frozen=True):
    """What a neuron is loading by itself after its start: state "ready" or "pre_warming"."""

    state: str = "ready"
    pending: tuple[str, ...] = ()
    in_progress: str | None = None
    completed: tuple[str, ...] = ()
    failed: tuple[FailedLoad, ...] = ()


class Health(msgspec.Struct, frozen=True):
    """The reply of /health."""

    uptime_secs: _Amount = 0
    devices: tuple[DeviceHealth, ...] = ()
    activation: Activation = Activation()
    models: tuple[ModelLoad, ...] = ()


class Device(msgspec.Struct, frozen=True):
    """One graphics card as it was built."""

    index: _Number
    name: str = ""
    vram_total_mb: _Number = 0
    compute_capability: str = ""


class Discovery(msgspec.Struct, frozen=True):
    """The reply of /discovery.

    `cuda_unavailable_reason`: every load will fail until that machine is rebooted.
    `max_prompt_tokens` 0: not known yet, ask again.
    """

    hostname: str = ""
    os: str = ""
    kernel: str = ""
    cuda_version: str | None = None
    driver_version: str | None = None
    devices: tuple[Device, ...] = ()
    harnesses: tuple[str, ...] = ()
    cuda_unavailable_reason: str | None = None
    max_prompt_tokens: _Number = 0


class ModelReport(msgspec.Struct, frozen=True):
    """One entry of a neuron's model list; `status` as it was said.

    `asleep`: loaded, but its weights have to be fetched back first, which its engine does when the
    next request comes.
    """

    id: ModelId
    status: str
    harness: str | None = None
    devices: tuple[int, ...] = ()
    vram_used_mb: int | None = None
    capabilities: tuple[str, ...] = ()
    limit: Limit = Limit()
    cost: Cost | None = None
    tool_call: bool = False
    reasoning: bool = False
    servable: Servable | None = None
    asleep: bool = False


class _WireLimit(msgspec.Struct, frozen=True):
    context: _Number | None = None
    input: _Number | None = None
    output: _Number | None = None


class _WireCost(msgspec.Struct, frozen=True):
    input: _Amount | None = None
    output: _Amount | None = None
    cache_read: _Amount | None = None
    cache_write: _Amount | None = None


class _WireModel(msgspec.Struct, frozen=True):
    id: _Id
    status: str = "loaded"
    harness: str | None = None
    devices: tuple[_Number, ...] = ()
    vram_used_mb: _Number | None = None
    capabilities: tuple[str, ...] = ()
    limit: _WireLimit | None = None
    cost: _WireCost | None = None
    tool_call: bool = False
    reasoning: bool = False
    servable: Servable | None = None


class _WireEndpoint(msgspec.Struct, frozen=True):
    url: str


class _OpenAiModel(msgspec.Struct, frozen=True):
    id: _Id
    meta: object = None
    max_model_len: object = None
    context_length: object = None
    max_context_length: object = None


class _OpenAiModels(msgspec.Struct, frozen=True):
    data: tuple[_OpenAiModel, ...]


_Shape = TypeVar("_Shape")


def decoded(body: bytes, shape: type[_Shape]) -> _Shape:
    """A reply as a struct of this shape; raises Garbage, which repeats nothing of it."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise Garbage(str(error)) from None  # names types and the path, never a value
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Garbage("not JSON") from None


def read_models(body: bytes) -> tuple[ModelReport, ...]:
    """`GET /models` of a neuron: a bare array. Of entries with one id the first counts."""
    found: dict[str, ModelReport] = {}
    for each in decoded(body, tuple[_WireModel, ...]):
        found.setdefault(each.id, _model(each))
    return tuple(found.values())


def _model(said: _WireModel) -> ModelReport:
    limit, cost = said.limit or _WireLimit(), said.cost
    return ModelReport(
        id=ModelId(said.id),
        status=said.status,
        harness=said.harness,
        devices=said.devices[:DEVICES_MAX],
        vram_used_mb=said.vram_used_mb,
        capabilities=said.capabilities,
        limit=Limit(
            context=context_of(limit.context),
            input=limit.input or None,
            output=limit.output or None,
        ),
        cost=None
        if cost is None
        else Cost(cost.input, cost.output, cost.cache_read, cost.cache_write),
        tool_call=said.tool_call,
        reasoning=said.reasoning,
        servable=said.servable,
    )


def context_of(tokens: object) -> int | None:
    """A size of a context as an engine states it; None when that is no usable number."""
    if type(tokens) is int and _CONTEXT_TOKENS_MIN <= tokens < NUMBER_LIMIT:
        return tokens
    return None


def read_openai_models(body: bytes) -> tuple[ModelReport, ...]:
    """`GET /v1/models` of an OpenAI server: every listed model counts as loaded.

    The context is stated as `max_model_len` (vLLM, SGLang), `meta.n_ctx` (llama-server: per slot),
    `context_length` or `max_context_length`; the smallest of what is stated counts.
    """
    found: dict[str, ModelReport] = {}
    for each in decoded(body, _OpenAiModels).data:
        meta = each.meta if isinstance(each.meta, dict) else {}
        stated = (
            each.max_model_len,
            meta.get("n_ctx"),
            each.context_length,
            each.max_context_length,
        )
        contexts = [tokens for tokens in map(context_of, stated) if tokens is not None]
        report = ModelReport(
            ModelId(each.id), "loaded", limit=Limit(context=min(contexts, default=None))
        )
        found.setdefault(each.id, report)
    return tuple(found.values())


def read_health(body: bytes) -> Health:
    """`GET /health` of a neuron."""
    return decoded(body, Health)


def read_discovery(body: bytes) -> Discovery:
    """`GET /discovery` of a neuron."""
    return decoded(body, Discovery)


def read_endpoint(body: bytes) -> str:
    """`GET /models/{id}/endpoint` of a neuron: the URL as it was said."""
    return decoded(body, _WireEndpoint).url
