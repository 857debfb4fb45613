"""Bodies as each kind of engine gets them, held against what real engines were seen to obey.

`OBEYS` are the readings of real engines, faults included, each as a function from a body to the
tokens that are generated in all: llama.cpp lets its own fields win, llama-cpp-python does not know
`max_completion_tokens`, transformers prefers it, mistral.rs takes two spellings for an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.config.schema import NeuronKind
from cortexd.dialects.asked import Asked
from cortexd.dialects.chat import Chat
from cortexd.dialects.completions import Completions
from cortexd.dialects.engine_traits import ANY_ENGINE, BOTH_LIMITS, TRAITS, Traits
from cortexd.dialects.fields import ENGINES_OWN, HARMLESS, NEVER_FORWARDED
from cortexd.dialects.messages import Messages
from cortexd.dialects.responses import Responses
from cortexd.dialects.surface import Surface, Target
from tests.dialects.surfaces import UNKNOWN, document, understood

LIMIT = 8
CONTEXT = 4_072
"""What an engine generates that was told no limit."""

Sent = Mapping[str, object]
KINDS = get_args(NeuronKind)


def count(sent: Sent, *names: str) -> int:
    """The number under the first of these names that is there; the whole context if none is."""
    numbers = [sent[name] for name in names if sent.get(name) is not None]
    number = numbers[0] if numbers else -1
    assert isinstance(number, int)
    return CONTEXT if number < 0 else number


def llama_server(sent: Sent) -> int:
    """Its own names win, and it has its own for the number of answers, too."""
    tokens = count(sent, "n_predict", "max_completion_tokens", "max_tokens")
    return max(tokens, 1) * count({"n": 1, **sent}, "n_cmpl", "n")


def llama_cpp_python(sent: Sent) -> int:
    """Knows one name, and takes 0 for no limit."""
    return count(sent, "max_tokens") or CONTEXT


def transformers(sent: Sent) -> int:
    """Prefers the newer name."""
    return count(sent, "max_completion_tokens", "max_tokens")


def mistralrs(sent: Sent) -> int:
    """Both names are one field to it, and a field must not come twice."""
    assert not set(BOTH_LIMITS) <= sent.keys(), "duplicate field"
    return count(sent, *BOTH_LIMITS)


def tabby(sent: Sent) -> int:
    """Has a third name."""
    return count(sent, "max_length", *BOTH_LIMITS)


def ollama(sent: Sent) -> int:
    """Knows one name; its own come in `options`."""
    assert "options" not in sent
    return count(sent, "max_tokens")


ANYTHING = (llama_server, llama_cpp_python, transformers, mistralrs, tabby, ollama)
OBEYS: Mapping[str, tuple[Callable[[Sent], int], ...]] = {
    "neuron": ANYTHING,
    "openai": ANYTHING,
    "llama-swap": ANYTHING,
    "llama-server": (llama_server,),
    "llama-router": (llama_server,),
    "vllm": (transformers,),
    "sglang": (transformers,),
    "ollama": (ollama,),
    "lmstudio": (llama_cpp_python, llama_server),
    "mistralrs": (mistralrs,),
    "tabby": (tabby,),
}

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
PROMPT = {"model": "m", "prompt": "hi"}
TRICKS: list[dict[str, object]] = [
    {"max_tokens": LIMIT},
    {"max_completion_tokens": LIMIT},
    {"max_tokens": LIMIT, "max_completion_tokens": 64},
    {"max_tokens": 64, "max_completion_tokens": LIMIT},
    {"max_tokens": LIMIT, "n_predict": 64},
    {"max_tokens": LIMIT, "n_predict": -1},
    {"max_tokens": LIMIT, "n_cmpl": 3},
    {"max_tokens": LIMIT, "n": 3},
    {"max_tokens": LIMIT, "max_length": 64, "num_predict": 64, "max_new_tokens": 64},
    {"max_tokens": LIMIT, "best_of": 9, "use_beam_search": True},
    {"max_tokens": LIMIT, "options": {"num_predict": -1}},
    {"max_tokens": None, "max_completion_tokens": LIMIT},
    {},
]


def sent_to(kind: str, surface: Surface, body: dict[str, object]) -> tuple[Asked, Sent]:
    """What is asked, and what a neuron of this kind gets."""
    request = understood(surface, document(body))
    target = Target("there", LIMIT, TRAITS[kind], stream=request.asked.stream)
    return request.asked, json.loads(request.write(UNKNOWN, target).body)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trick", TRICKS, ids=str)
def test_no_engine_generates_more_than_was_reserved(kind: str, trick: dict[str, object]) -> None:
    for surface, base in ((Chat(), CHAT), (Completions(), PROMPT)):
        asked, sent = sent_to(kind, surface, {**base, **trick})
        for obeys in OBEYS[kind]:
            assert obeys(sent) <= LIMIT * asked.choices, obeys.__name__


@given(
    st.dictionaries(
        st.sampled_from([*BOTH_LIMITS, *sorted(NEVER_FORWARDED), "n"]), st.integers(1, 2**31 - 1)
    ),
    st.sampled_from(KINDS),
)
def test_every_number_that_an_engine_could_take_for_its_limit_is_the_limit(
    numbers: dict[str, object], kind: str
) -> None:
    numbers = {**numbers, "n": min(int(str(numbers.get("n", 1))), 8)}
    asked, sent = sent_to(kind, Chat(), {**CHAT, **numbers})
    limits = {name: sent[name] for name in sent if name in (*BOTH_LIMITS, *NEVER_FORWARDED)}
    assert limits == dict.fromkeys(TRAITS[kind].chat_limits, LIMIT)
    assert sent.get("n", 1) == asked.choices


def test_two_names_are_written_only_where_both_are_known() -> None:
    both = {kind for kind in KINDS if TRAITS[kind].chat_limits == BOTH_LIMITS}
    assert both == {"llama-server", "llama-router", "vllm", "sglang"}
    assert all("max_tokens" in TRAITS[kind].chat_limits for kind in KINDS)


def test_a_message_and_a_response_are_written_by_the_same_traits() -> None:
    body = {**CHAT, "max_tokens": LIMIT, "top_k": 5}
    _, sent = sent_to("vllm", Messages(), body)
    assert (sent["max_tokens"], sent["max_completion_tokens"], sent["top_k"]) == (LIMIT, LIMIT, 5)
    response = {"model": "m", "input": "hi", "max_output_tokens": 3, "top_k": 5}
    assert sent_to("vllm", Responses(), response)[1]["max_output_tokens"] == LIMIT
    assert "top_k" not in sent_to("ollama", Responses(), response)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_gets_the_fields_of_others_only_where_it_may_be_any(kind: str) -> None:
    everything = dict.fromkeys(sorted(ENGINES_OWN), 1) | {"temperature": 0.5, "seed": 3}
    _, sent = sent_to(kind, Chat(), {**CHAT, **everything})
    assert sent.keys() & ENGINES_OWN == ENGINES_OWN - TRAITS[kind].withheld
    assert (sent["temperature"], sent["seed"]) == (0.5, 3)


def test_every_kind_has_its_traits_and_withholds_only_what_is_on_the_list() -> None:
    assert set(TRAITS) == set(KINDS)
    for traits in TRAITS.values():
        assert isinstance(traits, Traits)
        assert traits.withheld <= ENGINES_OWN < HARMLESS
    assert TRAITS["llama-server"].withheld.isdisjoint({"grammar", "top_k"})
    assert "ebnf" in TRAITS["vllm"].withheld
    assert not ANY_ENGINE.withheld
