"""What an engine is asked in order to count a prompt, and which answers are believed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.engine_traits import TRAITS, Count
from cortexd.dialects.exact_count import question, read_count

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
