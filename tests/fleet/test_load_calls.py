"""What is asked of a neuron, and how its answers are read: every row of the protocol, and worse."""

from __future__ import annotations

import json

import pytest

from cortexd.fleet.load_calls import (
    TEXT_CHARACTERS_MAX,
    LoadSpec,
    load_body,
    load_failure,
    read_capabilities,
    shown,
    unload_body,
    unload_failure,
)
from cortexd.fleet.reports import ModelId

A = ModelId("org/a")
GARBAGE = [b"", b"<html>", b"[]", b'"loaded"', b"\xff", b"null", b"[" * 10_000, b'{"status":7}']


def test_a_load_says_what_is_known_and_leaves_the_rest_to_the_neuron() -> None:
    assert json.loads(load_body(LoadSpec(A))) == {"model_id": "org/a", "harness": "candle"}
    spec = LoadSpec(A, "huggingface", "vllm", "q6k", tensor_parallel=2, devices=(0, 3))
    assert json.loads(load_body(spec)) == {
        "model_id": "huggingface:org/a",
        "harness": "vllm",
        "quant": "q6k",
        "tensor_parallel": 2,
        "devices": [0, 3],
    }


def test_an_unload_names_the_model_without_its_source() -> None:
    assert json.loads(unload_body(A)) == {"model_id": "org/a"}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b'{"status":"loaded"}'),
        (200, b'{"status":"loaded","took_ms":5}'),
        (400, b'{"error":"model org/a already loaded"}'),
        (400, b'{"error":{"message":"Already loaded"}}'),
    ],
)
def test_a_model_that_is_resident_is_a_success(status: int, body: bytes) -> None:
    assert load_failure(status, body) is None


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (
            422,
            b'{"error":{"kind":"repo_fetch_failed","model_id":"m"}}',
            "its weights cannot be fetched (repo_fetch_failed)",
        ),
        (
            422,
            b'{"error":{"kind":"empty_repo","message":"no files in m"}}',
            "there are no weights where they should come from (empty_repo): no files in m",
        ),
        (
            422,
            b'{"error":{"kind":"tp_requires_safetensors"}}',
            "only safetensors weights can be split over several cards (tp_requires_safetensors)",
        ),
        (
            422,
            b'{"error":{"kind":"quant_not_found","detail":"q9"}}',
            "there are no weights in the wanted quant (quant_not_found): q9",
        ),
        (422, b'{"error":{"kind":"moon\\n"}}', "it cannot be loaded (moon)"),
        (
            422,
            b'{"error":{"message":"missing field","code":"invalid_request_body"}}',
            "it cannot be loaded (422): missing field",
        ),
        (422, b"<html>", "it cannot be loaded (422)"),
    ],
)
def test_a_422_is_permanent_and_told_in_words(status: int, body: bytes, reason: str) -> None:
    failure = load_failure(status, body)
    assert failure is not None
    assert (failure.reason, failure.permanent, failure.cuda_unavailable) == (reason, True, False)


def test_a_neuron_without_cuda_is_told_apart_and_not_given_up_for_good() -> None:
    failure = load_failure(503, b'{"error":"driver mismatch","code":"cuda_unavailable"}')
    assert failure is not None
    assert (failure.permanent, failure.cuda_unavailable) == (False, True)
    assert failure.reason == "it cannot use CUDA until that machine is rebooted: driver mismatch"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, b'{"error":"insufficient VRAM"}', "status 400: insufficient VRAM"),
        (500, b'{"error":"boom"}', "status 500: boom"),
        (500, b'{"error":"model already loaded"}', "status 500: model already loaded"),
        (503, b'{"error":"later"}', "status 503: later"),
        (503, b'{"error":"later","code":["cuda_unavailable"]}', "status 503: later"),
        (404, b"no such page", "status 404"),
        (200, b'{"status":"loading"}', "status 200 and not that it is done: loading"),
        (200, b'{"status":"Loaded"}', "status 200 and not that it is done: Loaded"),
        *((200, garbage, "status 200 and not that it is done") for garbage in GARBAGE),
        *((500, garbage, "status 500") for garbage in GARBAGE),
    ],
)
def test_all_else_may_work_the_next_time(status: int, body: bytes, reason: str) -> None:
    failure = load_failure(status, body)
    assert failure is not None
    assert failure.reason == f"/models/load answered with {reason}"
    assert (failure.permanent, failure.cuda_unavailable) == (False, False)


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b'{"status":"unloaded"}'), (404, b'{"error":"model org/a not loaded"}')],
)
def test_a_model_that_is_not_resident_any_more_is_unloaded(status: int, body: bytes) -> None:
    assert unload_failure(status, body) is None


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, b'{"error":"missing model_id"}', "status 400: missing model_id"),
        (404, b'{"error":"no such endpoint"}', "status 404: no such endpoint"),
        (404, b"", "status 404"),
        (500, b'{"error":"not loaded"}', "status 500: not loaded"),
        (200, b'{"status":"draining"}', "status 200 and not that it is done: draining"),
        *((200, garbage, "status 200 and not that it is done") for garbage in GARBAGE),
    ],
)
def test_all_else_may_have_left_the_model_where_it_was(
    status: int, body: bytes, reason: str
) -> None:
    failure = unload_failure(status, body)
    assert failure is not None
    assert failure.reason == f"/models/unload answered with {reason}"


@pytest.mark.parametrize(
    ("status", "body", "capabilities"),
    [
        (200, b'{"capabilities":["text","vision"]}', ("text", "vision")),
        (200, b'{"capabilities":[]}', ()),
        (200, b'{"capabilities":["text",1]}', None),
        (200, b'{"capabilities":"text"}', None),
        (200, b"{}", None),
        (404, b'{"error":"this node cannot tell"}', None),
        (404, b'{"capabilities":["text"]}', None),
        *((200, garbage, None) for garbage in GARBAGE),
    ],
)
def test_capabilities_are_known_or_not(
    status: int, body: bytes, capabilities: tuple[str, ...] | None
) -> None:
    assert read_capabilities(status, body) == capabilities


@pytest.mark.parametrize(
    ("said", "repeated"),
    [
        ("plain", "plain"),
        ("a\r\nevent=ready\tb", "a event=ready b"),
        ('x" do="rm \\', "x' do='rm /"),
        ("\x1b[31mred\u202e", "[31mred"),
        ("größe 5 µs", "größe 5 µs"),
        ("\n \n", ""),
        ("x" * TEXT_CHARACTERS_MAX, "x" * TEXT_CHARACTERS_MAX),
        ("x" * 10_000, "x" * (TEXT_CHARACTERS_MAX - 3) + "..."),
    ],
)
def test_a_neurons_text_stays_on_its_line_between_its_quotes(said: str, repeated: str) -> None:
    assert shown(said) == repeated
    failure = load_failure(500, json.dumps({"error": said}).encode())
    assert failure is not None
    suffix = f": {repeated}" if repeated else ""
    assert failure.reason == f"/models/load answered with status 500{suffix}"
