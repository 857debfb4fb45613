"""The endpoints of the gateway listener: one table from path to what it is.

A new endpoint is a row here. Nothing outside this file compares a path.
"""

import enum
from collections.abc import Callable, Sequence

import msgspec

from cortexd.dialects.chat import Chat
from cortexd.dialects.completions import Completions
from cortexd.dialects.embeddings import Embeddings
from cortexd.dialects.images import Images
from cortexd.dialects.messages import Messages, count_body
from cortexd.dialects.refusals import Refusal, RefusalKind, Rendered, render
from cortexd.dialects.rerank import Rerank
from cortexd.dialects.responses import Responses
from cortexd.dialects.speech import Speech
from cortexd.dialects.surface import Surface
from cortexd.dialects.transcriptions import Transcriptions
from cortexd.gateway.budget import anthropic_budget_headers, budget_headers
from cortexd.gateway.exchange import Headers
from cortexd.ledger.entries import Standing


class EndpointKind(enum.Enum):
    """What the core does for an endpoint."""

    WORK = "work"
    """What its surface says, at a neuron."""
    COUNT = "count"
    """How long a prompt is, as far as its bytes tell: no neuron is asked."""
    MODELS = "models"
    MODEL = "model"
    BUDGET = "budget"
    HEALTH = "health"
    ROOT = "root"


class Endpoint(msgspec.Struct, frozen=True):
    """One row: `path` (a trailing `*` takes the rest of the path as the argument).

    `surface`: what is said on an endpoint of the kinds WORK and COUNT. `count`: writes what a COUNT
    answers, from tokens. `to_anthropic`: limits are told as Anthropic tells them.
    """

    path: str
    kind: EndpointKind
    methods: tuple[str, ...]
    public: bool = False
    surface: Surface | None = None
    count: Callable[[int], bytes] | None = None
    to_anthropic: bool = False

    @property
    def metered(self) -> bool:
        """Whether it has neurons do work, so that what it may cost is reserved first.

        No other endpoint ever reaches a neuron.
        """
        return self.kind is EndpointKind.WORK

    def render(self, refusal: Refusal, *, request_id: str, model: str = "") -> Rendered:
        """Put a refusal into the envelope of the dialect that is spoken here.

        `model`: the name that the client used, as soon as it is known.
        """
        if self.surface is None:
            return render(refusal, request_id=request_id)
        return self.surface.render(refusal, request_id=request_id, model=model)

    def limits(self, standings: Sequence[Standing], *, wall_ms: int) -> Headers:
        """Tell how caps stand, in the headers that are read here; `wall_ms` is Unix time now."""
        if self.to_anthropic:
            return anthropic_budget_headers(standings, wall_ms=wall_ms)
        return budget_headers(standings)


class Match(msgspec.Struct, frozen=True):
    """The endpoint a request asks for, and the rest of its path where the row ends in `*`."""

    endpoint: Endpoint
    argument: str = ""


def _work(path: str, surface: Surface, *, to_anthropic: bool = False) -> Endpoint:
    return Endpoint(path, EndpointKind.WORK, ("POST",), surface=surface, to_anthropic=to_anthropic)


_RERANK = Rerank()
_MESSAGES = Messages()

ENDPOINTS = (
    _work("/v1/chat/completions", Chat()),
    _work("/v1/completions", Completions()),
    _work("/v1/responses", Responses()),
    _work("/v1/embeddings", Embeddings()),
    _work("/v1/rerank", _RERANK),
    _work("/rerank", _RERANK),
    _work("/v2/rerank", _RERANK),
    _work("/v1/images/generations", Images()),
    _work("/v1/audio/transcriptions", Transcriptions()),
    _work("/v1/audio/speech", Speech()),
    _work("/v1/messages", _MESSAGES, to_anthropic=True),
    Endpoint(
        "/v1/messages/count_tokens",
        EndpointKind.COUNT,
        ("POST",),
        surface=_MESSAGES,
        count=count_body,
        to_anthropic=True,
    ),
    Endpoint("/v1/models", EndpointKind.MODELS, ("GET",)),
    Endpoint("/v1/models/*", EndpointKind.MODEL, ("GET",)),
    Endpoint("/v1/budget", EndpointKind.BUDGET, ("GET",)),
    Endpoint("/health", EndpointKind.HEALTH, ("GET", "HEAD"), public=True),
    Endpoint("/", EndpointKind.ROOT, ("GET", "HEAD"), public=True),
)

_ROOT = ENDPOINTS[-1]
_EXACT = {row.path: Match(row) for row in ENDPOINTS if not row.path.endswith("*")}
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


def spoken_at(path: str, *, to_anthropic: bool = False) -> Endpoint:
    """The endpoint whose dialect a refusal on this path is put into, found or not.

    `to_anthropic`: the client names a version of Anthropic's API, and so reads that dialect also
    where both are at home.
    """
    match = _match(path)
    shared = match is None or match.endpoint.kind in (EndpointKind.MODELS, EndpointKind.MODEL)
    if to_anthropic and shared:
        return _EXACT["/v1/messages"].endpoint
    return _ROOT if match is None else match.endpoint


def _match(path: str) -> Match | None:
    exact = _EXACT.get(path) or _EXACT.get(path.rstrip("/"))
    if exact is not None:
        return exact
    for prefix, row in _PREFIX:
        if path.startswith(prefix) and len(path) > len(prefix):
            return Match(row, path[len(prefix) :])
    return None
