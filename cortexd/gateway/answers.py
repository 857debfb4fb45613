"""The small answers of the core: budget, health, models, and the headers that answers carry.

Pure: everything is worked out from facts that are handed in.
"""

from collections.abc import Sequence

import msgspec

from cortexd.config.schema import Catalogue, Cost
from cortexd.dialects.models import ModelEntry, models_entry
from cortexd.dialects.refusals import Refusal, RefusalKind, budget_refusal
from cortexd.fleet.catalogue import ModelId, entry
from cortexd.fleet.limits import limits_of
from cortexd.fleet.view import FleetView, NeuronView
from cortexd.gateway.auth import Principal
from cortexd.gateway.endpoints import EndpointKind
from cortexd.gateway.exchange import Headers
from cortexd.ledger.entries import Refused, Standing, Totals, scope_words

NO_NEURON_RETRY_SECONDS = 5
"""When a neuron may be back: about one poll later."""

JSON_CONTENT = (b"content-type", b"application/json")
_MS = 1000


def json_headers(request_id: str) -> Headers:
    """Headers of a plain answer, but for its length. Both id headers: each SDK reads its own."""
    return (JSON_CONTENT, *_id_headers(request_id))


def stream_headers(request_id: str, standings: Sequence[Standing]) -> Headers:
    """Headers of an event stream; the last two keep proxies from collecting it."""
    return (
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
        *_id_headers(request_id),
        *budget_headers(standings),
    )


def budget_headers(standings: Sequence[Standing]) -> Headers:
    """`x-ratelimit-*` of the cap with the least left; nothing for the uncapped.

    What remains is what the cap would grant next, after this request's own reservation.
    """
    if not standings:
        return ()
    tightest = min(standings, key=lambda standing: standing.available)
    headers = [
        (b"x-ratelimit-limit-tokens", b"%d" % tightest.hard_cap),
        (b"x-ratelimit-remaining-tokens", b"%d" % tightest.available),
    ]
    if tightest.restored_in_ms is not None:
        headers.append((b"x-ratelimit-reset-tokens", go_duration(tightest.restored_in_ms).encode()))
    return tuple(headers)


