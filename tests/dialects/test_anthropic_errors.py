"""Refusals in Anthropic's envelope, and its headers about limits."""

import json

import pytest

from cortexd.dialects.anthropic_errors import (
    error_event,
    error_type,
    limit_headers,
    render_anthropic,
)
from cortexd.dialects.neuron_errors import neuron_refusal
from cortexd.dialects.refusals import TABLE, Refusal, RefusalKind, Retry, Row, code_of, render
from cortexd.dialects.sse import Events

TYPES = {
    RefusalKind.INVALID_JSON: "invalid_request_error",
    RefusalKind.MISSING_REQUIRED_PARAMETER: "invalid_request_error",
    RefusalKind.INVALID_PARAMETER: "invalid_request_error",
    RefusalKind.UNSUPPORTED_PARAMETER: "invalid_request_error",
    RefusalKind.CONTEXT_LENGTH_EXCEEDED: "invalid_request_error",
    RefusalKind.INVALID_API_KEY: "authentication_error",
    RefusalKind.MODEL_NOT_ALLOWED: "permission_error",
    RefusalKind.MODEL_NOT_FOUND: "not_found_error",
    RefusalKind.UNKNOWN_URL: "not_found_error",
    RefusalKind.METHOD_NOT_ALLOWED: "invalid_request_error",
    RefusalKind.REQUEST_TIMEOUT: "timeout_error",
    RefusalKind.REQUEST_TOO_LARGE: "request_too_large",
    RefusalKind.UNSUPPORTED_MEDIA_TYPE: "invalid_request_error",
    RefusalKind.INSUFFICIENT_QUOTA: "rate_limit_error",
    RefusalKind.RATE_LIMIT_EXCEEDED: "rate_limit_error",
    RefusalKind.NO_NEURON: "overloaded_error",
    RefusalKind.OVERLOADED: "overloaded_error",
    RefusalKind.LEDGER_UNAVAILABLE: "overloaded_error",
    RefusalKind.UPSTREAM_UNREACHABLE: "api_error",
    RefusalKind.UPSTREAM_FAILED: "api_error",
    RefusalKind.UPSTREAM_AUTH_FAILED: "api_error",
    RefusalKind.UPSTREAM_TIMEOUT: "timeout_error",
    RefusalKind.NEURON_REJECTED: "invalid_request_error",
    RefusalKind.NEURON_UNPROCESSABLE: "invalid_request_error",
    RefusalKind.INTERNAL_ERROR: "api_error",
}


def message_of(refusal: Refusal, *, model: str = "") -> str:
    body = json.loads(render_anthropic(refusal, request_id="r", model=model).body)
    message: str = body["error"]["message"]
    return message


@pytest.mark.parametrize("kind", TYPES)
def test_every_kind_has_its_type(kind: RefusalKind) -> None:
    assert error_type(TABLE[kind]) == TYPES[kind]


@pytest.mark.parametrize("kind", RefusalKind)
@pytest.mark.parametrize("seconds", [None, 0, 7, 61])
def test_a_refusal_is_an_envelope_with_the_status_and_the_headers_of_the_table(
    kind: RefusalKind, seconds: int | None
) -> None:
    refusal = Refusal(kind, "It is so.", param="p", retry_after_seconds=seconds)
    rendered, chats = render_anthropic(refusal, request_id="r-1"), render(refusal, request_id="r-1")
    assert (rendered.status, rendered.headers) == (chats.status, chats.headers)
    headers = dict(rendered.headers)
    assert headers[b"x-request-id"] == headers[b"request-id"] == b"r-1"
    body = json.loads(rendered.body)
    assert body.pop("request_id") == "r-1"
    assert body.pop("type") == "error"
    error = body.pop("error")
    assert not body
    assert error["details"] == {"error_code": code_of(refusal)}
    assert error["type"] == error_type(TABLE[kind])
    assert error["message"].endswith("It is so.")


def test_a_503_that_stays_is_no_overload() -> None:
    assert error_type(Row(503, "api_error", "broken", Retry.NEVER)) == "api_error"
    assert error_type(Row(503, "api_error", "busy", Retry.LATER)) == "overloaded_error"


def test_a_spent_balance_is_a_429_that_is_not_to_be_repeated() -> None:
    rendered = render_anthropic(Refusal(RefusalKind.INSUFFICIENT_QUOTA, "Spent."), request_id="r")
    assert rendered.status == 429
    assert dict(rendered.headers)[b"x-should-retry"] == b"false"
    error = json.loads(rendered.body)["error"]
    assert (error["type"], error["details"]["error_code"]) == (
        "rate_limit_error",
        "insufficient_quota",
    )


