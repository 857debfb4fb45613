"""Which fields of a chat request may reach a neuron.

A closed list, because an open one has no bottom: every engine reads fields of its own beside
OpenAI's, and each release adds some that override the output limit (`n_predict`), multiply the
work (`best_of`, `n_cmpl`), expand the prompt (`chat_template`, `documents` by reference), run
loops inside the engine (`web_search_options`, `session_id`) or steer what belongs to the operator
(`priority`, `keep_alive`, `cache_salt`, `lora_path`). What is not named here is taken out and
listed in `Asked.dropped`; an operator who knows better names it in `gateway.forward_fields`.
Refuses to know values: `openai.py` checks those.
"""

from __future__ import annotations

OUTPUT_LIMITS = ("max_tokens", "max_completion_tokens")
"""OpenAI's spellings of the output limit; the smaller one counts, and `max_tokens` is forwarded."""

NATIVE_OUTPUT_LIMITS = (
    "max_output_tokens",
    "max_new_tokens",
    "max_length",
    "n_predict",
    "num_predict",
)
"""Engines' own spellings. Never forwarded; a positive number in one still lowers the limit."""

NEVER_FORWARDED = frozenset((*NATIVE_OUTPUT_LIMITS, "n_cmpl", "best_of", "use_beam_search"))
"""Fields that break the bound, so that not even `forward_fields` lets them through."""

READ_HERE = frozenset(("model", "messages", "n", "stream", "stream_options", *OUTPUT_LIMITS))
"""Fields that cortexd reads itself and writes (or does not write) by its own rules."""

RENDERED = frozenset(
    {
        "chat_template_kwargs",
        "documents",
        "function_call",
        "functions",
        "json_schema",
        "reasoning_effort",
        "response_format",
        "tool_choice",
        "tools",
    }
)
"""Forwarded, and possibly written into the prompt: their bytes count."""

_OPENAI = {
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "parallel_tool_calls",
    "presence_penalty",
    "seed",
    "stop",
    "temperature",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
}

_SAMPLING = {
    "adaptive_decay",
    "adaptive_target",
    "allowed_token_ids",
    "bad_words",
    "dry_allowed_length",
    "dry_base",
    "dry_multiplier",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "dynatemp_exponent",
    "dynatemp_range",
    "ignore_eos",
    "include_stop_str_in_output",
    "min_keep",
    "min_p",
    "min_tokens",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "no_stop_trim",
    "repeat_last_n",
    "repeat_penalty",
    "repetition_penalty",
    "samplers",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "stop_regex",
    "stop_token_ids",
    "top_k",
    "top_n_sigma",
    "typical_p",
    "xtc_probability",
    "xtc_threshold",
}

_GUIDED = {
    "ebnf",
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "guided_whitespace_pattern",
    "regex",
    "structured_outputs",
}

_REASONING = {
    "include_reasoning",
    "reasoning_format",
    "separate_reasoning",
    "stream_reasoning",
    "thinking_budget_tokens",
    "thinking_token_budget",
}

_TEMPLATE_SWITCHES = {"add_generation_prompt", "continue_final_message", "parse_tool_calls"}

HARMLESS = frozenset(_OPENAI | _SAMPLING | _GUIDED | _REASONING | _TEMPLATE_SWITCHES)
"""Forwarded, and never part of the prompt: they choose among tokens that are paid for anyway."""

ENGINES_OWN = frozenset(_SAMPLING | _GUIDED | _REASONING | _TEMPLATE_SWITCHES)
"""Fields that some engines have beside OpenAI's; which has which is in `engine_traits.py`."""

TEMPLATE_KWARGS_REMOVED = frozenset(
    {
        "add_special_tokens",
        "chat_template",
        "conversation",
        "max_length",
        "messages",
        "padding",
        "prompt_template",
        "return_dict",
        "return_tensors",
        "template",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)
"""Keys of `chat_template_kwargs` that are arguments of the call that applies the template.

Engines hand these on by name, so that a template, or a slow call, could come in by the back door
(https://nvd.nist.gov/vuln/detail/CVE-2025-62426).
"""

TEMPLATE_MARK_ENDINGS = ("_token", "_tokens")
"""How keys of `chat_template_kwargs` end that stand for marks of the model's own: `eos_token`.

Engines let them win over the tokenizer's, and templates write them after every message
(https://huggingface.co/docs/transformers/chat_templating_writing).
"""
