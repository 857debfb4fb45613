"""The refusals of a simulated neuron: one table from a row's name to the whole reply. Pure.

Inference errors use the OpenAI envelope, management errors are flat: `{"error": "text"}` or
`{"error": {"kind": ...}}`.
"""

import msgspec

from cortexd.demo.switches import Canned

_JSON = (b"content-type", b"application/json")

# name: (status, type, code, Retry-After seconds)
_ROWS: dict[str, tuple[int, str, str | None, int | None]] = {
    "model_not_found": (404, "invalid_request_error", "model_not_found", None),
    "context_length_exceeded": (400, "invalid_request_error", "context_length_exceeded", None),
    "prompt_too_long_for_vram": (413, "invalid_request_error", "prompt_too_long_for_vram", None),
    "insufficient_vram": (503, "api_error", "insufficient_vram", 5),
    "queue_full": (503, "rate_limit_error", "rate_limit_exceeded", 1),
    "queue_timeout": (503, "rate_limit_error", "rate_limit_exceeded", 5),
    "anonymous_yields": (503, "rate_limit_error", "rate_limit_exceeded", 2),
    "principal_cap": (429, "rate_limit_error", "rate_limit_exceeded", 1),
    "recovering": (503, "api_error", "model_recovering", 5),
    "shutting_down": (503, "api_error", "shutting_down", 15),
    "vision_unsupported": (400, "invalid_request_error", "vision_unsupported", None),
    "wrong_modality": (422, "invalid_request_error", "wrong_modality", None),
    "template_render_failed": (422, "invalid_request_error", "template_render_failed", None),
    "malformed_json": (400, "invalid_request_error", "malformed_json", None),
    "invalid_request_body": (422, "invalid_request_error", "invalid_request_body", None),
    "unsupported_media_type": (415, "invalid_request_error", "unsupported_media_type", None),
    "invalid_size": (400, "invalid_request_error", "invalid_size", None),
    "unsupported_parameter": (400, "invalid_request_error", "unsupported_parameter", None),
    "payment_required": (402, "billing_error", "insufficient_quota", None),
    "internal": (500, "api_error", None, None),
}

INFERENCE_ERRORS = tuple(_ROWS)


class NeuronError(Exception):
    """Ends a request with this reply."""

    def __init__(self, reply: Canned) -> None:
        super().__init__(reply.status)
        self.reply = reply


def inference_error(
    row: str, message: str = "simulated", *, retry_after_seconds: int | None = None, **facts: object
) -> Canned:
    """The reply of a row of `INFERENCE_ERRORS`.

    Facts (such as `prompt_len`) go into the envelope.
    """
    status, kind, code, seconds = _ROWS[row]
    seconds = seconds if retry_after_seconds is None else retry_after_seconds
    error = {"message": message, "type": kind, "param": None, "code": code, **facts}
    headers = (_JSON,) if seconds is None else (_JSON, (b"retry-after", b"%d" % seconds))
    return Canned(status, msgspec.json.encode({"error": error}), headers)


def management_error(status: int, error: str | dict[str, str], code: str | None = None) -> Canned:
    """A flat management error."""
    body: dict[str, object] = {"error": error}
    if code is not None:
        body["code"] = code
    return Canned(status, msgspec.json.encode(body), (_JSON,))
