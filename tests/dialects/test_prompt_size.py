"""Sizes of prompts against what templates really write."""

import json
import unicodedata

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cortexd.dialects.asked import PromptSize
from cortexd.dialects.body import Unfit
from cortexd.dialects.prompt_size import normalised_growth, prompt_size, rendered_bytes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(0, 1e22) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


def size_of(messages: list[dict[str, object]], *rendered: bytes) -> PromptSize:
    return prompt_size(messages, msgspec.json.encode(messages), list(rendered))


def html_safe(text: str) -> str:
    for character in "<>&'":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@pytest.mark.slow
@settings(max_examples=60)
@given(JSON)
@example({"\x7f": None})
def test_json_written_again_by_a_template_is_never_longer_than_the_bound(value: object) -> None:
    bound = rendered_bytes(msgspec.json.encode(value))
    assert len(html_safe(json.dumps(value, indent=4))) <= bound
    assert len(html_safe(json.dumps(value))) <= bound
    assert len(json.dumps(value, ensure_ascii=False).encode()) <= bound


def test_the_bound_of_tools_is_close_to_their_indented_form() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"required": ["a", "b"]}}}
    tools = [tool] * 20
    assert rendered_bytes(msgspec.json.encode(tools)) == len(json.dumps(tools, indent=4))


def test_deep_nesting_costs_no_memory_in_the_square_of_its_size() -> None:
    text = b"[" * 800 + b",".join([b"1"] * 100_000) + b"]" * 800
    assert rendered_bytes(text) > 4 * 800 * 100_000


@pytest.mark.slow
@given(st.text() | st.text(st.characters(min_codepoint=0x300, max_codepoint=0x1200), min_size=300))
def test_normalised_text_is_never_longer_than_the_bound(text: str) -> None:
    encoded = text.encode()
    normal = unicodedata.normalize("NFC", text).encode()
    assert len(normal) <= len(encoded) + normalised_growth(encoded)


@pytest.mark.parametrize(
    "text", ["plain", "naïve 中文 한국어 😀", "Ti" + "\u1ebfng Vi" + "\u1ec7t"]
)
def test_text_that_is_normal_already_is_not_charged_for_growth(text: str) -> None:
    assert normalised_growth(text.encode()) == 0


def test_accents_in_the_wrong_order_are_bounded_across_pieces() -> None:
    text = "e" + "\u0301\u0323" * 1000
    normal = unicodedata.normalize("NFC", text).encode()
    assert len(normal) <= len(text.encode()) + normalised_growth(text.encode())


def test_text_messages_are_as_long_as_their_compact_json() -> None:
    messages: list[dict[str, object]] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "name": "x"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}, "c", 4]},
    ]
    assert size_of(messages) == PromptSize(text_bytes=len(msgspec.json.encode(messages)))


def test_text_that_grows_when_normalised_counts_as_grown() -> None:
    messages: list[dict[str, object]] = [{"role": "user", "content": "\U0001d1c0" * 10}]
    assert size_of(messages).text_bytes == len(msgspec.json.encode(messages)) + 80


URL = {"url": "data:image/png;base64," + "A" * 1000}


