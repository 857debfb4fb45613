"""Every way in which cortexd says no: kind -> status, type, code, headers, body.

Owns one table and its rendering in OpenAI's error envelope. Refuses to know who asked and why:
callers write the words, except for the message about a budget. Types and codes are OpenAI's
(https://platform.openai.com/docs/guides/error-codes); `x-should-retry` is read by OpenAI's and
Anthropic's SDKs, and stops retries that would only cost time.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

import msgspec

RETRY_PATIENCE_SECONDS = 60
"""Longest Retry-After that an SDK may wait out by itself: several sleep silently for any time."""


class RefusalKind(Enum):
    """What is wrong; the table below says how that is put on the wire."""

    INVALID_JSON = "invalid_json"
    INVALID_FORM = "invalid_form"
    MISSING_REQUIRED_PARAMETER = "missing_required_parameter"
    INVALID_PARAMETER = "invalid_parameter"
    UNSUPPORTED_PARAMETER = "unsupported_parameter"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    INVALID_API_KEY = "invalid_api_key"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    MODEL_NOT_FOUND = "model_not_found"
    ENDPOINT_NOT_SERVED = "endpoint_not_served"
    UNKNOWN_URL = "unknown_url"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    REQUEST_TOO_LARGE = "request_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INSUFFICIENT_QUOTA = "insufficient_quota"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    NO_NEURON = "no_neuron"
    NO_ROOM = "no_room"
    MODEL_LOADING = "model_loading"
    MODEL_LOAD_FAILED = "model_load_failed"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    OVERLOADED = "overloaded"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_AUTH_FAILED = "upstream_auth_failed"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    NEURON_REJECTED = "neuron_rejected"
    NEURON_UNPROCESSABLE = "neuron_unprocessable"
    INTERNAL_ERROR = "internal_error"


class Refusal(msgspec.Struct, frozen=True):
    """A request that is not served, and what to tell its client.

    `message` is for people and holds the numbers. `param` names the field of the request that is
    at fault. `retry_after_seconds`: when asking again makes sense, if that is known. `is_final`: it
    never does, for this very request, whatever its kind allows. `code` replaces the code of the
    kind. `allowed_methods` goes with METHOD_NOT_ALLOWED.
    """

    kind: RefusalKind
    message: str
    param: str | None = None
    retry_after_seconds: int | None = None
    is_final: bool = False
    code: str | None = None
    allowed_methods: tuple[str, ...] = ()


class Rendered(msgspec.Struct, frozen=True):
    """A refusal as an HTTP response; header names are lower case, content-length is not among them.

    Example body: `{"error":{"message":"...","type":"invalid_request_error","param":"model",
    "code":"model_not_found"}}`.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Retry(Enum):
    """What a client is told about asking again."""

    NEVER = "never"
    """Asking the same again gives the same answer: x-should-retry says so, no Retry-After."""
    MAYBE = "maybe"
    """The client's own judgement; Retry-After if we know it."""
    LATER = "later"
    """Retry-After always, at least a second; beyond RETRY_PATIENCE_SECONDS not by itself."""


class Row(msgspec.Struct, frozen=True):
    """How one kind of refusal looks on the wire."""

    status: int
    type: str
    code: str
    retry: Retry


_REQUEST = "invalid_request_error"
_PERMISSION = "permission_error"
_LIMIT = "rate_limit_error"
_SERVER = "api_error"
_K = RefusalKind

