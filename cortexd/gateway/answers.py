"""The small answers of the core: health, models, and the headers that answers carry.

Pure: everything is worked out from facts that are handed in.
"""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from cortexd.config.schema import Catalogue
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.fleet.catalogue import ModelId, resolve
from cortexd.fleet.load_times import retry_after_seconds
from cortexd.fleet.serving import Cause, Unserved
from cortexd.fleet.view import FleetView, NeuronView
from cortexd.gateway.auth import Principal
from cortexd.gateway.endpoints import EndpointKind
from cortexd.gateway.exchange import Headers
from cortexd.ledger.journal import Condition

NO_NEURON_RETRY_SECONDS = 5
"""When a neuron may be back: about one poll later."""


def plain_headers(request_id: str, content_type: str) -> Headers:
    """Headers of a plain answer, but for its length. Both id headers: each SDK reads its own."""
    header_id = request_id.encode("ascii")
    return (
        (b"content-type", content_type.encode("ascii")),
        (b"x-request-id", header_id),
        (b"request-id", header_id),
    )


def stream_headers(request_id: str) -> Headers:
    """Headers of an event stream; two of them keep proxies from collecting it."""
    header_id = request_id.encode("ascii")
    return (
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
        (b"x-request-id", header_id),
        (b"request-id", header_id),
    )


def ledger_down(ledger: Condition, *, is_busy: bool) -> Refusal:
    """The 503 while nothing can be written down: without a durable reservation nothing is sent.

    `is_busy`: too many others wait for it.
    """
    if ledger != "ok":
        why = _WHY_DOWN[ledger]
    elif is_busy:
        why = "The ledger is busy, as too many requests wait for it: ask again shortly."
    else:
        why = "The ledger has stopped: this gateway ends, and has to be started again."
    return Refusal(
        RefusalKind.LEDGER_UNAVAILABLE,
        f"{why} Nothing can be reserved meanwhile, so nothing was sent to a neuron.",
        retry_after_seconds=5,
    )


_Unwell: TypeAlias = Literal["low_on_room", "failed"]

_WHY_DOWN: Final[dict[_Unwell, str]] = {
    "low_on_room": "The ledger's disk is nearly full: whoever runs this gateway has to make room.",
    "failed": "The ledger's disk failed: this gateway ends, and has to be started again; whoever "
    "runs it finds the cause in its log.",
}

_LEDGER_ACTIONS: Final[dict[_Unwell, str]] = {
    "low_on_room": "Make room on the disk of the ledger's directory: it goes on by itself within a "
    "second.",
    "failed": "Look at the kernel log and at the disk of the ledger's directory, and see that "
    "cortexd is started again once it has ended.",
}


def unknown_model(name: str) -> Refusal:
    """The 404 for a model that neither the catalogue nor any neuron knows."""
    return Refusal(
        RefusalKind.MODEL_NOT_FOUND,
        f"The model '{name[:200]}' does not exist here; GET /v1/models lists those that do.",
        param="model",
    )


def may_use(principal: Principal, catalogue: Catalogue, model: ModelId) -> bool:
    """Whether a key's list of models, if it has one, names the model or an alias of it."""
    names = principal.models
    return names is None or model in [resolve(catalogue, name) for name in names]


def model_not_allowed(name: str) -> Refusal:
    """The 403 for a model that is not on the key's list; whether it exists is not told."""
    return Refusal(
        RefusalKind.MODEL_NOT_ALLOWED,
        f"This key may not use the model '{name[:200]}'; GET /v1/models lists those it may use.",
        param="model",
    )


def missing_model(name: str, view: FleetView) -> Refusal:
    """The refusal for a model that nobody knows now: final only if every neuron has been heard.

    A 404 makes clients give a model up, so it must not come from a neuron that is merely late.
    """
    heard = [neuron for neuron in view.neurons.values() if neuron.healthy or neuron.models]
    if heard and len(heard) == len(view.neurons):
        return unknown_model(name)
    return unserved(name, Unserved(Cause.UNHEALTHY, "not all neurons have been heard of yet"))


_UNSERVED: Final[dict[Cause, tuple[RefusalKind, str]]] = {
    Cause.UNHEALTHY: (RefusalKind.NO_NEURON, "cannot be served right now"),
    Cause.DRAINING: (RefusalKind.NO_NEURON, "cannot be served right now"),
    Cause.UNSERVABLE: (RefusalKind.NO_NEURON, "cannot be served right now"),
    Cause.NO_ROOM: (RefusalKind.NO_ROOM, "cannot be loaded right now"),
    Cause.IN_USE: (RefusalKind.NO_ROOM, "cannot be loaded right now"),
    Cause.LOADING: (RefusalKind.MODEL_LOADING, "is not ready yet"),
    Cause.LOAD_CLOCK: (RefusalKind.MODEL_LOADING, "is not ready yet"),
    Cause.LOAD_FAILED: (RefusalKind.MODEL_LOAD_FAILED, "could not be loaded"),
    Cause.QUEUE_FULL: (RefusalKind.QUEUE_FULL, "has too many requests waiting"),
    Cause.QUEUE_CLOCK: (RefusalKind.QUEUE_TIMEOUT, "is busy"),
}


def unserved(name: str, answer: Unserved) -> Refusal:
    """The refusal for a request that the fleet does not serve, in words that help its client."""
    if answer.cause is Cause.UNKNOWN:
        return unknown_model(name)
    if answer.cause is Cause.NOWHERE:
        message = f"The model '{name[:200]}' cannot run here: {answer.why}."
        return Refusal(RefusalKind.MODEL_NOT_FOUND, message, param="model")
    kind, what = _UNSERVED[answer.cause]
    retry_in_ms = answer.retry_in_ms
    if retry_in_ms is None:
        retry_in_ms = NO_NEURON_RETRY_SECONDS * 1000
    seconds = retry_after_seconds(retry_in_ms)
    why = f": {answer.why}" if answer.why else ""
    again = "It is tried again" if kind is RefusalKind.MODEL_LOAD_FAILED else "Try again"
    message = f"The model '{name[:200]}' {what}{why}. {again} in {seconds} s."
    return Refusal(kind, message, retry_after_seconds=seconds)


def public(kind: EndpointKind, view: FleetView, ledger: Condition) -> bytes:
    """`/health`, or the line that `/` answers to probes."""
    if kind is EndpointKind.HEALTH:
        return health(view, ledger)
    return b'{"object":"gateway","name":"cortexd"}'


def health(view: FleetView, ledger: Condition) -> bytes:
    """The body of `/health`. `unservable`: loaded models that no neuron can serve right now.

    A ledger that takes no reservations impairs the service: those with a cap are turned away.
    `ledger_action` then says what to do about it.
    """
    healthy = [neuron for neuron in view.neurons.values() if neuron.healthy]
    unservable = _unservable(healthy)
    impaired = unservable or ledger != "ok"
    status = "degraded" if not healthy else "impaired" if impaired else "ok"
    answer: dict[str, object] = {
        "status": status,
        "nodes": {"healthy": len(healthy), "total": len(view.neurons)},
        "unservable": unservable,
        "ledger": ledger,
    }
    if ledger != "ok":
        answer["ledger_action"] = _LEDGER_ACTIONS[ledger]
    return msgspec.json.encode(answer)


def _unservable(neurons: Sequence[NeuronView]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for neuron in neurons:
        for model in neuron.models.values():
            servable = model.servable
            if servable is not None and not servable.ok:
                found.append({"model": model.id, "node": neuron.name, "reason": servable.reason})
    return found
