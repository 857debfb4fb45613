"""Requests in Anthropic's dialect: what a neuron gets of them, and what is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.anthropic import READ, AnthropicAsked, understand_messages
from cortexd.dialects.asked import Asked
from cortexd.dialects.openai import understand_chat
from cortexd.dialects.refusals import Refusal, RefusalKind, render
from cortexd.dialects.upper_bound import ModelLimits, bound
from tests.dialects.surfaces import sent_chat
from tests.support.anthropic_requests import REQUESTS, Json, kept, parsed_calls

HI = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0K"}
IMAGE_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}}


def body_with(**fields: object) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 9, "messages": HI, **fields}).encode()


def understood(body: bytes, *forward_fields: str) -> AnthropicAsked:
    asked = understand_messages(body, forward_fields=frozenset(forward_fields))
    assert isinstance(asked, AnthropicAsked), asked
    return asked


def chat_of(body: bytes, *forward_fields: str) -> Json:
    sent = sent_chat(understood(body, *forward_fields).asked, model="m", output_tokens=77)
    decoded: Json = json.loads(sent)
    return decoded


def messages_of(content: object, role: str = "user") -> list[Json]:
    messages: list[Json] = chat_of(body_with(messages=[{"role": role, "content": content}]))[
        "messages"
    ]
    return messages


def refused(body: bytes) -> Refusal:
    refusal = understand_messages(body)
    assert isinstance(refusal, Refusal), refusal
    return refusal


NAMES = ["type", "text", "content", "role", "source", "data", "input", "id", "name", "thinking"]
NAMES += ["tool_use_id", "is_error", "input_schema", "schema", "format", "effort", "user_id", "url"]
TYPES = ["text", "image", "document", "tool_use", "tool_result", "thinking", "base64", "url"]
TYPES += ["search_result", "user", "assistant", "system", "json_schema", "enabled", "tool", "auto"]
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(TYPES),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5)
    ),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(sorted(READ)), ODD, max_size=4), st.lists(ODD, max_size=3))
def test_any_json_is_understood_or_refused(fields: Json, content: list[Json]) -> None:
    turns = [{"role": "assistant", "content": content}, {"role": "user", "content": content}]
    for body in (body_with(**fields), body_with(**{**fields, "messages": turns})):
        answer = understand_messages(body)
        if isinstance(answer, AnthropicAsked):
            sent = sent_chat(answer.asked, model="m", output_tokens=7)
            assert isinstance(understand_chat(sent), Asked)
        else:
            assert render(answer, request_id="r").status == 400


def test_an_ordinary_request_becomes_a_chat() -> None:
    body = body_with(system="Be brief.", stream=True, temperature=0.5, top_p=0.9, top_k=40)
    asked = understood(body).asked
    assert (asked.model, asked.stream, asked.include_usage) == ("m", True, False)
    assert (asked.choices, asked.output_requested, asked.dropped) == (1, 9, ())
    assert chat_of(body) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, *HI],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "max_tokens": 77,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_without_max_tokens_the_models_own_limit_counts() -> None:
    body = json.dumps({"model": "m", "messages": HI}).encode()
    asked = understood(body).asked
    assert asked.output_requested is None
    ceiling = bound(asked, ModelLimits(None, None, output=123), capped=True)
    assert not isinstance(ceiling, Refusal)
    assert ceiling.output_tokens == 123


@given(REQUESTS)
def test_a_chat_keeps_all_of_a_request_that_a_chat_can_say(request: Json) -> None:
    body = json.dumps(request).encode()
    chat = chat_of(body)
    assert parsed_calls(chat["messages"]) == kept(request)
    tools = [
        {
            "name": tool["name"],
            "parameters": tool["input_schema"],
            **{name: tool[name] for name in ("description", "strict") if name in tool},
        }
        for tool in request.get("tools", [])
    ]
    assert [tool["function"] for tool in chat.get("tools", [])] == tools
    assert chat.get("temperature") == request.get("temperature")
    assert chat.get("top_k") == request.get("top_k")
    assert chat.get("stop", []) == request.get("stop_sequences", [])
    assert chat.get("user") == request.get("metadata", {}).get("user_id")


@given(REQUESTS)
def test_the_sizes_of_a_prompt_are_those_of_the_chat_that_a_neuron_gets(request: Json) -> None:
    """The bound is then as good as that of a chat; and nothing is sent that a chat may not send."""
    asked = understood(json.dumps(request).encode()).asked
    again = understand_chat(sent_chat(asked, model="m", output_tokens=7))
    assert isinstance(again, Asked)
    assert again.prompt == asked.prompt
    assert again.fields.keys() == asked.fields.keys()
    assert not again.dropped


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}'],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    assert refused(body).kind is RefusalKind.INVALID_JSON


@pytest.mark.parametrize("depth", [300, 5000])
def test_nesting_beyond_reason_is_refused_or_fine(depth: int) -> None:
    deep: Any = b"[" * depth + b"]" * depth
    body = b'{"model":"m","messages":[{"role":"assistant","content":[{"type":"tool_use","id":"i",'
    body += b'"name":"f","input":{"a":' + deep + b"}}]}]}"
    answer = understand_messages(body)
    assert isinstance(answer, AnthropicAsked) or answer.kind is RefusalKind.INVALID_JSON


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"model": None}, RefusalKind.MISSING_REQUIRED_PARAMETER, "model"),
        ({"model": " "}, RefusalKind.INVALID_PARAMETER, "model"),
        ({"messages": None}, RefusalKind.MISSING_REQUIRED_PARAMETER, "messages"),
        ({"messages": []}, RefusalKind.INVALID_PARAMETER, "messages"),
        (
            {"messages": [{"role": "system", "content": ""}]},
            RefusalKind.INVALID_PARAMETER,
            "messages",
        ),
        ({"messages": "hi"}, RefusalKind.INVALID_PARAMETER, "messages"),
        ({"messages": ["hi"]}, RefusalKind.INVALID_PARAMETER, "messages[0]"),
        ({"max_tokens": 0}, RefusalKind.INVALID_PARAMETER, "max_tokens"),
        ({"max_tokens": 1.5}, RefusalKind.INVALID_PARAMETER, "max_tokens"),
        ({"max_tokens": True}, RefusalKind.INVALID_PARAMETER, "max_tokens"),
        ({"stream": "yes"}, RefusalKind.INVALID_PARAMETER, "stream"),
        ({"system": 5}, RefusalKind.INVALID_PARAMETER, "system"),
        ({"system": [5]}, RefusalKind.INVALID_PARAMETER, "system[0]"),
        ({"system": [{"type": "text"}]}, RefusalKind.INVALID_PARAMETER, "system[0].text"),
        (
            {"system": [{"type": "image", "source": PNG}]},
            RefusalKind.INVALID_PARAMETER,
            "system[0].type",
        ),
        ({"temperature": "hot"}, RefusalKind.INVALID_PARAMETER, "temperature"),
        ({"top_k": True}, RefusalKind.INVALID_PARAMETER, "top_k"),
        ({"stop_sequences": "x"}, RefusalKind.INVALID_PARAMETER, "stop_sequences"),
        ({"stop_sequences": [5]}, RefusalKind.INVALID_PARAMETER, "stop_sequences"),
        ({"thinking": "on"}, RefusalKind.INVALID_PARAMETER, "thinking"),
        ({"thinking": {}}, RefusalKind.INVALID_PARAMETER, "thinking.type"),
        ({"metadata": 5}, RefusalKind.INVALID_PARAMETER, "metadata"),
        (
            {"output_config": {"format": {"type": "xml"}}},
            RefusalKind.INVALID_PARAMETER,
            "output_config.format",
        ),
        ({"output_format": 5}, RefusalKind.INVALID_PARAMETER, "output_format"),
        ({"tools": {}}, RefusalKind.INVALID_PARAMETER, "tools"),
        ({"tools": [{"input_schema": {}}]}, RefusalKind.INVALID_PARAMETER, "tools[0].name"),
        ({"tools": [{"name": "f"}]}, RefusalKind.INVALID_PARAMETER, "tools[0].input_schema"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            RefusalKind.UNSUPPORTED_PARAMETER,
            "tools[0].type",
        ),
        (
            {"tools": [{"type": "bash_20250124", "name": "bash"}]},
            RefusalKind.UNSUPPORTED_PARAMETER,
            "tools[0].type",
        ),
        ({"tool_choice": {"type": "some"}}, RefusalKind.INVALID_PARAMETER, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, RefusalKind.INVALID_PARAMETER, "tool_choice.name"),
        (
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}},
            RefusalKind.INVALID_PARAMETER,
            "tool_choice.disable_parallel_tool_use",
        ),
    ],
)
def test_a_wrong_field_is_refused_by_name(
    fields: Json, kind: RefusalKind, param: str | None
) -> None:
    refusal = refused(body_with(**fields))
    assert (refusal.kind, refusal.param) == (kind, param)
    assert param is None or param in refusal.message


USE: Json = {"type": "tool_use", "id": "i", "name": "f", "input": {"a": 1}}
CALL = {"id": "i", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([USE], {"content": None, "tool_calls": [CALL]}),
        ([{"type": "text", "text": "See."}, USE], {"content": "See.", "tool_calls": [CALL]}),
        (
            [{"type": "thinking", "thinking": "Hm.", "signature": "s"}],
            {"content": "", "reasoning_content": "Hm."},
        ),
        ([{"type": "thinking", "thinking": "", "signature": "s"}], {"content": ""}),
        ([], {"content": ""}),
    ],
)
def test_a_turn_of_the_assistant_is_one_message(blocks: list[Json], message: Json) -> None:
    assert messages_of(blocks, role="assistant") == [{"role": "assistant", **message}]


C = "messages[0].content"


@pytest.mark.parametrize(
    ("turn", "kind", "param"),
    [
        ({"role": "tool", "content": "x"}, RefusalKind.INVALID_PARAMETER, "messages[0].role"),
        ({"role": "user"}, RefusalKind.INVALID_PARAMETER, C),
        ({"role": "user", "content": 5}, RefusalKind.INVALID_PARAMETER, C),
        ({"role": "user", "content": ["x"]}, RefusalKind.INVALID_PARAMETER, f"{C}[0]"),
        ({"role": "user", "content": [{}]}, RefusalKind.INVALID_PARAMETER, f"{C}[0].type"),
        ({"role": "assistant", "content": None}, RefusalKind.INVALID_PARAMETER, C),
        (
            {"role": "user", "content": [{"type": "hologram"}]},
            RefusalKind.UNSUPPORTED_PARAMETER,
            f"{C}[0].type",
        ),
        (
            {"role": "assistant", "content": [{"type": "image", "source": PNG}]},
            RefusalKind.UNSUPPORTED_PARAMETER,
            f"{C}[0].type",
        ),
        (
            {"role": "user", "content": [{"type": "image"}]},
            RefusalKind.INVALID_PARAMETER,
            f"{C}[0].source",
        ),
        (
            {"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]},
            RefusalKind.UNSUPPORTED_PARAMETER,
            f"{C}[0].source.type",
        ),
        (
            {"role": "user", "content": [{"type": "image", "source": {"type": "url"}}]},
            RefusalKind.INVALID_PARAMETER,
            f"{C}[0].source.url",
        ),
        (
            {"role": "user", "content": [{"type": "document", "source": {"type": "text"}}]},
            RefusalKind.INVALID_PARAMETER,
            f"{C}[0].source.data",
        ),
        (
            {"role": "user", "content": [{"type": "document", "source": {"type": "url"}}]},
            RefusalKind.UNSUPPORTED_PARAMETER,
            f"{C}[0].source.type",
        ),
        (
            {"role": "user", "content": [{"type": "tool_result", "content": "x"}]},
            RefusalKind.INVALID_PARAMETER,
            f"{C}[0].tool_use_id",
        ),
        (
            {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text"}]}]},
            RefusalKind.INVALID_PARAMETER,
            f"{C}[0].content[0].text",
        ),
        (
            {"role": "assistant", "content": [{"type": "tool_use", "id": "i", "name": "f"}]},
            RefusalKind.INVALID_PARAMETER,
            f"{C}[0].input",
        ),
    ],
)
def test_a_wrong_block_is_refused_by_its_place(turn: Json, kind: RefusalKind, param: str) -> None:
    refusal = refused(body_with(messages=[turn]))
    assert (refusal.kind, refusal.param) == (kind, param)


def test_system_turns_join_the_system_message_at_the_front() -> None:
    """Claude Code sends some in the middle; most templates take one, and take it first."""
    system = [{"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}}]
    turns = [*HI, {"role": "system", "content": "B"}, {"role": "user", "content": "more"}]
    assert chat_of(body_with(system=system, messages=turns))["messages"] == [
        {"role": "system", "content": "A\n\nB"},
        *HI,
        {"role": "user", "content": "more"},
    ]


def test_a_conversation_of_system_turns_alone_is_one_system_message() -> None:
    turns = [{"role": "system", "content": "A"}]
    assert chat_of(body_with(messages=turns))["messages"] == turns


BILLING = "x-anthropic-billing-header: cc_version=2.1; cch=%s;"


@pytest.mark.parametrize(
    ("system", "text"),
    [
        ([BILLING, "You are."], "You are."),
        ([BILLING + "\nYou are."], "You are."),
        (["You are.\n" + BILLING + "\nReally."], "You are.\nReally."),
        (["Say x-anthropic-billing-header: twice."], "Say x-anthropic-billing-header: twice."),
    ],
)
def test_the_billing_line_never_reaches_a_neuron(system: list[str], text: str) -> None:
    """It holds a hash that is another for every request, so that no prefix could be cached."""
    bodies = [
        body_with(system=[{"type": "text", "text": each.replace("%s", hash)} for each in system])
        for hash in ("abc", "123")
    ]
    first, second = map(chat_of, bodies)
    assert first == second
    assert first["messages"][0] == {"role": "system", "content": text}


def test_a_system_prompt_of_nothing_but_billing_is_none() -> None:
    assert chat_of(body_with(system=BILLING))["messages"] == HI


def test_a_users_words_about_billing_stay() -> None:
    turns = [{"role": "user", "content": BILLING}]
    assert chat_of(body_with(messages=turns))["messages"] == turns


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        (
            {"type": "text", "media_type": "text/plain", "data": "body"},
            "Title\nContext\nbody",
        ),
        ({"type": "content", "content": "body"}, "Title\nContext\nbody"),
        (
            {"type": "content", "content": [{"type": "image", "source": PNG}]},
            [{"type": "text", "text": "Title"}, {"type": "text", "text": "Context"}, IMAGE_PART],
        ),
        (
            {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
            [
                {"type": "text", "text": "Title"},
                {"type": "text", "text": "Context"},
                {
                    "type": "file",
                    "file": {
                        "filename": "Title",
                        "file_data": "data:application/pdf;base64,JVBE",
                    },
                },
            ],
        ),
    ],
)
def test_a_document_keeps_its_title_and_context(source: Json, parts: object) -> None:
    document = {"type": "document", "title": "Title", "context": "Context", "source": source}
    assert messages_of([document]) == [{"role": "user", "content": parts}]


def test_a_pdf_without_a_title_counts_as_a_file_for_the_bound() -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBE" * 1000}
    turns = [{"role": "user", "content": [{"type": "document", "source": source}]}]
    asked = understood(body_with(messages=turns)).asked
    assert (asked.prompt.files, asked.prompt.images) == (1, 0)
    assert asked.prompt.media_bytes > 4000 > asked.prompt.text_bytes
    assert json.loads(bytes(asked.fields["messages"]))[0]["content"][0]["file"]["filename"]


def test_search_results_and_tool_references_are_told_as_text() -> None:
    found: Json = {"type": "search_result", "title": "T", "source": "S"}
    found["content"] = [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]
    assert messages_of([found]) == [{"role": "user", "content": "T\nS\nA\nB"}]
    reference = {"type": "tool_reference", "tool_name": "grep"}
    result = {"type": "tool_result", "tool_use_id": "i", "content": [reference]}
    assert messages_of([result]) == [{"role": "tool", "tool_call_id": "i", "content": "grep"}]


def test_images_in_a_tool_result_are_shown_by_the_user_before_the_rest() -> None:
    text = {"type": "text", "text": "saw"}
    result: Json = {"type": "tool_result", "tool_use_id": "i", "is_error": True}
    result["content"] = [text, {"type": "image", "source": PNG}]
    assert messages_of([{"type": "text", "text": "and?"}, result]) == [
        {"role": "tool", "tool_call_id": "i", "content": "Error: saw"},
        {"role": "user", "content": [IMAGE_PART, {"type": "text", "text": "and?"}]},
    ]


def test_what_only_anthropics_servers_can_read_is_left_out_and_logged() -> None:
    blocks = [
        {"type": "redacted_thinking", "data": "x"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "text", "text": "found"},
    ]
    body = body_with(messages=[*HI, {"role": "assistant", "content": blocks}, *HI])
    asked = understood(body).asked
    assert asked.dropped == ("redacted_thinking", "server_tool_use", "web_search_tool_result")
    assert chat_of(body)["messages"][1] == {"role": "assistant", "content": "found"}
    upload = {"type": "container_upload", "file_id": "f"}
    assert messages_of([upload, *blocks[3:]]) == [{"role": "user", "content": "found"}]


def test_a_last_turn_of_the_assistant_is_gone_on_with() -> None:
    prefill = [*HI, {"role": "assistant", "content": "The best is ("}]
    chat = chat_of(body_with(messages=prefill))
    assert (chat["continue_final_message"], chat["add_generation_prompt"]) == (True, False)
    for content in ([{"type": "text", "text": "Let me see."}, USE], ""):
        last = {"role": "assistant", "content": content}
        assert "continue_final_message" not in chat_of(body_with(messages=[*HI, last]))
    over = [*prefill, {"role": "system", "content": "Be brief."}]
    assert "continue_final_message" not in chat_of(body_with(messages=over))


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "f"},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
        ({"type": "auto", "disable_parallel_tool_use": False}, {"tool_choice": "auto"}),
    ],
)
def test_the_choice_among_tools_is_translated(choice: Json, told: Json) -> None:
    tool = {"name": "f", "description": "d", "input_schema": SCHEMA, "cache_control": {}}
    chat = chat_of(body_with(tools=[tool], tool_choice=choice))
    function = {"name": "f", "description": "d", "parameters": SCHEMA}
    assert chat["tools"] == [{"type": "function", "function": function}]
    assert {name: chat[name] for name in chat if "tool_c" in name} == told


def test_a_choice_among_no_tools_is_left_out() -> None:
    """Engines refuse one, and a list of none."""
    chat = chat_of(body_with(tools=[], tool_choice={"type": "auto"}))
    assert not chat.keys() & {"tools", "tool_choice"}
    assert "tool_choice" not in chat_of(body_with(tool_choice={"type": "any"}))


def test_tools_that_look_for_tools_are_needless() -> None:
    search = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
    tool = {"name": "f", "input_schema": SCHEMA, "defer_loading": True}
    body = body_with(tools=[search, tool])
    assert [each["function"]["name"] for each in chat_of(body)["tools"]] == ["f"]
    assert understood(body).asked.dropped == ("tool_search_tool_regex_20251119",)


@pytest.mark.parametrize(
    ("config", "thinking", "hidden"),
    [
        (None, None, False),
        ({"type": "enabled", "budget_tokens": 2000}, True, False),
        ({"type": "adaptive", "display": "omitted"}, True, True),
        ({"type": "between_tools"}, True, False),
        ({"type": "disabled"}, False, False),
    ],
)
def test_thinking_is_a_switch_of_the_template(
    config: Json | None, thinking: bool | None, hidden: bool
) -> None:
    asked = understood(body_with(thinking=config))
    assert (asked.thinking, asked.hide_thinking) == (thinking, hidden)
    told = chat_of(body_with(thinking=config)).get("chat_template_kwargs")
    assert told == (None if thinking is None else {"enable_thinking": thinking})


@pytest.mark.parametrize(
    ("effort", "told", "dropped"),
    [
        ("low", "low", ()),
        ("medium", "medium", ()),
        ("high", None, ()),
        ("xhigh", "high", ()),
        ("max", "high", ()),
        ("ludicrous", None, ("output_config.effort",)),
        (5, None, ("output_config.effort",)),
    ],
)
def test_effort_is_told_where_it_is_not_the_usual_one(
    effort: object, told: str | None, dropped: tuple[str, ...]
) -> None:
    body = body_with(output_config={"effort": effort})
    assert chat_of(body).get("reasoning_effort") == told
    assert understood(body).asked.dropped == dropped


@pytest.mark.parametrize("where", ["output_config", "output_format"])
def test_a_schema_for_the_answer_is_translated_from_both_places(where: str) -> None:
    form = {"type": "json_schema", "schema": SCHEMA}
    chat = chat_of(body_with(**{where: {"format": form} if where == "output_config" else form}))
    assert chat["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
    }


def test_stop_sequences_are_told_and_remembered() -> None:
    asked = understood(body_with(stop_sequences=["END", "\n"]))
    assert asked.stop_sequences == ("END", "\n")
    assert json.loads(bytes(asked.asked.fields["stop"])) == ["END", "\n"]
    assert "stop" not in understood(body_with(stop_sequences=[])).asked.fields


def test_what_a_chat_has_no_place_for_is_taken_out_and_named() -> None:
    body = body_with(service_tier="auto", container="c", mcp_servers=[], n_predict=-1, n=5)
    asked = understood(body).asked
    assert asked.fields.keys() == {"messages"}
    assert asked.dropped == ("service_tier", "container", "mcp_servers", "n_predict", "n")
    many = understood(body_with(**{f"field{n}": 1 for n in range(50)})).asked
    assert len(many.dropped) == 8


def test_the_operator_can_let_fields_through_but_none_that_a_translation_writes() -> None:
    body = body_with(guided="x", stop=["s"], max_completion_tokens=5, n_predict=5, metadata={})
    names = ("guided", "stop", "max_completion_tokens", "n_predict", "metadata")
    asked = understood(body, *names).asked
    assert asked.fields.keys() == {"messages", "guided"}
    assert asked.prompt.tools_bytes == len('"x"')


def test_a_user_id_that_is_no_text_is_nobody() -> None:
    assert "user" not in chat_of(body_with(metadata={"user_id": 5}))
    assert chat_of(body_with(metadata={"user_id": "u"}))["user"] == "u"
