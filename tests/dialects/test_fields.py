"""The closed list: what reaches a neuron, what does not, and what counts as prompt."""

import json

import pytest

from cortexd.dialects import completions, embeddings, images, rerank, responses, speech
from cortexd.dialects.asked import Asked
from cortexd.dialects.fields import (
    HARMLESS,
    NATIVE_OUTPUT_LIMITS,
    NEVER_FORWARDED,
    READ_HERE,
    RENDERED,
)
from cortexd.dialects.openai import understand_chat
from cortexd.dialects.prompt_size import rendered_bytes
from tests.dialects.surfaces import sent_chat

MESSAGES = [{"role": "user", "content": "hi"}]


def body_with(**fields: object) -> bytes:
    return json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode()


def understood(body: bytes, *forward_fields: str) -> Asked:
    asked = understand_chat(body, forward_fields=frozenset(forward_fields))
    assert isinstance(asked, Asked), asked
    return asked


def forwarded(body: bytes, *forward_fields: str) -> dict[str, object]:
    sent = sent_chat(understood(body, *forward_fields), model="m", output_tokens=77)
    decoded: dict[str, object] = json.loads(sent)
    return decoded


def test_no_list_lets_through_what_breaks_the_bound() -> None:
    assert NEVER_FORWARDED.isdisjoint(HARMLESS | RENDERED | responses.RENDERED)
    assert NEVER_FORWARDED.isdisjoint(responses.HARMLESS_HERE | completions.RENDERED)
    assert NEVER_FORWARDED.isdisjoint(embeddings.HARMLESS | rerank.HARMLESS | speech.HARMLESS)
    assert NEVER_FORWARDED.isdisjoint(images.HARMLESS)


KNOBS: dict[str, object] = {
    "best_of": 5,
    "use_beam_search": True,
    "length_penalty": 2,
    "n_cmpl": 3,
    "prediction": {"type": "content", "content": "x"},
    "chat_template": "{% for i in range(1000000) %}x{% endfor %}",
    "template": "x",
    "prompt_template": "x",
    "prompt": "x",
    "truncate_prompt_tokens": 1,
    "prompt_logprobs": 5,
    "n_keep": 1,
    "context_shift": True,
    "id_slot": 1,
    "cache_salt": "x",
    "priority": -100,
    "kv_transfer_params": {},
    "bootstrap_host": "x",
    "lora_path": "x",
    "mm_processor_kwargs": {"max_pixels": 10**9},
    "media_io_kwargs": {},
    "keep_alive": -1,
    "ttl": 1,
    "draft_model": "x",
    "session_id": "x",
    "files": ["x"],
    "web_search_options": {},
    "enable_code_execution": True,
    "logits_processors": ["os.system"],
    "custom_logit_processor": "x",
    "vllm_xargs": {},
    "previous_response_id": "r",
    "conversation": "c",
    "input_ids": [1, 2, 3],
    "min_new_tokens": 5,
    "echo": True,
    "Max_Tokens": 99999,
    "MAX_TOKENS": 99999,
    "max_tokens ": 99999,
    "options": {"num_predict": -1},
}


@pytest.mark.parametrize("name", [*KNOBS, *NATIVE_OUTPUT_LIMITS])
def test_a_knob_that_could_break_the_bound_is_taken_out_and_named(name: str) -> None:
    body = body_with(**{name: KNOBS.get(name, 64), "max_tokens": 8})
    assert set(forwarded(body)) == {"model", "messages", "max_tokens", "stream"}
    assert understood(body).dropped == (name.replace(" ", "?"),)


@pytest.mark.parametrize("name", ["n_predict", "best_of", "n_cmpl", "use_beam_search"])
def test_not_even_the_operator_can_let_a_bound_breaking_field_through(name: str) -> None:
    assert name not in forwarded(body_with(**{name: 64}), name)


