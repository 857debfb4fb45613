"""What neurons say when they fail, told to a client in cortexd's own words.

Owns the error shapes of the engines and what of them a client may see. Refuses to know HTTP
clients and retries: the caller decides whether another neuron is asked first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.refusals import Refusal, RefusalKind

if TYPE_CHECKING:
    from collections.abc import Sequence

SAYING_CHARACTERS_MAX = 500
"""Longest passage of a neuron's message that is passed on."""

RETRY_SECONDS_DEFAULT = 1
RETRY_SECONDS_MAX = 60
"""A neuron's Retry-After is believed up to here: it knows its queue, not the fleet's."""

HIDDEN = "[hidden]"

_GROUP = r"[0-9a-fA-F]{1,4}"
_GROUPS = rf"{_GROUP}(?::{_GROUP}){{0,6}}"
_LAST_GROUPS = rf"(?:{_GROUP}:){{0,6}}(?:\d{{1,3}}(?:\.\d{{1,3}}){{3}}|{_GROUP})"
_PLACES = re.compile(
    r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"<>)]+"
    r"|\[[0-9a-fA-F]*:[0-9a-fA-F:.]*(?:%\w+)?\](?::\d{1,5})?"
    rf"|(?<![\w:.])(?:{_GROUPS}::(?:{_LAST_GROUPS})?|::{_LAST_GROUPS}|(?:{_GROUP}:){{7}}{_GROUP})"
    r"(?:%\w+)?(?![\w:])"
    r"|(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?"
    r"|(?<![\w.-])[\w-]+(?:\.[\w-]+)*:\d{2,5}(?!\w)"
    r"|(?<![\w.-])(?:[\w-]+\.)+(?:internal|local|localdomain|lan|home|corp|svc|arpa)(?![\w-])"
    r"|(?<![\w.-])localhost(?![\w-])"
    r"|\bhost=['\"][^'\"]*['\"]"
)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")
_CONTEXT_TYPES = ("exceed_context_size_error", "context_length_exceeded", "prompt_too_long")
_CONTEXT_WORDS = re.compile(
    r"maximum context length|exceeds? the (?:available )?context|context (?:size|window|length) "
    r"(?:exceeded|of)|prompt is too long|exceed context limit|longer than the model's context"
    r"|max_model_len",
    re.IGNORECASE,
)
_LEFT = re.compile(r"model is not (?:loaded|running)|model '[^']*' not found")
_BAD_REQUEST, _NOT_FOUND = 400, 404
_CODE = re.compile(r"[a-z][a-z0-9_]{2,47}")
_LIMIT_NAMES = ("n_ctx", "max")
_LENGTH_NAMES = ("n_prompt_tokens", "prompt_len")


class Complaint(msgspec.Struct, frozen=True):
    """An engine's error, whatever its shape: what it says (fit for clients) and what it calls it.

    `label` is its code or type, "" if none. `context_tokens` and `prompt_tokens` where it tells.
    """

    saying: str = ""
    label: str = ""
    param: str | None = None
    context_tokens: int | None = None
    prompt_tokens: int | None = None

    @property
    def is_about_model(self) -> bool:
        """Whether the model is what was not found, rather than the path."""
        return self.label == "model_not_found" or "model" in self.saying.lower()

    @property
    def is_about_context(self) -> bool:
        """Whether the prompt was too long for the model's context window."""
        return self.label in _CONTEXT_TYPES or _CONTEXT_WORDS.search(self.saying) is not None


def read_complaint(decoded: object) -> Complaint:
    """Read an error body or frame: an `error` object or text, a flat object, or FastAPI's detail.

    Examples: `{"error":{"message":"..","type":"..","code":400}}` (vLLM, llama.cpp),
    `{"object":"error","message":".."}` (SGLang), `{"detail":".."}` (TabbyAPI).
    """
    if not isinstance(decoded, dict):
        return Complaint()
    error = decoded.get("error", decoded.get("detail"))
    if isinstance(error, str):
        return Complaint(saying=hide_places(error), label=_label(decoded))
    if not isinstance(error, dict):
        error = decoded
    message, param = error.get("message"), error.get("param")
    return Complaint(
        saying=hide_places(message) if isinstance(message, str) else "",
        label=_label(error),
        param=hide_places(param) if isinstance(param, str) else None,
        context_tokens=_first_count(error, _LIMIT_NAMES),
        prompt_tokens=_first_count(error, _LENGTH_NAMES),
    )


def hide_places(text: str) -> str:
    """Take addresses of the operator's network out of a neuron's words, and shorten them."""
    # Cut first: the patterns are searched in what is kept, however much a neuron says.
    kept = _CONTROLS.sub(" ", text[: 2 * SAYING_CHARACTERS_MAX])
    return _PLACES.sub(HIDDEN, kept).strip()[:SAYING_CHARACTERS_MAX]