@pytest.mark.parametrize(
    ("part", "images", "audios", "files", "media_bytes"),
    [
        ({"type": "image_url", "image_url": URL}, 1, 0, 0, 1022),
        ({"type": "image_url", "image_url": URL["url"]}, 1, 0, 0, 1022),
        ({"type": "image_url", "image_url": None, "uuid": "x"}, 1, 0, 0, 0),
        ({"type": "text", "text": "x", "image_url": None, "image": None}, 0, 0, 0, 0),
        ({"image_url": {"url": "http://x/y"}}, 1, 0, 0, 10),
        ({"type": "image"}, 1, 0, 0, 0),
        ({"type": "image", "images": ["a", "b", "c"]}, 3, 0, 0, 0),
        ({"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}}, 0, 1, 0, 4),
        ({"type": "file", "file": {"file_data": "QUJD"}}, 0, 0, 1, 4),
        ({"type": "file", "file": {"file_id": "f-1"}}, 0, 0, 1, 0),
        ({"type": "video_url", "video_url": {"url": "http://x/y"}}, 0, 0, 1, 10),
        ({"type": "hologram", "hologram": "x"}, 0, 0, 1, 0),
        ({"type": "text", "text": "a picture", "image_url": URL}, 1, 0, 0, 1022),
        ({"type": 7}, 0, 0, 1, 0),
        ({"type": None}, 0, 0, 1, 0),
        ({"type": ["text"]}, 0, 0, 1, 0),
    ],
)
def test_media_counts_by_item_and_its_payload_not_as_text(
    part: dict[str, object], images: int, audios: int, files: int, media_bytes: int
) -> None:
    for content in ([part], part):
        messages: list[dict[str, object]] = [{"role": "user", "content": content}]
        assert size_of(messages) == PromptSize(
            text_bytes=len(msgspec.json.encode(messages)) - media_bytes,
            images=images,
            audios=audios,
            files=files,
            media_bytes=media_bytes,
        )


def test_media_beside_the_content_counts() -> None:
    messages: list[dict[str, object]] = [
        {"role": "user", "content": "x", "images": ["QUJD", "QUJD"], "audio": {"id": "a"}},
        {"role": "user", "content": "x", "images": [], "files": None},
    ]
    size = size_of(messages)
    assert (size.images, size.audios, size.files) == (2, 1, 0)


def test_an_unknown_part_counts_as_a_file_and_as_text() -> None:
    messages: list[dict[str, object]] = [
        {"role": "user", "content": [{"type": "novel", "text": "x" * 1000}]}
    ]
    size = size_of(messages)
    assert size.files == 1
    assert size.text_bytes > 1000


@pytest.mark.slow
@pytest.mark.parametrize("field", ["tool_calls", "function_call"])
@settings(max_examples=30)
@given(arguments=st.dictionaries(st.text(), JSON, max_size=3), as_text=st.booleans())
def test_tool_calls_written_again_are_within_the_bound(
    field: str, arguments: dict[str, object], as_text: bool
) -> None:
    function = {"name": "f", "arguments": json.dumps(arguments) if as_text else arguments}
    call: object = [{"id": "c", "function": function}] if field == "tool_calls" else function
    messages: list[dict[str, object]] = [{"role": "assistant", "content": None, field: call}]
    size = size_of(messages)
    bound = size.text_bytes + size.tools_bytes
    assert len(html_safe(json.dumps(arguments, indent=4))) <= bound
    assert len(html_safe(json.dumps(call, indent=4))) <= bound


ARGUMENTS = st.sampled_from(
    [
        "{}",
        '{"a": [1, {"b": "<c>"}], "n": 1e5}',
        "[[",
        "]]",
        '"',
        '\\"',
        "1e",
        "5",
        "}{",
        "\\\\",
        "é'",
    ]
)


@given(st.lists(st.tuples(ARGUMENTS, ARGUMENTS), max_size=5), st.booleans())
def test_what_calls_add_is_the_sum_of_what_each_of_them_adds(
    arguments: list[tuple[str, str]], with_tools: bool
) -> None:
    """Or odd arguments in one call could hide what the others become."""
    tools = [b'[{"type":"function","function":{"name":"f\\"","parameters":{}}}]'] * with_tools
    messages: list[dict[str, object]] = [
        {"role": "assistant", "tool_calls": [{"function": {"arguments": each}} for each in pair]}
        for pair in arguments
    ]
    alone = [size_of([message]).tools_bytes for message in messages]
    assert size_of(messages, *tools).tools_bytes == sum(alone) + sum(map(rendered_bytes, tools))


def test_odd_tool_calls_do_no_harm() -> None:
    odd: list[object] = [["x"], "calls", 3, [{"function": "f"}], [{"function": {"arguments": 1}}]]
    for calls in odd:
        assert size_of([{"role": "assistant", "tool_calls": calls}]).tools_bytes >= 0


def test_a_tool_result_is_bounded_as_json_written_by_a_template() -> None:
    content = "<b>'Grüße' & 中文</b>"
    messages: list[dict[str, object]] = [{"role": "tool", "content": content}]
    size = size_of(messages)
    assert len(html_safe(json.dumps(content))) <= size.text_bytes + size.tools_bytes
    assert size_of([{"role": "user", "content": content}]).tools_bytes == 0


@pytest.mark.parametrize(
    "role", ["tool", "function", "ipython", "tool_response", "observation", None]
)
@pytest.mark.parametrize("calls", [{}, {"tool_calls": [1]}, {"function_call": {"name": "f"}}])
def test_whoever_is_no_speaker_of_text_may_be_written_as_json(
    role: str | None, calls: dict[str, object]
) -> None:
    """Whatever else the message has: a template looks at the role first."""
    content = "<" * 500
    size = size_of([{"role": role, "content": content, **calls}])
    assert len(html_safe(json.dumps(content))) <= size.text_bytes + size.tools_bytes


NAMES = st.text(max_size=40) | st.sampled_from(
    ["<" * 50, "\u4e2d" * 50, "\ufb2c" * 50, "read_file"]
)


@given(NAMES, NAMES, st.integers(1, 9), st.sampled_from(["nested", "flat", "function_call"]))
def test_a_template_may_name_the_called_tool_at_each_of_its_results(
    name: str, other: str, results: int, form: str
) -> None:
    """As that of gpt-oss does."""
    said: list[dict[str, object]] = []
    for each in (name, other):
        call: dict[str, object] = {"name": each, "arguments": "{}"}
        if form == "function_call":
            said.append({"role": "assistant", "function_call": call})
        else:
            called = {"id": "c", "function": call} if form == "nested" else call
            said.append({"role": "assistant", "tool_calls": [called]})
        said += [{"role": "tool", "tool_call_id": "c", "content": ""}] * results
    size = size_of(said)
    for write in (str, lambda text: html_safe(json.dumps(text))):
        named = sum(
            len(unicodedata.normalize("NFC", write(each)).encode()) for each in (name, other)
        )
        marks = sum(
            len(json.dumps({**message, "content": ""})) for message in said[1 : results + 1]
        )
        assert (results + 1) * named + marks <= size.text_bytes + size.tools_bytes


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "Tool_Calls": []},
        {"role": "assistant", "tool_call\u017f": []},
        {"role": "user", "Content": []},
        {"role": "user", "content": [{"type": "text", "text": "x", "IMAGE_URL": {}}]},
        {"role": "user", "content": "x", "Images": ["AA"]},
        {"role": "assistant", "tool_calls": [{"Function": {"name": "f"}}]},
        {"role": "assistant", "tool_calls": [{"function": {"Arguments": "{}"}}]},
    ],
)
def test_a_key_that_some_engines_read_as_one_that_is_measured_is_refused(
    message: dict[str, object],
) -> None:
    with pytest.raises(Unfit, match=r"must be spelled '[a-z_]+'"):
        size_of([message])
    assert size_of([{"role": "user", "content": "x", "Odd_key": 1}]).images == 0