def go_duration(milliseconds: int) -> str:
    """A duration the way OpenAI writes it in x-ratelimit headers: `12ms`, `1s`, `6m0s`,
    `1h0m0s`.
    """
    if milliseconds < _MS:
        return f"{milliseconds}ms"
    seconds = -(-milliseconds // _MS)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def over_cap(refused: Refused) -> Refusal:
    """The 429 for a request that does not fit, in the words of the cap that bit."""
    standing = refused.standing
    word, name = scope_words(standing.scope)
    never_fits = refused.asked > standing.hard_cap
    wait_ms = standing.window_ms if never_fits else refused.fits_in_ms
    return budget_refusal(
        scope_word=word,
        name=name,
        hard_cap=standing.hard_cap,
        window_seconds=_whole_seconds(standing.window_ms),
        spent=standing.spent,
        reserved=standing.reserved,
        asked=refused.asked,
        available=standing.available,
        retry_after_seconds=_whole_seconds(wait_ms),
        never_fits=never_fits,
    )


def _whole_seconds(milliseconds: int | None) -> int | None:
    """Rounded up, at least one: what waits that long has waited long enough."""
    return None if milliseconds is None else max(1, -(-milliseconds // _MS))


def ledger_down() -> Refusal:
    """The 503 while nothing can be written down: without a durable reservation nothing is sent."""
    return Refusal(
        RefusalKind.LEDGER_UNAVAILABLE,
        "The ledger cannot take reservations right now, so nothing is sent to a neuron.",
        retry_after_seconds=5,
    )


def unknown_model(name: str) -> Refusal:
    """The 404 for a model that neither the catalogue nor any neuron knows."""
    return Refusal(
        RefusalKind.MODEL_NOT_FOUND,
        f"The model '{name[:200]}' does not exist here; GET /v1/models lists those that do.",
        param="model",
    )


def missing_model(name: str, view: FleetView) -> Refusal:
    """The refusal for a model that nobody knows now: final only if every neuron has been heard.

    A 404 makes clients give a model up, so it must not come from a neuron that is merely late.
    """
    heard = [neuron for neuron in view.neurons.values() if neuron.healthy or neuron.models]
    if heard and len(heard) == len(view.neurons):
        return unknown_model(name)
    return no_neuron()


def no_neuron() -> Refusal:
    """The 503 while no neuron can take a request; it may be back by the next poll."""
    return Refusal(
        RefusalKind.NO_NEURON,
        "No healthy neuron has this model loaded right now; try again shortly.",
        retry_after_seconds=NO_NEURON_RETRY_SECONDS,
    )


def budget(principal: Principal, standings: Sequence[Standing], totals: Totals) -> bytes:
    """The body of `GET /v1/budget`; the top level repeats the key's own cap.

    A key without a cap of its own shows its `totals`: what it ever spent, and what is reserved.
    """
    caps = [_cap(standing) for standing in standings]
    own = next((cap for cap in caps if cap["scope"] == "key"), _uncapped(totals))
    answer: dict[str, object] = {
        "object": "budget",
        "account_id": principal.account_id,
        "key_id": principal.key_id,
        **{name: value for name, value in own.items() if name != "scope"},
        "caps": caps,
    }
    return msgspec.json.encode(answer)


def _uncapped(totals: Totals) -> dict[str, object]:
    return {
        "hard_cap": None,
        "window": None,
        "spent": totals.spent,
        "reserved": totals.reserved,
        "available": None,
    }


def _cap(standing: Standing) -> dict[str, object]:
    window: dict[str, object] = {"kind": "balance"}
    if standing.window_ms is not None:
        seconds = standing.window_ms / _MS
        window = {"kind": "rolling", "seconds": int(seconds) if seconds.is_integer() else seconds}
    return {
        "scope": scope_words(standing.scope)[0],
        "hard_cap": standing.hard_cap,
        "window": window,
        "spent": standing.spent,
        "reserved": standing.reserved,
        "available": standing.available,
    }


def public(kind: EndpointKind, view: FleetView) -> bytes:
    """`/health`, or the line that `/` answers to probes."""
    if kind is EndpointKind.HEALTH:
        return health(view)
    return b'{"object":"gateway","name":"cortexd"}'


def health(view: FleetView) -> bytes:
    """The body of `/health`. `unservable`: loaded models that no neuron can serve right now."""
    healthy = [neuron for neuron in view.neurons.values() if neuron.healthy]
    unservable = _unservable(healthy)
    status = "degraded" if not healthy else "impaired" if unservable else "ok"
    return msgspec.json.encode(
        {
            "status": status,
            "nodes": {"healthy": len(healthy), "total": len(view.neurons)},
            "unservable": unservable,
        }
    )


def _unservable(neurons: Sequence[NeuronView]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for neuron in neurons:
        for model in neuron.models.values():
            servable = model.servable
            if servable is not None and not servable.ok:
                found.append({"model": model.id, "node": neuron.name, "reason": servable.reason})
    return found


def model_entries(
    catalogue: Catalogue, view: FleetView, *, created_unix_seconds: int
) -> dict[str, ModelEntry]:
    """Every name that a caller may ask for, models and aliases, with its entry in the list."""
    ids = sorted(
        {ModelId(model.id) for model in catalogue.models}
        | {model for neuron in view.neurons.values() for model in neuron.models}
    )
    names = {**{str(model): model for model in ids}}
    for alias, model in catalogue.aliases.items():
        names.setdefault(alias, ModelId(model))
    return {
        name: _model_entry(name, model, catalogue, view, created_unix_seconds)
        for name, model in names.items()
    }


def _model_entry(
    name: str, model: ModelId, catalogue: Catalogue, view: FleetView, created_unix_seconds: int
) -> ModelEntry:
    written = entry(catalogue, model)
    offers = [
        (neuron, neuron.models[model]) for neuron in view.neurons.values() if model in neuron.models
    ]
    limits = limits_of(model, catalogue, view)
    stated = [written.limit] if written is not None else []
    stated += [offer.limit for _, offer in offers]
    inputs = [limit.input for limit in stated if limit.input is not None]
    cost = written.cost if written is not None and written.cost is not None else None
    if cost is None:
        cost = next((offer.cost for _, offer in offers if offer.cost is not None), None)
    capabilities = written.capabilities if written is not None else ()
    capabilities = capabilities or next((o.capabilities for _, o in offers if o.capabilities), ())
    pinned_on = written.pinned_on if written is not None else ()
    return models_entry(
        model=name,
        created_unix_seconds=created_unix_seconds,
        context=limits.context_min if limits is not None else None,
        input_limit=min(inputs, default=None),
        output=limits.output if limits is not None else None,
        modalities=capabilities or ("text",),
        loaded=any(neuron.healthy and offer.can_serve for neuron, offer in offers),
        feasible_on=sorted({neuron.name for neuron, _ in offers} | set(pinned_on)),
        locations=[(neuron.name, offer.status.value) for neuron, offer in offers],
        tool_call=any(offer.tool_call for _, offer in offers),
        reasoning=any(offer.reasoning for _, offer in offers),
        cost=_prices(cost),
        display_name=name,
    )


def _prices(cost: Cost | None) -> dict[str, float] | None:
    if cost is None:
        return None
    prices = msgspec.structs.asdict(cost)
    return {kind: price for kind, price in prices.items() if price is not None}


def _id_headers(request_id: str) -> Headers:
    header_id = request_id.encode("ascii")
    return ((b"x-request-id", header_id), (b"request-id", header_id))