def hide_names(told: str, names: Sequence[str]) -> str:
    """Take words that are not for clients out of what a neuron said, which stands behind the first
    colon of what a client is `told`: the names of its host, and our key for it. A bare name has no
    shape that gives it away, but these are known.
    """
    what, colon, saying = told.partition(": ")
    if not names or not saying:
        return told
    anyone = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    whole = rf"(?<![\w.-])(?:{anyone})(?![\w-]|\.\w)"
    return what + colon + re.sub(whole, HIDDEN, saying, flags=re.IGNORECASE)


def _read_error(body: bytes) -> Complaint:
    """Read the body of an error response; empty where nothing in it can be read."""
    try:
        return read_complaint(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Complaint()


def told_status(status: int, body: bytes) -> int:
    """The status as it is meant: 404 for a model that has left, which llama.cpp's router calls a
    bad request.
    """
    if status == _BAD_REQUEST and _LEFT.fullmatch(_read_error(body).saying):
        return _NOT_FOUND
    return status


def lacks_endpoint(status: int, body: bytes) -> bool:
    """Whether a neuron's error says that it does not serve this endpoint at all: a 404 does unless
    it names the model. Chats are no exception: servers of embeddings alone have none.
    """
    if status == _NOT_FOUND:
        return not _read_error(body).is_about_model
    return status in (405, 501)


def neuron_refusal(
    status: int,
    body: bytes,
    retry_after: str | bytes | None = None,
) -> Refusal:
    """Turn a neuron's error response into what the client is told.

    `retry_after`: the value of its Retry-After header; only seconds are read. A credential that the
    neuron does not accept, and a payment it asks for, are the operator's affair: 502.
    """
    complaint = _read_error(body)
    if lacks_endpoint(status, body):
        message = _told("No neuron with this model serves this endpoint", complaint)
        return Refusal(RefusalKind.ENDPOINT_NOT_SERVED, message)
    if status in (400, 413, 422) and complaint.is_about_context:
        return _context_refusal(complaint)
    match status:
        case 400:
            return _rejection(RefusalKind.NEURON_REJECTED, complaint)
        case 413:
            message = _told("The neuron found the request too large", complaint)
            return Refusal(RefusalKind.REQUEST_TOO_LARGE, message)
        case 422:
            return _rejection(RefusalKind.NEURON_UNPROCESSABLE, complaint)
        case 401 | 403:
            message = "The neuron did not accept cortexd's own credential."
            return Refusal(RefusalKind.UPSTREAM_AUTH_FAILED, message)
        case 404:
            message = "The neuron no longer has the model loaded."
            return _later(RefusalKind.NO_NEURON, message, retry_after)
        case 429 | 503 | 529:
            message = _told("The neuron has no room for the request now", complaint)
            return _later(RefusalKind.OVERLOADED, message, retry_after)
        case 408 | 504:
            return Refusal(RefusalKind.UPSTREAM_TIMEOUT, "The neuron ran out of time.")
    message = _told(f"The neuron failed with status {status}", complaint)
    return Refusal(RefusalKind.UPSTREAM_FAILED, message)


def _context_refusal(complaint: Complaint) -> Refusal:
    # litellm and others recognise this condition by OpenAI's very words.
    if complaint.context_tokens is not None and complaint.prompt_tokens is not None:
        message = (
            f"This model's maximum context length is {complaint.context_tokens} tokens. However, "
            f"your messages resulted in {complaint.prompt_tokens} tokens."
        )
    elif "maximum context length is" in complaint.saying:
        message = complaint.saying
    else:
        message = _told("The prompt exceeds this model's maximum context length", complaint)
    return Refusal(RefusalKind.CONTEXT_LENGTH_EXCEEDED, message, param="messages")


def _rejection(kind: RefusalKind, complaint: Complaint) -> Refusal:
    message = _told("The neuron rejected the request", complaint)
    return Refusal(kind, message, param=complaint.param, code=complaint.label or None)


def _later(kind: RefusalKind, message: str, retry_after: str | bytes | None) -> Refusal:
    seconds = RETRY_SECONDS_DEFAULT
    text = retry_after.decode("latin-1") if isinstance(retry_after, bytes) else retry_after
    if text is not None and re.fullmatch(r"\d{1,9}", text.strip(), re.ASCII):
        seconds = min(max(int(text), RETRY_SECONDS_DEFAULT), RETRY_SECONDS_MAX)
    return Refusal(kind, message, retry_after_seconds=seconds)


def _told(what: str, complaint: Complaint) -> str:
    return f"{what}: {complaint.saying}" if complaint.saying else f"{what}."


def _label(error: dict[str, object]) -> str:
    """Prefer a code in words, then a type in words; engines put HTTP numbers into codes."""
    for name in ("code", "type"):
        label = error.get(name)
        if isinstance(label, str) and _CODE.fullmatch(label) and label != "invalid_request_error":
            return label
    return ""


def _first_count(error: dict[str, object], names: tuple[str, ...]) -> int | None:
    counts = (error.get(name) for name in names)
    return next((count for count in counts if type(count) is int and count > 0), None)
