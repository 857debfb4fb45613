"""Responses: what is read, refused as something kept elsewhere, bounded, forwarded and answered."""

import json

import pytest

from cortexd.dialects.openai import understand_chat
from cortexd.dialects.prompt_size import prompt_size
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.dialects.responses import Responses
from cortexd.dialects.surface import Document, Target
from cortexd.dialects.upper_bound import ModelLimits
from cortexd.dialects.usage import Seen, Usage
from tests.dialects.surfaces import UNKNOWN, asked_of, bound_of, refused, told, understood, written

RESPONSES = Responses()
ASKED: dict[str, object] = {"model": "m", "input": "hi", "max_output_tokens": 20}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":[1,2]}'}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "<3>"}


def asked_with(**fields: object) -> dict[str, object]:
    return {**ASKED, **fields}


def test_a_text_is_bounded_as_the_message_that_it_becomes() -> None:
    asked = asked_of(RESPONSES, ASKED)
    chat = understand_chat(b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')
    assert not isinstance(chat, Refusal)
    assert asked.prompt == chat.prompt
    assert bound_of(understood(RESPONSES, ASKED)).total == chat.prompt.text_bytes + 20


def test_instructions_are_paid_for_as_a_message_of_their_own() -> None:
    plain = bound_of(understood(RESPONSES, ASKED)).prompt_tokens
    told_so = bound_of(understood(RESPONSES, asked_with(instructions="Be brief."))).prompt_tokens
    assert told_so - plain >= len('{"role":"system","content":"Be brief."}')


def test_items_are_bounded_by_their_json_and_by_what_templates_write_out_of_calls() -> None:
    items = [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}, CALL, RESULT]
    prompt = asked_of(RESPONSES, asked_with(input=items)).prompt
    assert prompt.text_bytes == len(json.dumps(items, separators=(",", ":")))
    assert prompt.tools_bytes > 0
    assert not prompt.has_media


def test_the_name_of_a_call_is_bounded_as_in_the_chat_that_it_becomes() -> None:
    name = "<" * 1000
    call = {"type": "function_call", "call_id": "c", "name": name, "arguments": "{}"}
    function = {"name": name, "arguments": "{}"}
    calls = [{"id": "c", "function": function}]
    message: dict[str, object] = {"role": "assistant", "tool_calls": calls}
    item = asked_of(RESPONSES, asked_with(input=[call])).prompt
    chat = prompt_size([message], json.dumps(message).encode(), [])
    assert item.tools_bytes == chat.tools_bytes > 5000


def test_an_image_in_an_item_is_counted_and_not_measured() -> None:
    address = "data:image/png;base64," + "A" * 4000
    part = {"type": "input_image", "image_url": address}
    prompt = asked_of(RESPONSES, asked_with(input=[{"role": "user", "content": [part]}])).prompt
    assert (prompt.images, prompt.media_bytes) == (1, len(address))
    assert prompt.text_bytes < 200


def test_an_image_that_a_tool_returns_is_counted_too() -> None:
    output = [{"type": "input_image", "image_url": "https://example.org/x.png"}]
    items = [{**RESULT, "output": output}]
    assert asked_of(RESPONSES, asked_with(input=items)).prompt.images == 1


def test_tools_are_measured_in_the_form_that_templates_write() -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    nested = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    pretty = json.dumps([nested], indent=4)
    plain = asked_of(RESPONSES, ASKED).prompt.tools_bytes
    assert asked_of(RESPONSES, asked_with(tools=[tool])).prompt.tools_bytes - plain >= len(pretty)


def test_the_neuron_gets_one_limit_and_is_told_to_store_nothing() -> None:
    body = asked_with(
        store=True,
        max_tokens=7,
        n_predict=400,
        metadata={"a": "b"},
        truncation="auto",
        max_tool_calls=3,
        temperature=0.5,
        stream=True,
        include=["reasoning.encrypted_content"],
    )
    request = understood(RESPONSES, body)
    assert request.asked.output_requested == 7
    assert written(request, output_tokens=6) == {
        "model": "there",
        "input": "hi",
        "temperature": 0.5,
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 6,
        "stream": True,
        "store": False,
    }
    assert set(request.asked.dropped) == {"n_predict", "metadata", "truncation", "max_tool_calls"}