def test_tools_count_before_each_message_that_equals_the_last_of_the_user() -> None:
    """The template of Mistral writes them there."""
    tools = b'[{"type":"function","function":{"name":"f"}}]'
    turns: list[dict[str, object]] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert size_of(turns, tools).tools_bytes == rendered_bytes(tools)
    assert size_of(turns[:2] * 20, tools).tools_bytes == 20 * rendered_bytes(tools)
    assert size_of(turns[1:2], tools).tools_bytes == rendered_bytes(tools)


def test_a_number_may_be_written_with_all_its_zeros() -> None:
    """By the template engine of llama.cpp."""
    tools = b"[" + b",".join([b"1e308"] * 100) + b"]"
    assert rendered_bytes(tools) >= 100 * len(f"{1e308:f}")


def test_what_a_template_may_write_at_each_message_counts_with_each() -> None:
    messages: list[dict[str, object]] = [{"role": "user", "content": "x"}] * 3
    encoded, said = msgspec.json.encode(messages), b'"<b>"'
    once = prompt_size(messages, encoded, [said])
    each = prompt_size(messages, encoded, [said], at_each=[said])
    assert each.tools_bytes - once.tools_bytes == 3 * rendered_bytes(said)


def test_other_fields_of_the_prompt_count_beside_the_messages() -> None:
    tools = b'[{"type":"function"}]'
    size = size_of([{"role": "user", "content": "x"}], tools, b'"auto"')
    assert size.tools_bytes == rendered_bytes(tools) + 6
