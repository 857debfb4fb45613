"""Every refusal in Anthropic's envelope, and the headers that tell of limits in Anthropic's way.

Owns what differs from OpenAI's dialect: types, phrases that clients act upon, the error event of a
stream. Statuses, codes and what is said about asking again stay those of the table in
`refusals.py`. Source: https://docs.anthropic.com/en/api/errors.
"""

from __future__ import annotations

import datetime
import re
from typing import Literal

import msgspec

from cortexd.dialects.refusals import (
    TABLE,
    Refusal,
    RefusalKind,
    Rendered,
    Retry,
    Row,
    code_of,
    render,
)
from cortexd.dialects.sse import write_event

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}

_SAID_ALREADY = re.compile(
    r"prompt is too long: \d{1,12} tokens > \d{1,12} maximum"
    r"|input length and `max_tokens` exceed context limit: \d{1,12} \+ \d{1,12} > \d{1,12}.*"
)
_CONTEXT = re.compile(r"maximum context length is (\d{1,12}) tokens")
_PROMPT = re.compile(
    r"resulted in (\d{1,12}) tokens|\((\d{1,12}) (?:in|from) the (?:messages|input)"
    r"|(?:passed|has|contains at least) (\d{1,12}) input tokens"
)
_OUTPUT = re.compile(r"(\d{1,12}) (?:in the completion|output tokens)")


def render_anthropic(refusal: Refusal, *, request_id: str, model: str = "") -> Rendered:
    """Put a refusal into Anthropic's envelope; status and headers are those of `render`.

    `model`: the name that the client used, if it is known; a 404 about it begins with that name.
    Example body: `{"type":"error","error":{"type":"overloaded_error","message":"...",
    "details":{"error_code":"no_neuron"}},"request_id":"r-1"}`.
    """
    rendered = render(refusal, request_id=request_id)
    body = anthropic_error_body(refusal, request_id=request_id, model=model)
    return msgspec.structs.replace(rendered, body=body)


def error_event(refusal: Refusal, *, request_id: str) -> bytes:
    """Write the event that ends a stream which has already begun."""
    return write_event(anthropic_error_body(refusal, request_id=request_id), name=b"error")


def anthropic_error_body(refusal: Refusal, *, request_id: str, model: str = "") -> bytes:
    """Write the envelope alone."""
    error = {
        "type": error_type(TABLE[refusal.kind]),
        # A message may quote a request; half a surrogate pair in it must not break the answer.
        "message": _message(refusal, model).encode("utf-8", "replace").decode(),
        "details": {"error_code": code_of(refusal)},
    }
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})


def error_type(row: Row) -> str:
    """Anthropic's word for a row of the table: it follows from the status.

    Of the 503s only those that pass are an overload: some clients then switch to another model.
    """
    if row.status == 503 and row.retry is Retry.NEVER:
        return "api_error"
    return _TYPES[row.status]


def _message(refusal: Refusal, model: str) -> str:
    match refusal.kind:
        case RefusalKind.MODEL_NOT_FOUND:
            # Claude Code knows a missing model by how the message begins.
            named = model.encode("utf-8", "replace").decode()[:200]
            return f"model: {named}. {refusal.message}" if named else f"model: {refusal.message}"
        case RefusalKind.CONTEXT_LENGTH_EXCEEDED:
            return _about_context(refusal.message)
    return refusal.message


def _about_context(message: str) -> str:
    """Say in Anthropic's words what an engine said in OpenAI's: clients compact, or ask for less,
    when they read these phrases.
    """
    already = _SAID_ALREADY.search(message)
    if already is not None:
        return already[0]
    context, prompt, output = (
        _first_number(pattern, message) for pattern in (_CONTEXT, _PROMPT, _OUTPUT)
    )
    if context is None or prompt is None:
        return f"prompt is too long: {message}"
    if prompt > context:
        return f"prompt is too long: {prompt} tokens > {context} maximum"
    if output is not None and prompt + output > context:
        return (
            f"input length and `max_tokens` exceed context limit: {prompt} + {output} > {context}, "
            "decrease input length or `max_tokens` and try again"
        )
    return f"prompt is too long: {message}"


def _first_number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    if found is None:
        return None
    return next(int(digits) for digits in found.groups() if digits is not None)


def limit_headers(
    counted: Literal["tokens", "requests"],
    *,
    limit: int,
    remaining: int,
    reset_unix_ms: int | None,
) -> tuple[tuple[bytes, bytes], ...]:
    """Write `anthropic-ratelimit-*` for one cap; `reset_unix_ms`: when all of it is back, if ever.

    Never the `unified` family: Claude Code acts upon those as upon a subscription's.
    """
    name = b"anthropic-ratelimit-" + counted.encode()
    headers = [(name + b"-limit", b"%d" % limit), (name + b"-remaining", b"%d" % max(0, remaining))]
    if reset_unix_ms is not None:
        headers.append((name + b"-reset", _instant(reset_unix_ms)))
    return tuple(headers)


def _instant(unix_ms: int) -> bytes:
    """The whole second by which a moment has passed, as in `2026-11-23T15:00:00Z`."""
    seconds = min(-(-unix_ms // 1000), _LAST_SECOND)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ").encode()


_LAST_SECOND = 253_402_300_799  # of the year 9999: later ones have no such spelling