def test_a_missing_model_is_told_in_the_words_that_clients_look_for() -> None:
    refusal = Refusal(RefusalKind.MODEL_NOT_FOUND, "It does not exist here.", param="model")
    assert message_of(refusal, model="org/m") == "model: org/m. It does not exist here."
    assert message_of(refusal) == "model: It does not exist here."
    assert len(message_of(refusal, model="m" * 9999)) < 300
    assert message_of(Refusal(RefusalKind.UNKNOWN_URL, "Unknown."), model="m") == "Unknown."


VLLM = (
    "This model's maximum context length is 4096 tokens. However, you requested 4500 tokens "
    "(%d in the messages, %d in the completion). Please reduce the length."
)
BOTH = (
    "input length and `max_tokens` exceed context limit: 4000 + 500 > 4096, decrease input length "
    "or `max_tokens` and try again"
)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "This model's maximum context length is 100 tokens. However, your messages resulted in "
            "230 tokens.",
            "prompt is too long: 230 tokens > 100 maximum",
        ),
        (VLLM % (5000, 500), "prompt is too long: 5000 tokens > 4096 maximum"),
        (VLLM % (4000, 500), BOTH),
        (
            "This model's maximum context length is 4096 tokens. However, you requested 500 output "
            "tokens and your prompt contains at least 4000 input tokens.",
            BOTH,
        ),
        (
            "This model's maximum context length is 4096 tokens. You passed 4097 input tokens.",
            "prompt is too long: 4097 tokens > 4096 maximum",
        ),
        (
            "This model's maximum context length is 4096 tokens. You passed 4096 input tokens.",
            "prompt is too long: This model's maximum context length is 4096 tokens. You passed "
            "4096 input tokens.",
        ),
        (
            "This model's maximum context length is 8 tokens.",
            "prompt is too long: This model's maximum context length is 8 tokens.",
        ),
        ("It is beyond n_ctx.", "prompt is too long: It is beyond n_ctx."),
        (VLLM % (10, 20), "prompt is too long: " + VLLM % (10, 20)),
    ],
)
def test_a_prompt_beyond_the_context_is_told_in_anthropics_words(message: str, told: str) -> None:
    assert message_of(Refusal(RefusalKind.CONTEXT_LENGTH_EXCEEDED, message)) == told


def test_what_llama_cpp_says_of_its_context_reaches_the_client_with_both_numbers() -> None:
    error = {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 8}
    refusal = neuron_refusal(400, json.dumps({"error": {**error, "message": "too long"}}).encode())
    assert message_of(refusal) == "prompt is too long: 9 tokens > 8 maximum"


def test_half_a_surrogate_pair_in_a_message_or_a_name_breaks_nothing() -> None:
    refusal = Refusal(RefusalKind.MODEL_NOT_FOUND, "no \ud800")
    assert message_of(refusal, model="\ud800x") == "model: ?x. no ?"


def test_an_error_event_is_one_named_event_with_the_request_id() -> None:
    event = error_event(Refusal(RefusalKind.UPSTREAM_FAILED, "It broke."), request_id="r-1")
    (read,) = Events().feed(event)
    assert read.name == b"error"
    assert json.loads(read.data or b"") == {
        "type": "error",
        "error": {
            "type": "api_error",
            "message": "It broke.",
            "details": {"error_code": "upstream_failed"},
        },
        "request_id": "r-1",
    }


def test_limits_are_told_in_anthropics_headers_with_an_instant_in_utc() -> None:
    headers = limit_headers("tokens", limit=100, remaining=7, reset_unix_ms=1_795_446_000_001)
    assert headers == (
        (b"anthropic-ratelimit-tokens-limit", b"100"),
        (b"anthropic-ratelimit-tokens-remaining", b"7"),
        (b"anthropic-ratelimit-tokens-reset", b"2026-11-23T15:00:01Z"),
    )
    assert limit_headers("requests", limit=5, remaining=-1, reset_unix_ms=None) == (
        (b"anthropic-ratelimit-requests-limit", b"5"),
        (b"anthropic-ratelimit-requests-remaining", b"0"),
    )


def test_an_instant_beyond_the_calendar_is_its_last_second() -> None:
    headers = limit_headers("tokens", limit=1, remaining=1, reset_unix_ms=10**18)
    assert headers[2][1] == b"9999-12-31T23:59:59Z"
