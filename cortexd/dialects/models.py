"""The list of models, in one shape that the clients of every dialect can read.

Owns the union of OpenAI's, Anthropic's, vLLM's and opencode's model objects. Refuses to know the
fleet: facts come in as plain values.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ModelEntry(msgspec.Struct, frozen=True):
    """One model on the wire. UNSET fields are left out: an absent cost means "not priced"."""

    id: str
    created: int
    created_at: str
    display_name: str
    owned_by: str
    limit: dict[str, int]
    modalities: tuple[str, ...]
    loaded: bool
    feasible_on: tuple[str, ...]
    locations: tuple[dict[str, str], ...]
    tool_call: bool
    reasoning: bool
    object: str = "model"
    type: str = "model"
    max_input_tokens: int | msgspec.UnsetType = msgspec.UNSET
    max_tokens: int | msgspec.UnsetType = msgspec.UNSET
    max_output_tokens: int | msgspec.UnsetType = msgspec.UNSET
    max_model_len: int | msgspec.UnsetType = msgspec.UNSET
    cost: dict[str, float] | msgspec.UnsetType = msgspec.UNSET


def models_entry(
    *,
    model: str,
    created_unix_seconds: int,
    context: int | None,
    input_limit: int | None,
    output: int | None,
    modalities: Sequence[str],
    loaded: bool,
    feasible_on: Sequence[str],
    locations: Sequence[tuple[str, str]],
    tool_call: bool,
    reasoning: bool,
    cost: Mapping[str, float] | None = None,
    display_name: str | None = None,
    owned_by: str = "cortexd",
) -> ModelEntry:
    """Describe one model.

    `context`, `input_limit`, `output`: tokens, None = unknown. `feasible_on`: names of neurons
    that could run it. `locations`: (neuron, status) where it is known. `cost`: USD per million
    tokens by kind ("input", "output", ...), None = not priced. The input limit is the context
    where nobody gave another.
    """
    known = {"context": context, "input": input_limit, "output": output}
    most_input = input_limit if input_limit is not None else context
    return ModelEntry(
        id=model,
        created=created_unix_seconds,
        created_at=datetime.fromtimestamp(created_unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        display_name=display_name if display_name is not None else model,
        owned_by=owned_by,
        limit={name: tokens for name, tokens in known.items() if tokens is not None},
        modalities=tuple(modalities),
        loaded=loaded,
        feasible_on=tuple(feasible_on),
        locations=tuple({"node": neuron, "status": status} for neuron, status in locations),
        tool_call=tool_call,
        reasoning=reasoning,
        max_input_tokens=_or_unset(most_input),
        max_tokens=_or_unset(output),
        max_output_tokens=_or_unset(output),
        max_model_len=_or_unset(context),
        cost=dict(cost) if cost is not None else msgspec.UNSET,
    )


def models_list(entries: Sequence[ModelEntry]) -> bytes:
    """Write the body of `GET /v1/models`; it is always the whole list."""
    return msgspec.json.encode(
        {
            "object": "list",
            "data": entries,
            "has_more": False,
            "first_id": entries[0].id if entries else None,
            "last_id": entries[-1].id if entries else None,
        }
    )


def model_body(entry: ModelEntry) -> bytes:
    """Write the body of `GET /v1/models/{id}`."""
    return msgspec.json.encode(entry)


def _or_unset(tokens: int | None) -> int | msgspec.UnsetType:
    return tokens if tokens is not None else msgspec.UNSET