TABLE: dict[RefusalKind, Row] = {
    _K.INVALID_JSON: Row(400, _REQUEST, "invalid_json", Retry.NEVER),
    _K.INVALID_FORM: Row(400, _REQUEST, "invalid_form", Retry.NEVER),
    _K.MISSING_REQUIRED_PARAMETER: Row(400, _REQUEST, "missing_required_parameter", Retry.NEVER),
    _K.INVALID_PARAMETER: Row(400, _REQUEST, "invalid_value", Retry.NEVER),
    _K.UNSUPPORTED_PARAMETER: Row(400, _REQUEST, "unsupported_parameter", Retry.NEVER),
    _K.CONTEXT_LENGTH_EXCEEDED: Row(400, _REQUEST, "context_length_exceeded", Retry.NEVER),
    _K.INVALID_API_KEY: Row(401, _REQUEST, "invalid_api_key", Retry.NEVER),
    _K.MODEL_NOT_ALLOWED: Row(403, _PERMISSION, "model_not_allowed", Retry.NEVER),
    _K.MODEL_NOT_FOUND: Row(404, _REQUEST, "model_not_found", Retry.NEVER),
    _K.ENDPOINT_NOT_SERVED: Row(400, _REQUEST, "endpoint_not_served", Retry.NEVER),
    _K.UNKNOWN_URL: Row(404, _REQUEST, "unknown_url", Retry.NEVER),
    _K.METHOD_NOT_ALLOWED: Row(405, _REQUEST, "method_not_allowed", Retry.NEVER),
    _K.REQUEST_TIMEOUT: Row(408, _REQUEST, "request_timeout", Retry.MAYBE),
    _K.REQUEST_TOO_LARGE: Row(413, _REQUEST, "request_too_large", Retry.NEVER),
    _K.UNSUPPORTED_MEDIA_TYPE: Row(415, _REQUEST, "unsupported_media_type", Retry.NEVER),
    _K.INSUFFICIENT_QUOTA: Row(429, "insufficient_quota", "insufficient_quota", Retry.NEVER),
    _K.RATE_LIMIT_EXCEEDED: Row(429, _LIMIT, "rate_limit_exceeded", Retry.LATER),
    _K.NO_NEURON: Row(503, _SERVER, "no_neuron", Retry.LATER),
    _K.NO_ROOM: Row(503, _SERVER, "no_room", Retry.LATER),
    _K.MODEL_LOADING: Row(503, _SERVER, "model_loading", Retry.LATER),
    _K.MODEL_LOAD_FAILED: Row(503, _SERVER, "model_load_failed", Retry.NEVER),
    _K.QUEUE_FULL: Row(503, _SERVER, "queue_full", Retry.LATER),
    _K.QUEUE_TIMEOUT: Row(503, _SERVER, "queue_timeout", Retry.LATER),
    _K.OVERLOADED: Row(503, _SERVER, "overloaded", Retry.LATER),
    _K.LEDGER_UNAVAILABLE: Row(503, _SERVER, "ledger_unavailable", Retry.LATER),
    _K.UPSTREAM_UNREACHABLE: Row(502, _SERVER, "upstream_unreachable", Retry.LATER),
    _K.UPSTREAM_FAILED: Row(502, _SERVER, "upstream_failed", Retry.MAYBE),
    _K.UPSTREAM_AUTH_FAILED: Row(502, _SERVER, "upstream_auth_failed", Retry.NEVER),
    _K.UPSTREAM_TIMEOUT: Row(504, _SERVER, "upstream_timeout", Retry.NEVER),
    _K.NEURON_REJECTED: Row(400, _REQUEST, "neuron_rejected", Retry.NEVER),
    _K.NEURON_UNPROCESSABLE: Row(422, _REQUEST, "neuron_rejected", Retry.NEVER),
    _K.INTERNAL_ERROR: Row(500, _SERVER, "internal_error", Retry.NEVER),
}


def render(refusal: Refusal, *, request_id: str) -> Rendered:
    """Put a refusal into OpenAI's envelope.

    `request_id` is printable ASCII (the gateway makes or cleans it); it goes out under both names
    that SDKs read.
    """
    row = TABLE[refusal.kind]
    header_id = request_id.encode("ascii", "replace")
    headers = [
        (b"content-type", b"application/json"),
        (b"x-request-id", header_id),
        (b"request-id", header_id),
        *_retry_headers(row.retry, refusal),
    ]
    if refusal.allowed_methods:
        headers.append((b"allow", ", ".join(refusal.allowed_methods).encode("ascii")))
    if row.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return Rendered(row.status, tuple(headers), error_body(refusal))


def error_body(refusal: Refusal) -> bytes:
    """Write the envelope alone, as a stream's error frame needs it."""
    error = {
        # A message may quote a request; half a surrogate pair in it must not break the answer.
        "message": refusal.message.encode("utf-8", "replace").decode(),
        "type": TABLE[refusal.kind].type,
        "param": refusal.param,
        "code": code_of(refusal),
    }
    return msgspec.json.encode({"error": error})