def test_the_operator_can_let_other_fields_through_and_they_count_as_prompt() -> None:
    body = body_with(cache_salt="pepper", documents=[{"text": "d"}])
    assert forwarded(body, "cache_salt")["cache_salt"] == "pepper"
    without = understood(body).prompt.tools_bytes
    assert understood(body, "cache_salt").prompt.tools_bytes == without + len('"pepper"')


def test_an_absent_knob_is_not_reported_as_dropped() -> None:
    assert understood(body_with(best_of=None, n_predict=None)).dropped == ()


def test_names_of_dropped_fields_are_few_short_and_printable() -> None:
    fields = {f"evil\n\x1b[0m{i}" + "x" * 100: i for i in range(20)}
    dropped = understood(body_with(**fields)).dropped
    assert len(dropped) == 8
    assert dropped[0] == ("evil???0m0" + "x" * 100)[:40]


def test_the_lists_of_fields_do_not_overlap() -> None:
    assert not HARMLESS & RENDERED
    assert not READ_HERE & (HARMLESS | RENDERED)


@pytest.mark.parametrize("name", sorted(RENDERED - {"tools", "chat_template_kwargs"}))
def test_a_field_that_a_template_may_show_counts_as_prompt(name: str) -> None:
    value = ["x" * 500]
    assert understood(body_with(**{name: value})).prompt.tools_bytes >= len(json.dumps(value))


def test_template_arguments_count_and_cannot_bring_a_template() -> None:
    kwargs = {"enable_thinking": False, "system": "x" * 500}
    plain = understood(body_with(chat_template_kwargs=kwargs))
    assert plain.prompt.tools_bytes >= 500
    evil = body_with(
        chat_template_kwargs={**kwargs, "chat_template": "{{ evil }}", "tokenize": True}
    )
    assert forwarded(evil)["chat_template_kwargs"] == kwargs
    assert understood(evil).prompt == plain.prompt
    assert understood(evil).dropped == (
        "chat_template_kwargs.chat_template",
        "chat_template_kwargs.tokenize",
    )


@pytest.mark.parametrize(
    "name", ["eos_token", "bos_token", "additional_special_tokens", "boi_token"]
)
def test_template_arguments_cannot_put_words_in_the_place_of_a_models_marks(name: str) -> None:
    """Templates write these after every message; an engine lets the client's win."""
    body = body_with(chat_template_kwargs={"enable_thinking": False, name: "good morning " * 200})
    assert forwarded(body)["chat_template_kwargs"] == {"enable_thinking": False}
    assert understood(body).dropped == (f"chat_template_kwargs.{name}"[:40],)


@pytest.mark.parametrize("words", ["good <b>morning</b> " * 20, ["a"] * 30, 1e15])
def test_words_for_a_template_are_bounded_as_said_with_every_message(words: object) -> None:
    turns = [{"role": "user", "content": "a"}] * 40
    asked = understood(body_with(messages=turns, chat_template_kwargs={"style": words}))
    said = rendered_bytes(json.dumps(words, separators=(",", ":")).encode())
    assert asked.prompt.tools_bytes >= len(turns) * said


def test_a_switch_of_the_template_costs_its_bytes_once() -> None:
    kwargs = {"enable_thinking": False, "tools_in_user_message": None}
    turns = [{"role": "user", "content": str(number)} for number in range(40)]
    asked = understood(body_with(messages=turns, chat_template_kwargs=kwargs))
    assert asked.prompt.tools_bytes < 3 * len(json.dumps(kwargs))


@pytest.mark.parametrize(
    ("fields", "teaches"),
    [
        ({}, True),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, True),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"chat_template_kwargs": {"style": "plain"}}, False),
        ({"documents": [{"text": "d"}]}, False),
    ],
)
def test_a_prompt_with_words_for_the_template_teaches_nothing_about_it(
    fields: dict[str, object], *, teaches: bool
) -> None:
    assert understood(body_with(**fields)).teaches == teaches
