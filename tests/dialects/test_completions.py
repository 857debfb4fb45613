"""Completions: prompts of every form, what they are bounded by, what a neuron gets and says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.completions import OUTPUT_TOKENS_DEFAULT, Completions
from cortexd.dialects.refusals import RefusalKind
from cortexd.dialects.surface import Document, Target
from cortexd.dialects.upper_bound import ModelLimits
from cortexd.dialects.usage import Seen, Usage
from tests.dialects.surfaces import UNKNOWN, asked_of, bound_of, refused, told, understood, written

COMPLETIONS = Completions()
ASKED: dict[str, object] = {"model": "m", "prompt": "def f(", "max_tokens": 20}


def asked_with(**fields: object) -> dict[str, object]:
    return {**ASKED, **fields}


def test_a_prompt_is_bounded_by_its_bytes_and_the_output_it_names() -> None:
    bound = bound_of(understood(COMPLETIONS, ASKED))
    assert (bound.prompt_tokens, bound.output_tokens, bound.choices) == (len('"def f("'), 20, 1)


def test_a_completion_that_names_no_limit_gets_openais_sixteen_tokens() -> None:
    request = understood(COMPLETIONS, {"model": "m", "prompt": "x"})
    assert bound_of(request).output_tokens == OUTPUT_TOKENS_DEFAULT == 16


@pytest.mark.parametrize(
    ("prompt", "prompts", "prompt_tokens"),
    [
        ("héé", 1, 7),
        (["ab", "cd"], 2, 8),
        ([1, 2, 3], 1, 5),
        ([[1, 2], [3]], 2, 7),
    ],
)
def test_every_form_of_prompt_is_counted(prompt: object, prompts: int, prompt_tokens: int) -> None:
    asked = asked_of(COMPLETIONS, asked_with(prompt=prompt))
    assert (asked.prompts, asked.choices) == (prompts, prompts)
    assert asked.prompt.text_bytes == prompt_tokens


def test_each_prompt_pays_for_every_answer_and_for_the_template() -> None:
    request = understood(COMPLETIONS, asked_with(prompt=["ab", "cd"], n=3))
    bound = bound_of(request, ModelLimits(None, None, None, template_tokens=5))
    assert (bound.prompt_tokens, bound.output_tokens, bound.choices) == (8 + 2 * 5, 20, 6)
    assert bound.total == 18 + 6 * 20


def test_no_prompt_is_taken_to_be_longer_than_the_context() -> None:
    request = understood(COMPLETIONS, asked_with(prompt=["a" * 500, "b" * 500]))
    assert bound_of(request, ModelLimits(100, 100, None)).prompt_tokens == 200


def test_the_suffix_is_paid_for_with_each_prompt_and_forwarded() -> None:
    alone = bound_of(understood(COMPLETIONS, asked_with(prompt=["a", "b"])))
    request = understood(COMPLETIONS, asked_with(prompt=["a", "b"], suffix="return x"))
    assert bound_of(request).prompt_tokens - alone.prompt_tokens >= 2 * len("return x")
    assert written(request)["suffix"] == "return x"


def test_the_neuron_gets_one_limit_its_own_name_and_the_prompt_as_it_is() -> None:
    raw = b'{"model":"m","prompt":"\\u00e9  x","max_tokens":9,"max_completion_tokens":7,'
    raw += b'"n_predict":5,"best_of":4,"temperature":0.50,"stream":true}'
    request = understood(COMPLETIONS, raw)
    sent = request.write(UNKNOWN, Target("there", 5, stream=True)).body
    assert b'"prompt":"\\u00e9  x"' in sent
    assert b'"temperature":0.50' in sent
    assert written(request, output_tokens=5) == {
        "model": "there",
        "prompt": "é  x",
        "temperature": 0.5,
        "max_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert request.asked.output_requested == 5
    assert request.asked.dropped == ("n_predict", "best_of")


def test_fields_beyond_the_list_pass_only_when_the_operator_says_so() -> None:
    body = asked_with(chat_template="x", novel=1)
    assert set(asked_of(COMPLETIONS, body).fields) == {"prompt"}
    assert "novel" in asked_of(COMPLETIONS, body, "novel").fields


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt[0]"),
        ({"prompt": ["a", [1]]}, "prompt[1]"),
        ({"prompt": [[1], []]}, "prompt[1]"),
        ({"prompt": [[1], [-1]]}, "prompt[1]"),
        ({"prompt": [1, -1]}, "prompt"),
        ({"prompt": [True, 1]}, "prompt[0]"),
        ({"prompt": [{}]}, "prompt[0]"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"suffix": 1}, "suffix"),
        ({"stream": "yes"}, "stream"),
        ({"model": ""}, "model"),
    ],
)
def test_a_value_that_could_be_other_work_is_refused(fields: dict[str, object], param: str) -> None:
    refusal = refused(COMPLETIONS, asked_with(**fields))
    assert (refusal.kind, refusal.param) == (RefusalKind.INVALID_PARAMETER, param)


def test_more_answers_than_can_be_told_apart_are_refused() -> None:
    asked_of(COMPLETIONS, asked_with(prompt=["x"] * 64, n=2))
    assert refused(COMPLETIONS, asked_with(prompt=["x"] * 65, n=2)).param == "prompt"


def test_an_echo_is_refused_because_it_would_count_as_generated() -> None:
    refusal = refused(COMPLETIONS, asked_with(echo=True))
    assert (refusal.kind, refusal.param) == (RefusalKind.UNSUPPORTED_PARAMETER, "echo")
    assert "echo" not in asked_of(COMPLETIONS, asked_with(echo=False)).fields


def test_a_prompt_is_required() -> None:
    assert refused(COMPLETIONS, {"model": "m"}).param == "prompt"


REPLY: dict[str, object] = {
    "object": "text_completion",
    "model": "there",
    "choices": [{"index": 0, "text": "x)", "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
}


def test_a_plain_completion_is_read_under_the_name_the_client_used() -> None:
    request = understood(COMPLETIONS, ASKED)
    sent = json.dumps(REPLY).encode()
    reply = told(request.read(Document(sent), UNKNOWN))
    assert json.loads(reply.body) == {**REPLY, "model": "m"}
    assert (reply.usage, reply.seen) == (Usage(4, 2), Seen(chunks=1, text_bytes=2))


def chunk(text: str, reason: str | None = None, index: int = 0) -> bytes:
    choice = {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
    body = {"id": "c", "object": "text_completion", "created": 1, "model": "m"}
    return b"data: " + json.dumps({**body, "choices": [choice]}).encode() + b"\n\n"


def test_a_stream_of_text_passes_and_ends_in_done() -> None:
    watcher = understood(COMPLETIONS, asked_with(stream=True)).watch(output_tokens=20)
    stream = chunk("a") + chunk("b", "stop")
    assert watcher.feed(stream + b"data: [DONE]\n\n") == stream
    assert watcher.close() == b"data: [DONE]\n\n"
    assert (watcher.failure, watcher.seen) == (None, Seen(chunks=2, text_bytes=2))


def test_an_event_that_says_null_says_nothing() -> None:
    """llama-server begins the answers to several prompts with one."""
    watcher = understood(COMPLETIONS, asked_with(stream=True)).watch(output_tokens=20)
    assert watcher.feed(b"data: null\n\n" + chunk("a", "stop")) == chunk("a", "stop")
    assert (watcher.close(), watcher.failure) == (b"data: [DONE]\n\n", None)


def test_a_stream_beyond_its_output_is_cut_with_the_words_of_a_completion() -> None:
    watcher = understood(COMPLETIONS, asked_with(stream=True)).watch(output_tokens=1)
    assert watcher.feed(chunk("a") + chunk("b")) == chunk("a")
    assert watcher.cut
    last, done = watcher.close().removesuffix(b"\n\n").split(b"\n\n")
    end = json.loads(last.removeprefix(b"data: "))
    assert end["object"] == "text_completion"
    ended = {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}
    assert end["choices"] == [ended]
    assert done == b"data: [DONE]"


def test_a_stream_that_breaks_ends_in_an_error_and_no_done() -> None:
    watcher = understood(COMPLETIONS, asked_with(stream=True)).watch(output_tokens=20)
    watcher.feed(chunk("a"))
    last = watcher.close()
    assert b'"code":"upstream_failed"' in last
    assert b"[DONE]" not in last


@given(st.text(), st.integers(1, 4))
def test_the_bytes_of_a_text_are_never_more_than_its_bound(text: str, count: int) -> None:
    body = json.dumps({"model": "m", "prompt": [text] * count}).encode()
    asked = asked_of(COMPLETIONS, body)
    assert asked.prompt.text_bytes >= count * len(text.encode())
    assert asked.least_tokens <= asked.prompt.text_bytes
