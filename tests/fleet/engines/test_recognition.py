"""What a server is, by what it answers: every kind by the bodies that the other tests play."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.config.schema import NeuronKind
from cortexd.fleet.engines.recognition import QUESTIONS, Answers, Told, recognize
from tests.fleet.engines import test_llama_server, test_lmstudio
from tests.fleet.engines import test_vllm_and_sglang as vllm
from tests.fleet.engines.recorded import Reply
from tests.fleet.engines.test_llama_router import models as router_models
from tests.fleet.engines.test_llama_swap import MODELS as SWAP_MODELS
from tests.fleet.engines.test_llama_swap import running
from tests.fleet.engines.test_mistralrs_and_tabby import CARDS, listed

SERVICE = (200, {"version": 0.1, "software": {"name": "TabbyAPI", "repository": "x"}})
KOBOLD = (200, {"version": 0.2, "software": {"name": "KoboldCpp"}})
DISCOVERY = (200, {"hostname": "h", "devices": [], "harnesses": ["candle"]})
ROUTER_PROPS = (200, {"role": "router", "max_instances": 1})
SYSTEM = (200, {"os": "linux"})
LISTED = (200, {"object": "list", "data": []})

SERVERS: list[tuple[NeuronKind, Mapping[str, Reply]]] = [
    ("neuron", {"/discovery": DISCOVERY, "/v1/models": LISTED}),
    (
        "llama-server",
        {"/v1/models": test_llama_server.MODELS, "/props": test_llama_server.PROPS},
    ),
    ("llama-router", {"/v1/models": router_models(), "/props": ROUTER_PROPS}),
    ("llama-router", {"/v1/models": router_models(a="unloaded")}),
    ("llama-swap", {"/v1/models": SWAP_MODELS, "/running": running()}),
    ("vllm", {"/v1/models": vllm.MODELS}),
    ("sglang", {"/v1/models": vllm.SGLANG["GET /v1/models"]}),
    ("sglang", {"/v1/models": LISTED, "/get_model_info": (200, {"model_path": "org/a"})}),
    ("ollama", {"/v1/models": LISTED, "/api/version": (200, {"version": "0.12"})}),
    ("lmstudio", {"/v1/models": LISTED, "/api/v1/models": test_lmstudio.models()}),
    ("mistralrs", {"/v1/models": listed(a="loaded")}),
    ("mistralrs", {"/v1/models": LISTED, "/v1/system/info": SYSTEM}),
    (
        "tabby",
        {
            "/v1/models": CARDS,
            "/.well-known/serviceinfo": SERVICE,
            "/props": test_llama_server.PROPS,
        },
    ),
    ("openai", {"/v1/models": LISTED, "/.well-known/serviceinfo": KOBOLD}),
]


def answers(replies: Mapping[str, Reply]) -> Answers:
    """Answers as they are judged; what was not scripted is a 404."""
    told = dict.fromkeys(QUESTIONS, Told(404, {"detail": "Not Found"}))
    for path, (status, body) in replies.items():
        assert path in QUESTIONS, "nobody would ask that"
        told[path] = Told(status, json.loads(body) if isinstance(body, str) else body)
    return told


@pytest.mark.parametrize(("kind", "replies"), SERVERS)
def test_every_kind_is_recognized(kind: NeuronKind, replies: Mapping[str, Reply]) -> None:
    recognized = recognize(answers(replies))
    assert recognized.kind == kind, recognized.why
    assert recognized.why


def test_what_is_no_neuron_is_told_apart_from_what_wants_a_key_and_from_nothing() -> None:
    assert recognize({}).why == "no whole answer came from there"
    assert "has no list of models" in recognize(answers({})).why
    refused = recognize(answers({"/v1/models": (401, {"error": "Unauthorized"})}))
    assert (refused.kind, refused.why) == (None, "it wants a key: /v1/models")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "models", "status", "software", "name", "running", "role"]),
            inner,
            max_size=3,
        )
    ),
)


@given(st.dictionaries(st.sampled_from(QUESTIONS), st.builds(Told, st.just(200), VALUES)))
def test_any_answers_can_be_judged(told: dict[str, Told]) -> None:
    recognized = recognize(told)
    assert recognized.why
    assert recognized.kind is None or told
