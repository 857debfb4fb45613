"""Plain replies of neurons as Anthropic's messages."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.anthropic import AnthropicAsked, understand_messages
from cortexd.dialects.anthropic_reply import (
    BAD_ARGUMENTS,
    NAMELESS_CALL,
    message_reply,
    token_count,
)
from cortexd.dialects.openai import plain_reply
from cortexd.dialects.surface import PlainReply
from cortexd.dialects.usage import Seen, Usage
from tests.support.anthropic_requests import TEXTS, THOUGHTS, USES, Json

USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 2,
    "prompt_tokens_details": {"cached_tokens": 4},
}


def completion(message: object, *, finish: object = "stop", **fields: object) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    head = {"id": "c-1", "object": "chat.completion", "model": "qwen", "choices": [choice]}
    return json.dumps({**head, "usage": USAGE, **fields}).encode()


def replied(body: bytes, **options: Any) -> PlainReply:
    reply = message_reply(body, model="m", request_id="r-1", **options)
    assert reply is not None
    return reply


def told(body: bytes, **options: Any) -> Json:
    decoded: Json = json.loads(replied(body, **options).body)
    return decoded


def call(arguments: object, *, id: object = "c", name: object = "f") -> Json:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def use(given: Json, *, id: str = "c", name: str = "f") -> Json:
    return {"type": "tool_use", "id": id, "name": name, "input": given}


def test_a_reply_becomes_a_message_under_the_clients_name_for_the_model() -> None:
    reply = replied(completion({"role": "assistant", "content": "Hé"}))
    assert json.loads(reply.body) == {
        "id": "msg_r-1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hé"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 4,
            "output_tokens": 2,
        },
    }
    assert (reply.usage, reply.seen, reply.notes) == (Usage(9, 2, 4), Seen(1, 3), ())


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_thinking_comes_first_and_can_be_hidden(name: str) -> None:
    body = completion({"content": "So.", name: "Hm."})
    thought = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    assert told(body)["content"] == [thought, {"type": "text", "text": "So."}]
    hidden = told(body, hide_thinking=True)["content"]
    assert hidden == [{**thought, "thinking": ""}, {"type": "text", "text": "So."}]


def test_calls_become_tool_uses_with_parsed_arguments() -> None:
    calls = [call('{"a": [1, "x"]}', id="one"), call({"b": 2}, id="two"), call("", id="three")]
    reply = told(completion({"content": None, "tool_calls": calls}))
    assert reply["content"] == [
        use({"a": [1, "x"]}, id="one"),
        use({"b": 2}, id="two"),
        use({}, id="three"),
    ]
    assert reply["stop_reason"] == "tool_use"


@pytest.mark.parametrize("arguments", ['{"a":', "[1]", '"x"', "nothing", '{"a":1e999}'])
def test_arguments_that_are_no_object_become_one_and_are_noted(arguments: str) -> None:
    reply = replied(completion({"tool_calls": [call(arguments)]}))
    assert json.loads(reply.body)["content"] == [use({})]
    assert reply.notes == (BAD_ARGUMENTS,)


def test_calls_without_ids_or_with_equal_ones_get_their_own() -> None:
    calls = [call("", id=""), call("", id="c"), call("", id="c"), call("", id=None)]
    blocks = told(completion({"tool_calls": calls}))["content"]
    assert [each["id"] for each in blocks] == ["toolu_r-1_0", "c", "toolu_r-1_2", "toolu_r-1_3"]


def test_a_call_without_a_name_is_left_out_and_noted() -> None:
    calls = [call("", name=""), call("", name=None), {"id": "x", "function": None}, "x"]
    reply = replied(completion({"content": "Hi", "tool_calls": calls}, finish="tool_calls"))
    message = json.loads(reply.body)
    assert message["content"] == [{"type": "text", "text": "Hi"}]
    assert message["stop_reason"] == "end_turn"
    assert reply.notes == (NAMELESS_CALL,)


def test_older_shapes_of_answers_are_read() -> None:
    function = {"name": "f", "arguments": "{}"}
    (used,) = told(completion({"function_call": function}, finish="function_call"))["content"]
    assert used == use({}, id="toolu_r-1_0")
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, {"type": "x"}, 5]
    assert told(completion({"content": parts}))["content"] == [{"type": "text", "text": "ab"}]
    assert told(completion({"refusal": "No."}))["content"] == [{"type": "text", "text": "No."}]
    bare = json.dumps({"choices": [{"text": "old"}]}).encode()
    assert told(bare)["content"] == [{"type": "text", "text": "old"}]


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
        ("context_length_exceeded", "model_context_window_exceeded"),
        ("model_context_window_exceeded", "model_context_window_exceeded"),
        ("eos", "end_turn"),
        (None, "end_turn"),
        (5, "end_turn"),
    ],
)
def test_why_it_stopped_is_told(finish: object, reason: str) -> None:
    message = told(completion({"content": "x"}, finish=finish))
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, None)


@pytest.mark.parametrize("finish", ["stop", "tool_calls", "function_call", None])
def test_a_called_tool_is_why_it_stopped(finish: object) -> None:
    body = completion({"content": "x", "tool_calls": [call("{}")]}, finish=finish)
    assert told(body)["stop_reason"] == "tool_use"


def test_a_call_that_was_cut_short_is_not_told_as_one_to_follow() -> None:
    body = completion({"tool_calls": [call('{"path": "/et')]}, finish="length")
    assert told(body)["stop_reason"] == "max_tokens"


@pytest.mark.parametrize("name", ["stop_reason", "matched_stop", "stopping_word"])
@pytest.mark.parametrize(
    ("stop", "told_as"),
    [("END", ("stop_sequence", "END")), ("<|eot|>", ("end_turn", None)), (2, ("end_turn", None))],
)
def test_a_stop_sequence_is_told_if_it_is_the_clients(
    name: str, stop: object, told_as: tuple[str, str | None]
) -> None:
    choice = {"message": {"content": "x"}, "finish_reason": "stop", name: stop}
    message = told(json.dumps({"choices": [choice]}).encode(), stop_sequences=("END",))
    assert (message["stop_reason"], message["stop_sequence"]) == told_as


def test_an_answer_of_nothing_has_no_blocks_and_unknown_usage_is_zero() -> None:
    message = told(completion({"content": ""}, usage=None))
    assert message["content"] == []
    assert message["usage"]["input_tokens"] == message["usage"]["output_tokens"] == 0
    assert replied(completion({"content": ""}, usage=None)).usage is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":[5]}',
        b'{"choices":{}}',
        b'{"error":{"message":"x"},"choices":[{"message":{}}]}',
        b'{"choices":[{"message":{"content":"\\ud800"}}]}',
        b"[" * 9999,
    ],
)
def test_what_is_no_chat_completion_is_no_message(body: bytes) -> None:
    assert message_reply(body, model="m", request_id="r") is None


@given(st.lists(TEXTS | THOUGHTS | USES, max_size=5))
def test_an_answer_survives_the_way_there_and_back(blocks: list[Json]) -> None:
    """What a client replays as a turn is what a neuron said, but for the order of kinds, the
    bounds between blocks of one kind, and signatures.
    """
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": blocks}]
    asked = understand_messages(json.dumps({"model": "m", "messages": turns}).encode())
    assert isinstance(asked, AnthropicAsked)
    message = json.loads(bytes(asked.asked.fields["messages"]))[1]
    expected: list[Json] = []
    thoughts = [each["thinking"] for each in blocks if each["type"] == "thinking"]
    if any(thoughts):
        thinking = "\n".join(thoughts)
        expected.append({"type": "thinking", "thinking": thinking, "signature": ""})
    texts = [each["text"] for each in blocks if each["type"] == "text"]
    if "\n".join(texts):
        expected.append({"type": "text", "text": "\n".join(texts)})
    uses = [each for each in blocks if each["type"] == "tool_use"]
    back = told(completion(message))["content"]
    assert [each for each in back if each["type"] != "tool_use"] == expected
    came = [each for each in back if each["type"] == "tool_use"]
    assert [(each["name"], each["input"]) for each in came] == [
        (each["name"], each["input"]) for each in uses
    ]
    for position, each in enumerate(came):
        sent = uses[position]["id"]
        assert each["id"] == sent or sent in [other["id"] for other in uses[:position]]


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "message", "content", "tool_calls", "function", "name", "id"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_counted_as_a_chat_counts_it_or_is_none(value: object) -> None:
    body = json.dumps(value).encode()
    ours, chats = (
        message_reply(body, model="m", request_id="r"),
        plain_reply(body, model="m"),
    )
    if ours is not None:
        assert chats is not None
        assert (ours.usage, ours.seen) == (chats.usage, chats.seen)


def test_a_count_is_the_exact_one_if_there_is_one() -> None:
    assert json.loads(token_count(bound_tokens=40)) == {"input_tokens": 40}
    assert json.loads(token_count(bound_tokens=40, exact_tokens=9)) == {"input_tokens": 9}
