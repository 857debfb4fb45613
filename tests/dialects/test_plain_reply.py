"""Plain replies of neurons: passed on, counted, or known to be none."""

import json

import pytest

from cortexd.dialects.openai import plain_reply
from cortexd.dialects.usage import Seen, Usage

REPLY: dict[str, object] = {
    "id": "c-1",
    "object": "chat.completion",
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hé"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}


def reply_with(**fields: object) -> bytes:
    return json.dumps({**REPLY, **fields}).encode()


def test_a_plain_reply_passes_byte_for_byte() -> None:
    body = reply_with()
    reply = plain_reply(body, model="m")
    assert reply is not None
    assert reply.body == body
    assert reply.usage == Usage(9, 2)
    assert reply.seen == Seen(chunks=1, text_bytes=3)


def test_a_plain_reply_gets_the_clients_name_for_the_model() -> None:
    reply = plain_reply(reply_with(model="Qwen"), model="m")
    assert reply is not None
    assert json.loads(reply.body) == REPLY


def test_choices_of_a_plain_reply_are_counted_where_something_was_generated() -> None:
    calls = [{"function": {"name": "f", "arguments": "{}"}}]
    choices = [
        {"message": {"content": None, "tool_calls": calls}},
        {"message": {"content": ""}},
        {"message": {"content": "", "reasoning": "hm"}},
        "odd",
    ]
    reply = plain_reply(reply_with(choices=choices), model="m")
    assert reply is not None
    assert reply.seen == Seen(chunks=2, text_bytes=5)


@pytest.mark.parametrize("usage", [None, 0, {}, {"prompt_tokens": 9, "completion_tokens": -2}])
def test_unbelievable_usage_of_a_plain_reply_is_none(usage: object) -> None:
    reply = plain_reply(reply_with(usage=usage), model="m")
    assert reply is not None
    assert reply.usage is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":{}}',
        b'{"choices":"x"}',
        b'{"object":"error","message":"x"}',
        b'{"error":{"message":"x"}}',
        reply_with(error={"message": "x"}),
        b'{"choices":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"choices":["\xff"]}',
    ],
)
def test_what_is_no_chat_completion_is_none(body: bytes) -> None:
    assert plain_reply(body, model="m") is None
