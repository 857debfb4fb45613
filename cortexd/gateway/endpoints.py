"""The endpoints of the gateway listener: one table from path to what it is.

A new endpoint is a row here. Nothing outside this file compares a path.
"""

import enum

import msgspec

from cortexd.dialects.refusals import Refusal, RefusalKind


class EndpointKind(enum.Enum):
    """What the core does for an endpoint."""

    CHAT = "chat"
    MODELS = "models"
    MODEL = "model"
    BUDGET = "budget"
    HEALTH = "health"
    ROOT = "root"


class Endpoint(msgspec.Struct, frozen=True):
    """One row: `path` (a trailing `*` takes the rest of the path as the argument).

    `metered`: it has neurons do work, so that what it may cost is reserved first; no other endpoint
    ever reaches a neuron.
    """

    path: str
    kind: EndpointKind
    methods: tuple[str, ...]
    public: bool = False
    metered: bool = False


class Match(msgspec.Struct, frozen=True):
    """The endpoint a request asks for, and the rest of its path where the row ends in `*`."""

    endpoint: Endpoint
    argument: str = ""


ENDPOINTS = (
    Endpoint("/v1/chat/completions", EndpointKind.CHAT, ("POST",), metered=True),
    Endpoint("/v1/models", EndpointKind.MODELS, ("GET",)),
    Endpoint("/v1/models/*", EndpointKind.MODEL, ("GET",)),
    Endpoint("/v1/budget", EndpointKind.BUDGET, ("GET",)),
    Endpoint("/health", EndpointKind.HEALTH, ("GET", "HEAD"), public=True),
    Endpoint("/", EndpointKind.ROOT, ("GET", "HEAD"), public=True),
)

_EXACT = {row.path: row for row in ENDPOINTS if not row.path.endswith("*")}
_PREFIX = tuple((row.path[:-1], row) for row in ENDPOINTS if row.path.endswith("*"))


def find(method: str, path: str) -> Match | Refusal:
    """The endpoint for a method and a percent-decoded path, or the 404 or 405 that answers it."""
    match = _match(path)
    if match is None:
        return Refusal(RefusalKind.UNKNOWN_URL, f"Unknown request URL: {method} {path[:200]}.")
    allowed = match.endpoint.methods
    if method not in allowed:
        return Refusal(
            RefusalKind.METHOD_NOT_ALLOWED,
            f"{method} is not allowed on {path[:200]}; use {' or '.join(allowed)}.",
            allowed_methods=allowed,
        )
    return match


def _match(path: str) -> Match | None:
    exact = _EXACT.get(path) or _EXACT.get(path.rstrip("/"))
    if exact is not None:
        return Match(exact)
    for prefix, row in _PREFIX:
        if path.startswith(prefix) and len(path) > len(prefix):
            return Match(row, path[len(prefix) :])
    return None
