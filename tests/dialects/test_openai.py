"""Chat requests: what is read, refused, taken out and forwarded; plain replies."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortexd.dialects.asked import Asked, PromptSize
from cortexd.dialects.fields import HARMLESS, READ_HERE, RENDERED
from cortexd.dialects.openai import understand_chat
from cortexd.dialects.refusals import Refusal, RefusalKind, render
from cortexd.dialects.upper_bound import Bound, ModelLimits, bound
from tests.dialects.surfaces import sent_chat

MESSAGES = b'[{"role":"user","content":"hi"}]'


def body_with(**fields: object) -> bytes:
    return json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    ).encode()


def raw_body(fields: bytes) -> bytes:
    return b'{"model":"m","messages":' + MESSAGES + b"," + fields + b"}"


def understood(body: bytes, *forward_fields: str) -> Asked:
    asked = understand_chat(body, forward_fields=frozenset(forward_fields))
    assert isinstance(asked, Asked), asked
    return asked


def forwarded(body: bytes, *forward_fields: str) -> dict[str, object]:
    sent = sent_chat(understood(body, *forward_fields), model="m", output_tokens=77)
    decoded: dict[str, object] = json.loads(sent)
    return decoded


def refused(body: bytes) -> Refusal:
    refusal = understand_chat(body)
    assert isinstance(refusal, Refusal), refusal
    assert render(refusal, request_id="r").status == 400
    return refusal


def test_an_ordinary_request_is_understood() -> None:
    body = body_with(max_tokens=20, stream=True, stream_options={"include_usage": True}, n=2)
    asked = understood(body)
    assert (asked.model, asked.stream, asked.include_usage) == ("m", True, True)
    assert (asked.choices, asked.output_requested, asked.dropped) == (2, 20, ())
    assert asked.prompt == PromptSize(text_bytes=len(MESSAGES))


def test_what_is_absent_has_plain_defaults() -> None:
    asked = understood(body_with(stream=None, n=None, max_tokens=None, stream_options=None))
    assert (asked.stream, asked.include_usage, asked.choices) == (False, False, 1)
    assert (asked.output_requested, asked.dropped) == (None, ())
    assert set(asked.fields) == {"messages"}


def test_usage_is_only_a_matter_of_streams() -> None:
    assert not understood(body_with(stream_options={"include_usage": True})).include_usage
    assert not understood(body_with(stream=True, stream_options={})).include_usage


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"{} {}",
        b"\xef\xbb\xbf{}",
        b'{"model":"m","messages":NaN}',
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"a\x00b"}]}',
        b'{"model":"m","messages":[{"role":"user","content":' + b"[" * 9000 + b"]" * 9000 + b"}]}",
        b'{"model":"m","messages":[],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"m","mess\xffages":[]}',
        raw_body(b'"temperature":"\\ud800"'),
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    assert refused(body).kind is RefusalKind.INVALID_JSON


@pytest.mark.parametrize("depth", range(940, 1000, 3))
def test_nesting_near_the_recursion_limit_is_refused_or_fine(depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    for field in (b'"tools":[{"a":%s}]', b'"messages":[{"role":"tool","content":%s}]'):
        result = understand_chat(raw_body(field % nested))
        assert isinstance(result, Asked) or result.kind is RefusalKind.INVALID_JSON


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{}", "model"),
        (b'{"model":null,"messages":[]}', "model"),
        (b'{"model":"m"}', "messages"),
        (b'{"model":"m","messages":null}', "messages"),
    ],
)
def test_what_is_missing_is_named(body: bytes, param: str) -> None:
    refusal = refused(body)
    assert refusal.kind is RefusalKind.MISSING_REQUIRED_PARAMETER
    assert refusal.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": "  "}, "model"),
        ({"model": 7}, "model"),
        ({"model": ["m"]}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "user"}, "hi"]}, "messages[1]"),
        ({"messages": [None]}, "messages[0]"),
        ({"stream": "true"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"tools": {}}, "tools"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"chat_template_kwargs": "x"}, "chat_template_kwargs"),
        *(({"n": n}, "n") for n in (0, -1, 129, 1.0, "2", True, [1], 10**30)),
    ],
)
def test_values_of_the_wrong_kind_are_refused_by_name(
    fields: dict[str, object], param: str
) -> None:
    refusal = refused(body_with(**fields))
    assert refusal.kind is RefusalKind.INVALID_PARAMETER
    assert refusal.param == param


@pytest.mark.parametrize("param", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    "value", ["0", "-1", "2147483648", "1e3", "8.0", "8.9", '"8"', "true", "false", "[8]", "{}"]
)
def test_an_output_limit_that_engines_read_differently_is_refused(param: str, value: str) -> None:
    refusal = refused(raw_body(f'"{param}":{value}'.encode()))
    assert refusal.kind is RefusalKind.INVALID_PARAMETER
    assert refusal.param == param


@pytest.mark.parametrize("value", ["1e999", "-1e999", "NaN", "1" * 5000, "Infinity"])
def test_a_number_beyond_all_numbers_is_refused(value: str) -> None:
    refused(raw_body(f'"max_tokens":{value}'.encode()))


@pytest.mark.parametrize(
    ("fields", "output_requested"),
    [
        ({"max_tokens": 8, "max_completion_tokens": 64}, 8),
        ({"max_tokens": 64, "max_completion_tokens": 8}, 8),
        ({"max_completion_tokens": 8}, 8),
        ({"max_tokens": None, "max_completion_tokens": 8}, 8),
        ({"max_tokens": 2**31 - 1}, 2**31 - 1),
        ({"max_tokens": 8, "n_predict": 64}, 8),
        ({"max_tokens": 8, "n_predict": 4}, 4),
        ({"max_tokens": 8, "n_predict": -1}, 8),
        ({"n_predict": -1}, None),
        ({"num_predict": 5, "max_new_tokens": 6, "max_length": 7, "max_output_tokens": 4}, 4),
        ({"max_new_tokens": "many"}, None),
    ],
)
def test_the_smallest_limit_counts_and_only_one_spelling_is_forwarded(
    fields: dict[str, object], output_requested: int | None
) -> None:
    body = body_with(**fields)
    assert understood(body).output_requested == output_requested
    sent = forwarded(body)
    assert sent.pop("max_tokens") == 77
    assert set(sent) == {"model", "messages", "stream"}


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (raw_body(b'"max_tokens":8,"max_tokens":9'), {"max_tokens": 77}),
        (raw_body(b'"n_predict":1,"n_predict":64'), {}),
        (raw_body(b'"top_k":1,"top_k":2'), {"top_k": 2}),
        (raw_body(b'"logit_bias":{"1":1,"1":2}'), {"logit_bias": {"1": 2}}),
        (
            raw_body(b'"messages":[{"role":"user","content":"short","content":"long"}]'),
            {"messages": [{"role": "user", "content": "long"}]},
        ),
    ],
)
def test_nothing_is_said_twice_in_what_is_forwarded(body: bytes, sent: dict[str, object]) -> None:
    asked = understood(body)
    text = sent_chat(asked, model="m", output_tokens=77)
    for name, value in sent.items():
        assert json.loads(text)[name] == value
        assert text.count(f'"{name}"'.encode()) == 1
    assert b"short" not in text
    assert asked.prompt.text_bytes <= len(bytes(asked.fields["messages"]))


VERBATIM = {
    "messages": b'[ {"role": "user",  "content": "\\u4e2d\\/\\n"} ]',
    "temperature": b"0.70",
    "seed": b"12345678901234567890",
    "stop": b'[ "a" , "\\u0062"]',
    "tools": b'[{"type":"function" ,"function":{"name":"f","parameters":{"x":1.0E2}}}]',
    "response_format": b'{"type":"json_object" }',
    "logit_bias": b'{"50256":-100.0}',
    "chat_template_kwargs": b'{"enable_thinking": false}',
    "n": b"1",
    "user": b"null",
}


def test_untouched_fields_are_forwarded_byte_for_byte() -> None:
    fields = [b'"%s" : %s' % (name.encode(), value) for name, value in VERBATIM.items()]
    asked = understood(b'{"model":"alias", ' + b" , ".join(fields) + b"}")
    sent = msgspec.json.decode(
        sent_chat(asked, model="real", output_tokens=5), type=dict[str, msgspec.Raw]
    )
    for name, value in VERBATIM.items():
        if value != b"null":
            assert bytes(sent[name]) == value
    assert bytes(sent["model"]) == b'"real"'
    assert bytes(sent["max_tokens"]) == b"5"
    assert asked.dropped == ()


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.dictionaries(
        st.sampled_from(sorted(HARMLESS)),
        st.recursive(
            st.booleans() | st.integers(-(10**18), 10**18) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    ),
    st.sampled_from([None, 2]),
    st.booleans(),
)
def test_harmless_fields_keep_their_bytes_in_any_layout(
    fields: dict[str, object], indent: int | None, ensure_ascii: bool
) -> None:
    written = {
        name: json.dumps(value, indent=indent, ensure_ascii=ensure_ascii).encode()
        for name, value in fields.items()
    }
    text = b"".join(b',"%s":%s' % (name.encode(), value) for name, value in written.items())
    asked = understood(b'{"model":"m","messages":' + MESSAGES + text + b"}")
    assert {name: bytes(raw) for name, raw in asked.fields.items()} == {
        "messages": MESSAGES,
        **written,
    }
    assert asked.prompt == PromptSize(text_bytes=len(MESSAGES))


def test_a_stream_is_always_asked_for_its_usage_and_a_plain_request_never() -> None:
    options = {"include_usage": False, "continuous_usage_stats": True}
    sent = forwarded(body_with(stream=True, stream_options=options))
    assert sent["stream"] is True
    assert sent["stream_options"] == {"include_usage": True}
    sent = forwarded(body_with(stream=False, stream_options=options))
    assert sent["stream"] is False
    assert "stream_options" not in sent


@pytest.mark.parametrize("kind", ["web_search", "mcp", "code_interpreter", None, 7])
def test_tools_that_engines_would_run_themselves_are_refused(kind: object) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}, {"type": kind}]
    refusal = refused(body_with(tools=tools))
    assert refusal.kind is RefusalKind.UNSUPPORTED_PARAMETER
    assert refusal.param == "tools[1].type"


def test_tools_without_a_type_are_functions_and_null_is_no_tools() -> None:
    assert "tools" in forwarded(body_with(tools=[{"function": {"name": "f"}}]))
    assert "tools" not in forwarded(body_with(tools=None))


def test_white_space_and_escapes_do_not_inflate_the_bound() -> None:
    compact = understood(body_with(messages=[{"role": "user", "content": "中"}]))
    spaced = b'{"model":"m","messages": [ { "role" : "user" ,\n "content" : "\\u4e2d" } ] }'
    assert understood(spaced).prompt == compact.prompt


def test_a_nul_in_the_text_is_text() -> None:
    asked = understood(body_with(messages=[{"role": "user", "content": "a\x00b"}]))
    assert b"\\u0000" in sent_chat(asked, model="m", output_tokens=1)


PART_NAMES = ("role", "content", "type", "text", "image_url", "url", "name", "tool_calls")
OTHER_NAMES = ("function", "arguments", "temperature", "n_predict")
NAMES = st.sampled_from([*READ_HERE, *RENDERED, *PART_NAMES, *OTHER_NAMES])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.dictionaries(NAMES, JSON), st.booleans())
def test_any_json_body_is_understood_or_refused(body: dict[str, object], plausible: bool) -> None:
    if plausible:
        body = {**body, "model": "m", "messages": [{"role": "user", "content": body}]}
    result = understand_chat(json.dumps(body).encode())
    if isinstance(result, Asked):
        limits = ModelLimits(None, None, None)
        assert isinstance(bound(result, limits, capped=False), Bound)
        assert json.loads(sent_chat(result, model="m", output_tokens=1))
    else:
        assert render(result, request_id="r").status == 400


@given(st.binary() | st.binary().map(lambda tail: b'{"model":"m","messages":' + tail))
def test_any_bytes_are_understood_or_refused(body: bytes) -> None:
    assert isinstance(understand_chat(body), Asked | Refusal)