def code_of(refusal: Refusal) -> str:
    """The `code` that a client reads, such as `insufficient_quota`."""
    return refusal.code or TABLE[refusal.kind].code


def _retry_headers(retry: Retry, refusal: Refusal) -> list[tuple[bytes, bytes]]:
    after_seconds = refusal.retry_after_seconds
    if retry is Retry.NEVER:
        return [(b"x-should-retry", b"false")]
    if retry is Retry.LATER:
        after_seconds = after_seconds or 1
    headers: list[tuple[bytes, bytes]] = []
    if after_seconds is not None:
        # Zero makes JavaScript clients ask again within milliseconds, so a second is the least.
        headers.append((b"retry-after", b"%d" % max(1, after_seconds)))
    if refusal.is_final or (after_seconds or 0) > RETRY_PATIENCE_SECONDS:
        headers.append((b"x-should-retry", b"false"))
    return headers


Counted = Literal["tokens", "requests", "in flight"]
"""What a cap counts: tokens, requests as they come, or requests that are open at a moment."""


class Exhausted(msgspec.Struct, frozen=True):
    """A cap that has no room, in the words of its refusal. Amounts are what it `counts`.

    `owner`: whose cap, as in `key 'ci'`. `span`: over which time, as in `in any 60 s`.
    `time_restores`: whether waiting alone gives anything back.
    """

    owner: str
    counts: Counted
    hard_cap: int
    span: str
    time_restores: bool
    spent: int
    reserved: int
    available: int


def budget_refusal(
    cap: Exhausted,
    *,
    asked: int,
    clamped: bool,
    never_fits: bool,
    retry_after_seconds: int | None,
) -> Refusal:
    """Refuse a request that a hard cap has no room for, with all the numbers that say why.

    `clamped`: `asked` is the least that would do. `never_fits`: the request alone is larger than
    the cap, so that waiting cannot help; `retry_after_seconds` is then the length of the window.
    None there: nobody knows when it fits. Several clients show their user nothing but this message.
    """
    facts = f"{_facts(cap, asked, clamped=clamped)} "
    if not cap.time_restores:
        advice = _TOO_LARGE[cap.counts] if never_fits else _balance_advice(cap.reserved)
        return Refusal(RefusalKind.INSUFFICIENT_QUOTA, facts + advice)
    if never_fits:
        advice = _TOO_LARGE[cap.counts]
    elif retry_after_seconds is None:
        advice = "It may fit when open requests end." if cap.reserved else ""
    else:
        other = "nothing else is spent" if cap.counts == "tokens" else "no other is made"
        advice = f"It fits in {max(1, retry_after_seconds)} s if {other} until then."
    return Refusal(
        RefusalKind.RATE_LIMIT_EXCEEDED,
        (facts + advice).rstrip(),
        retry_after_seconds=max(1, retry_after_seconds or 1),
        is_final=never_fits,
    )


_TOO_LARGE: dict[Counted, str] = {
    "tokens": "It is larger than the whole cap: waiting cannot help, a shorter prompt or a smaller "
    "max_tokens may.",
    "requests": "A cap of none lets no request pass: waiting cannot help.",
    "in flight": "A cap of none lets no request pass: waiting cannot help.",
}


def _facts(cap: Exhausted, asked: int, *, clamped: bool) -> str:
    match cap.counts:
        case "tokens":
            needs = f"at least {asked}" if clamped else f"up to {asked}"
            return (
                f"Token budget of {cap.owner} exceeded: its hard cap is {cap.hard_cap} tokens "
                f"{cap.span}; {cap.spent} spent, {cap.reserved} reserved by open requests, "
                f"{cap.available} left; this request needs {needs}."
            )
        case "requests":
            return (
                f"Request budget of {cap.owner} exceeded: its cap is {_requests(cap.hard_cap)} "
                f"{cap.span}; {cap.spent} made."
            )
        case "in flight":
            return (
                f"Too many requests in flight for {cap.owner}: its cap is "
                f"{_requests(cap.hard_cap)} {cap.span}; {cap.reserved} open."
            )


def _requests(count: int) -> str:
    return f"{count} request" if count == 1 else f"{count} requests"


def _balance_advice(reserved: int) -> str:
    if reserved:
        return "Some of it may come back when open requests end; time alone restores nothing."
    return "Waiting cannot help: a balance is not restored by time."
