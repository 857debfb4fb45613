"""What the engines do with a request, as far as they differ: facts, by kind of neuron.

Owns one table. The body for a neuron is written by it, and what comes back is read by it. Refuses
to know how engines are polled and told to load (fleet/engines). Where an engine's behaviour is not
known for certain, the fact that costs least if it is wrong stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from cortexd.dialects.fields import ENGINES_OWN

_NONE: frozenset[str] = frozenset()


class Count(msgspec.Struct, frozen=True):
    """How an engine counts the prompt of a chat: where, by which fields of the chat (empty: all of
    them), and under which name the answer has it.
    """

    path: str
    answer: str
    fields: frozenset[str] = _NONE


class Traits(msgspec.Struct, frozen=True):
    """One kind of engine.

    `chat_limits`: the names under which a chat is told its output limit, all with the same number.
    `withheld`: fields of the closed lists that it is not sent, because it has no such field.
    `token_per_event`: it promises one token for each event of a stream.
    `stops_plain`: a hang-up stops it in the middle of a plain answer, too; if not, every answer is
    asked for as a stream. `counts_every_choice`: its usage counts all answers to a request.
    `query`: what is added to the path of every request. `count`: None: it counts no prompts.
    """

    chat_limits: tuple[str, ...] = ("max_tokens",)
    withheld: frozenset[str] = _NONE
    token_per_event: bool = False
    stops_plain: bool = False
    counts_every_choice: bool = False
    query: str = ""
    count: Count | None = None


_SAMPLING = {"ignore_eos", "min_p", "top_k"}
_LLAMA_CPP = _SAMPLING | {
    "adaptive_decay",
    "adaptive_target",
    "add_generation_prompt",
    "continue_final_message",
    "dry_allowed_length",
    "dry_base",
    "dry_multiplier",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "dynatemp_exponent",
    "dynatemp_range",
    "grammar",
    "min_keep",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "parse_tool_calls",
    "reasoning_format",
    "repeat_last_n",
    "repeat_penalty",
    "samplers",
    "thinking_budget_tokens",
    "top_n_sigma",
    "typical_p",
    "xtc_probability",
    "xtc_threshold",
}
_VLLM_AND_SGLANG = _SAMPLING | {
    "continue_final_message",
    "min_tokens",
    "repetition_penalty",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "stop_token_ids",
}
_VLLM = _VLLM_AND_SGLANG | {
    "add_generation_prompt",
    "allowed_token_ids",
    "bad_words",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "guided_whitespace_pattern",
    "include_reasoning",
    "include_stop_str_in_output",
    "structured_outputs",
    "thinking_token_budget",
}
_SGLANG = _VLLM_AND_SGLANG | {
    "ebnf",
    "no_stop_trim",
    "regex",
    "separate_reasoning",
    "stop_regex",
    "stream_reasoning",
}

_TOKENIZED = frozenset(
    {
        "add_generation_prompt",
        "chat_template_kwargs",
        "continue_final_message",
        "messages",
        "model",
        "tools",
    }
)

BOTH_LIMITS = ("max_tokens", "max_completion_tokens")
"""Where both are known, each version obeys one of them: equal numbers bind them all."""

_LLAMA = Traits(
    chat_limits=BOTH_LIMITS,
    withheld=ENGINES_OWN - _LLAMA_CPP,
    stops_plain=True,
    count=Count("/v1/chat/completions/input_tokens", "input_tokens"),
)

ANY_ENGINE = Traits()
"""What is safe with any engine: one limit, under the one name that every engine reads, and streams
only."""

TRAITS: Mapping[str, Traits] = MappingProxyType(
    {
        "neuron": Traits(token_per_event=True, stops_plain=True),
        "llama-server": _LLAMA,
        # Without it, a request for a model that has just left would load it and evict another.
        "llama-router": msgspec.structs.replace(_LLAMA, query="?autoload=false"),
        "llama-swap": ANY_ENGINE,
        "vllm": Traits(
            chat_limits=BOTH_LIMITS,
            withheld=ENGINES_OWN - _VLLM,
            stops_plain=True,
            counts_every_choice=True,
            count=Count("/tokenize", "count", _TOKENIZED),
        ),
        "sglang": Traits(
            chat_limits=BOTH_LIMITS,
            withheld=ENGINES_OWN - _SGLANG,
            stops_plain=True,
            counts_every_choice=True,
        ),
        "ollama": Traits(withheld=ENGINES_OWN, stops_plain=True),
        "lmstudio": ANY_ENGINE,
        "mistralrs": ANY_ENGINE,  # two names for the limit are an error there
        "tabby": ANY_ENGINE,
        "openai": ANY_ENGINE,
    }
)
"""By kind, as the configuration calls them."""


def sent_fields(fields: Mapping[str, msgspec.Raw], engine: Traits) -> Mapping[str, msgspec.Raw]:
    """The fields of a request that this engine is sent."""
    if engine.withheld.isdisjoint(fields):
        return fields
    return {name: raw for name, raw in fields.items() if name not in engine.withheld}
