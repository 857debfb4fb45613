"""Engines' errors in cortexd's words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.neuron_errors import (
    HIDDEN,
    RETRY_SECONDS_MAX,
    SAYING_CHARACTERS_MAX,
    hide_names,
    hide_places,
    lacks_endpoint,
    neuron_refusal,
    read_complaint,
    told_status,
)
from cortexd.dialects.refusals import TABLE, RefusalKind, code_of, render

ENVELOPE = b'{"error":{"message":"no such thing","type":"BadRequestError","code":400}}'


@pytest.mark.parametrize(
    ("status", "kind", "client_status"),
    [
        (400, RefusalKind.NEURON_REJECTED, 400),
        (401, RefusalKind.UPSTREAM_AUTH_FAILED, 502),
        (402, RefusalKind.UPSTREAM_FAILED, 502),
        (403, RefusalKind.UPSTREAM_AUTH_FAILED, 502),
        (404, RefusalKind.ENDPOINT_NOT_SERVED, 400),
        (405, RefusalKind.ENDPOINT_NOT_SERVED, 400),
        (408, RefusalKind.UPSTREAM_TIMEOUT, 504),
        (413, RefusalKind.REQUEST_TOO_LARGE, 413),
        (415, RefusalKind.UPSTREAM_FAILED, 502),
        (422, RefusalKind.NEURON_UNPROCESSABLE, 422),
        (429, RefusalKind.OVERLOADED, 503),
        (302, RefusalKind.UPSTREAM_FAILED, 502),
        (500, RefusalKind.UPSTREAM_FAILED, 502),
        (501, RefusalKind.ENDPOINT_NOT_SERVED, 400),
        (503, RefusalKind.OVERLOADED, 503),
        (504, RefusalKind.UPSTREAM_TIMEOUT, 504),
        (529, RefusalKind.OVERLOADED, 503),
    ],
)
@pytest.mark.parametrize("body", [ENVELOPE, b"", b"<html>busy</html>", b"[" * 9000])
def test_a_neurons_status_is_told_as_ours(
    status: int, kind: RefusalKind, client_status: int, body: bytes
) -> None:
    refusal = neuron_refusal(status, body)
    assert refusal.kind is kind
    assert TABLE[kind].status == client_status
    assert refusal.message
    assert b"<html>" not in render(refusal, request_id="r").body


@pytest.mark.parametrize(
    "body",
    [
        ENVELOPE,
        b'{"object":"error","message":"no such thing","type":"BadRequest","code":400}',
        b'{"error":"no such thing"}',
        b'{"detail":"no such thing"}',
        b'{"message":"no such thing"}',
    ],
)
def test_every_shape_of_error_keeps_its_message(body: bytes) -> None:
    refusal = neuron_refusal(400, body)
    assert refusal.message == "The neuron rejected the request: no such thing"
    assert code_of(refusal) == "neuron_rejected"


def test_a_code_in_words_and_a_param_are_kept() -> None:
    error = {"message": "x", "code": "vision_unsupported", "param": "messages", "type": "y"}
    refusal = neuron_refusal(400, json.dumps({"error": error}).encode())
    assert (code_of(refusal), refusal.param) == ("vision_unsupported", "messages")
    flat = neuron_refusal(422, b'{"error":"x","code":"template_render_failed"}')
    assert code_of(flat) == "template_render_failed"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            {"type": "exceed_context_size_error", "n_prompt_tokens": 5000, "n_ctx": 4096},
            "maximum context length is 4096 tokens. However, your messages resulted in 5000 tok",
        ),
        (
            {"code": "context_length_exceeded", "prompt_len": 9, "max": 8},
            "maximum context length is 8 tokens. However, your messages resulted in 9 tokens",
        ),
        (
            {"message": "This model's maximum context length is 8 tokens. However, ..."},
            "This model's maximum context length is 8 tokens. However, ...",
        ),
        ({"message": "the request exceeds the available context size"}, "available context size"),
        ({"code": "context_length_exceeded", "n_ctx": -1}, "maximum context length"),
    ],
)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_prompt_beyond_the_context_is_told_in_the_words_that_clients_know(
    status: int, error: dict[str, object], words: str
) -> None:
    refusal = neuron_refusal(status, json.dumps({"error": error}).encode())
    assert refusal.kind is RefusalKind.CONTEXT_LENGTH_EXCEEDED
    assert words in refusal.message


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        (None, 1),
        ("5", 5),
        (b" 7 ", 7),
        ("0", 1),
        ("-3", 1),
        ("99999", RETRY_SECONDS_MAX),
        ("9" * 5000, 1),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 1),
        (b"\xb2", 1),
    ],
)
def test_a_neurons_retry_after_is_believed_within_reason(
    retry_after: str | bytes | None, seconds: int
) -> None:
    assert neuron_refusal(503, b"{}", retry_after).retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("see http://beast.internal:13131/v1/x now", f"see {HIDDEN} now"),
        ("cannot reach beast:13131", f"cannot reach {HIDDEN}"),
        ("at 10.0.0.7 and 10.0.0.7:80", f"at {HIDDEN} and {HIDDEN}"),
        ("at [fe80::1%eth0]:8000", f"at {HIDDEN}"),
        ("at 2001:db8::7, fe80::1%eth0 or ::1.", f"at {HIDDEN}, {HIDDEN} or {HIDDEN}."),
        ("at ::ffff:10.0.0.7 and fd00::", f"at {HIDDEN} and {HIDDEN}"),
        ("at 2001:0db8:0:0:0:ff00:42:8329", f"at {HIDDEN}"),
        ("std::bad_alloc in a :: b at 7:5:3", None),
        ("beast.lan is down", f"{HIDDEN} is down"),
        ("localhost refused", f"{HIDDEN} refused"),
        ("HTTPConnectionPool(host='beast', port=1)", f"HTTPConnectionPool({HIDDEN}, port=1)"),
        ("model Qwen2.5-7B.gguf of llama3:70b, 3.5 tokens", None),
        ("max_tokens: 4096 is above 1:2", None),
        ("two\r\nlines\x00", "two lines"),
    ],
)
def test_addresses_are_hidden_and_other_words_are_not(text: str, hidden: str | None) -> None:
    assert hide_places(text) == (text if hidden is None else hidden)


@given(st.text(st.sampled_from("a.b:1-[/%'=h "), max_size=3000))
def test_hiding_is_quick_and_short_for_any_text(text: str) -> None:
    assert len(hide_places(text)) <= SAYING_CHARACTERS_MAX


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "type", "param", "detail", "n_ctx"]), inner
        )
    ),
    max_leaves=8,
)


@pytest.mark.slow
@given(JSON, st.integers(300, 599))
def test_any_error_body_is_survived(body: object, status: int) -> None:
    assert read_complaint(body) == read_complaint(body)
    refusal = neuron_refusal(status, json.dumps(body).encode())
    assert render(refusal, request_id="r").status in (400, 413, 422, 502, 503, 504)


NO_PATH = (
    b"",
    b"404 page not found",
    b'{"detail":"Not Found"}',
    b'{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}',
)
NO_MODEL = (
    b'{"error":{"message":"The model `m` does not exist.","type":"NotFoundError","code":404}}',
    b'{"error":{"message":"not loaded","code":"model_not_found"}}',
    b'{"error":"model \'m\' not found"}',
)


@pytest.mark.parametrize("body", NO_PATH)
def test_a_404_that_does_not_name_the_model_is_about_the_path(body: bytes) -> None:
    """Taken for a missing model, it would have a healthy model loaded again and again."""
    assert lacks_endpoint(404, body)
    refusal = neuron_refusal(404, body)
    assert refusal.kind is RefusalKind.ENDPOINT_NOT_SERVED


@pytest.mark.parametrize(
    ("status", "message", "meant"),
    [
        (400, "model is not loaded", 404),
        (400, "model is not running", 404),
        (400, "model 'org/a' not found", 404),
        (400, "the model is not loaded with vision", 400),
        (400, "", 400),
        (500, "model is not loaded", 500),
    ],
)
def test_a_router_says_400_for_a_model_that_has_left(status: int, message: str, meant: int) -> None:
    """Taken at its word, a client would be told to mend a request that is fine."""
    body = json.dumps({"error": {"code": 400, "message": message, "type": "x"}}).encode()
    assert told_status(status, body) == meant


@pytest.mark.parametrize("body", NO_MODEL)
def test_a_404_that_names_the_model_is_about_the_model(body: bytes) -> None:
    assert not lacks_endpoint(404, body)
    assert neuron_refusal(404, body).kind is RefusalKind.NO_NEURON


@pytest.mark.parametrize(
    ("status", "lacks"), [(405, True), (501, True), (400, False), (503, False)]
)
def test_other_statuses_say_it_by_themselves(status: int, lacks: bool) -> None:
    assert lacks_endpoint(status, ENVELOPE) == lacks


@pytest.mark.parametrize(
    ("told", "names", "shown"),
    [
        ("It failed: Beast says no, beast.", ["beast"], "It failed: HID says no, HID."),
        ("It failed: on gpu-7.example.org", ["gpu-7.example.org"], "It failed: on HID"),
        ("It failed: on gpu-7.example.org", ["gpu-7", "gpu-7.example.org"], "It failed: on HID"),
        ("It failed: beasts, my-beast, beast.x", ["beast"], None),
        ("It failed: at ::1", ["::1"], "It failed: at HID"),
        ("It failed: key=sk-a+b/c= is wrong", ["h", "sk-a+b/c="], "It failed: key=HID is wrong"),
        ("The neuron failed.", ["neuron"], None),
        ("The neuron failed: no neuron", ["neuron"], "The neuron failed: no HID"),
        ("It failed: beast", [], None),
    ],
)
def test_a_neurons_own_host_and_key_are_known_by_name(
    told: str, names: list[str], shown: str | None
) -> None:
    assert hide_names(told, names) == (shown or told).replace("HID", HIDDEN)
