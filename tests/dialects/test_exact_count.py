"""What an engine is asked in order to count a prompt, and which answers are believed."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.engine_traits import TRAITS, Count
from cortexd.dialects.exact_count import question, read_count, uncounted_tokens

CHAT = json.dumps(
    {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [],
        "max_tokens": 8,
        "temperature": 0.5,
        "stream": False,
    }
).encode()
COUNT = Count("/count", "count")


def test_llama_cpp_is_asked_the_chat_itself_and_vllm_what_its_template_reads() -> None:
    llama, vllm = TRAITS["llama-server"].count, TRAITS["vllm"].count
    assert llama is not None
    assert vllm is not None
    assert question(CHAT, llama) == CHAT
    assert json.loads(question(CHAT, vllm)).keys() == {"model", "messages", "tools"}


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 0),
        ({"n": 2, "temperature": 0.5, "stop": ["x"]}, 0),
        ({"tools": [{"type": "function"}], "chat_template_kwargs": {"style": "x"}}, 0),
        ({"tool_choice": "auto", "function_call": "none"}, len('"auto""none"')),
        ({"reasoning_effort": "high"}, None),
        ({"documents": [{"text": "d"}]}, None),
        ({"let_through_by_the_operator": 1}, None),
    ],
)
def test_what_a_question_cannot_hold_is_bounded_by_its_bytes_or_not_at_all(
    fields: dict[str, object], tokens: int | None
) -> None:
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()}
    vllm, llama = TRAITS["vllm"].count, TRAITS["llama-server"].count
    assert vllm is not None
    assert llama is not None
    assert uncounted_tokens({"messages": msgspec.Raw(b"[]"), **raw}, vllm) == tokens
    assert uncounted_tokens(raw, llama) == 0, "it is asked the chat itself"


def test_only_kinds_that_apply_the_template_count() -> None:
    assert {kind for kind, traits in TRAITS.items() if traits.count is not None} == {
        "llama-server",
        "llama-router",
        "vllm",
    }


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"count":20}', 20),
        (b'{"count":5}', 5),
        (b'{"count":4}', None),
        (b'{"count":0}', None),
        (b'{"count":-1}', None),
        (b'{"count":20.0}', None),
        (b'{"count":true}', None),
        (b'{"count":"20"}', None),
        (b'{"count":9007199254740993}', None),
        (b'{"tokens":20}', None),
        (b"[20]", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_a_count_below_what_a_prompt_is_sure_to_come_to_is_not_believed(
    body: bytes, tokens: int | None
) -> None:
    assert read_count(body, COUNT, least=5) == tokens


@given(st.binary())
def test_any_answer_is_a_count_or_none(body: bytes) -> None:
    tokens = read_count(body, COUNT, least=0)
    assert tokens is None or tokens >= 1