def test_the_input_goes_on_byte_for_byte() -> None:
    raw = b'{"model":"m","input":[{"role": "user",\n "content":"\\u00e9"}]}'
    sent = understood(RESPONSES, raw).write(UNKNOWN, Target("there", 5, stream=True)).body
    assert b'[{"role": "user",\n "content":"\\u00e9"}]' in sent


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type"),
        ({"input": [{"type": ["message"]}]}, "input[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "mcp", "server_url": "http://x"}]}, "tools[0].type"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools[0].type"),
    ],
)
def test_what_is_kept_elsewhere_or_works_by_itself_is_refused(
    fields: dict[str, object], param: str
) -> None:
    refusal = refused(RESPONSES, asked_with(**fields))
    assert (refusal.kind, refusal.param) == (RefusalKind.UNSUPPORTED_PARAMETER, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": ["hi"]}, "input[0]"),
        ({"instructions": ["x"]}, "instructions"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 2.5}, "max_output_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"tools": {}}, "tools"),
        ({"stream": 1}, "stream"),
    ],
)
def test_a_value_that_could_be_other_work_is_refused(fields: dict[str, object], param: str) -> None:
    refusal = refused(RESPONSES, asked_with(**fields))
    assert (refusal.kind, refusal.param) == (RefusalKind.INVALID_PARAMETER, param)


def test_null_is_as_good_as_absent() -> None:
    nothing = {"previous_response_id": None, "conversation": None, "tools": None, "store": None}
    assert asked_of(RESPONSES, asked_with(**nothing)) == asked_of(RESPONSES, ASKED)


def test_an_input_is_required() -> None:
    refusal = refused(RESPONSES, {"model": "m"})
    assert (refusal.kind, refusal.param) == (RefusalKind.MISSING_REQUIRED_PARAMETER, "input")


def test_media_that_nothing_bounds_is_refused_for_a_cap_alone() -> None:
    part = {"type": "input_image", "image_url": "https://example.org/x.png"}
    request = understood(RESPONSES, asked_with(input=[{"role": "user", "content": [part]}]))
    assert isinstance(request.bound(UNKNOWN, capped=True), Refusal)
    bound_of(request, capped=False)
    assert bound_of(request, ModelLimits(4096, 4096, None)).prompt_tokens == 4096


MESSAGE = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Hé"}],
}
REPLY: dict[str, object] = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "there",
    "output": [{"type": "reasoning", "summary": []}, MESSAGE, CALL],
    "usage": {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 3,
        "total_tokens": 12,
    },
}


def reply_to(body: bytes) -> Document:
    return Document(body)


def test_a_whole_response_is_read_under_the_name_the_client_used() -> None:
    request = understood(RESPONSES, ASKED)
    reply = told(request.read(reply_to(json.dumps(REPLY).encode()), UNKNOWN))
    assert json.loads(reply.body) == {**REPLY, "model": "m"}
    assert reply.usage == Usage(9, 3, cached_prompt_tokens=4)
    assert reply.seen == Seen(chunks=2, text_bytes=3 + len(str(CALL["arguments"])))


@pytest.mark.parametrize(
    "body",
    [
        b"no json",
        b"[]",
        b'{"output":7}',
        b'{"error":{"message":"x"},"output":[]}',
        b'{"status":"failed","output":[]}',
        b"\xff",
    ],
)
def test_what_is_no_response_is_none(body: bytes) -> None:
    assert understood(RESPONSES, ASKED).read(reply_to(body), UNKNOWN) is None


@pytest.mark.parametrize(
    "usage", [None, 7, {}, {"input_tokens": 0, "output_tokens": 3}, {"input_tokens": 3}]
)
def test_a_usage_that_is_not_believable_is_none(usage: object) -> None:
    body = json.dumps({**REPLY, "usage": usage}).encode()
    assert told(understood(RESPONSES, ASKED).read(reply_to(body), UNKNOWN)).usage is None
