"""Counting and checking what a request says."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.demo.errors import NeuronError
from cortexd.demo.prompt import IMAGE_TOKENS, count_pieces, understand_chat, understand_embeddings

JSON = "application/json; charset=utf-8"


def chat(**fields: object) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return json.dumps(body).encode()


def refusal(body: bytes, content_type: str | None = JSON) -> tuple[int, str]:
    with pytest.raises(NeuronError) as caught:
        understand_chat(body, content_type)
    error = msgspec.json.decode(caught.value.reply.body)["error"]
    return caught.value.reply.status, error["code"]


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "u"]),
        "content": TEXT
        | st.none()
        | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXT})),
    },
    optional={"name": TEXT, "tool_calls": st.lists(st.dictionaries(TEXT, TEXT), max_size=2)},
)


@given(messages=st.lists(MESSAGE, min_size=1), ascii_only=st.booleans())
def test_a_text_prompt_never_has_more_tokens_than_its_messages_have_bytes(
    messages: list[dict[str, object]], ascii_only: bool
) -> None:
    written = json.dumps(messages, separators=(",", ":"), ensure_ascii=ascii_only).encode()
    body = b'{"model":"m","messages":' + written + b"}"

    assert 1 <= understand_chat(body, JSON).prompt_tokens <= len(written)


def test_tokens_are_short_words_and_marks() -> None:
    assert count_pieces("Tokenizers, 12 of them!") == 7


def test_tools_and_images_are_counted() -> None:
    plain = understand_chat(chat(), JSON).prompt_tokens
    tools = understand_chat(chat(tools=[{"type": "function"}]), JSON).prompt_tokens
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    seen = understand_chat(chat(messages=image), JSON)

    assert plain == 3 + 4 + 1
    assert tools > plain
    assert (seen.prompt_tokens, seen.images) == (3 + 4 + IMAGE_TOKENS, 1)


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, None),
        ({"max_tokens": 8}, 8),
        ({"max_tokens": 8, "max_completion_tokens": 64}, 64),
        ({"max_tokens": -1}, None),
    ],
)
def test_the_newer_spelling_of_the_limit_wins(fields: dict[str, object], limit: int | None) -> None:
    assert understand_chat(chat(**fields), JSON).output_tokens_max == limit


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (chat(), "text/plain", (415, "unsupported_media_type")),
        (chat(), None, (415, "unsupported_media_type")),
        (b"{", JSON, (400, "malformed_json")),
        (b'{"model":"\xff","messages":[]}', JSON, (400, "malformed_json")),
        (b"[]", JSON, (422, "invalid_request_body")),
        (chat(messages=[]), JSON, (422, "invalid_request_body")),
        (chat(messages=[{"content": "x"}]), JSON, (422, "invalid_request_body")),
        (chat(max_tokens="8"), JSON, (422, "invalid_request_body")),
        (
            chat(messages=[{"role": "user", "content": [{"type": "smell"}]}]),
            JSON,
            (422, "template_render_failed"),
        ),
        (
            b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}',
            JSON,
            (400, "malformed_json"),
        ),
    ],
)
def test_a_bad_body_is_refused_by_the_row_that_fits(
    body: bytes, content_type: str | None, expected: tuple[int, str]
) -> None:
    assert refusal(body, content_type) == expected


@pytest.mark.parametrize(
    ("given_input", "texts", "tokens"),
    [
        ("hello world", 1, 3),
        (["hello", "big world"], 2, 5),
        ([1, 2, 3], 1, 3),
        ([[1, 2], [3]], 2, 3),
    ],
)
def test_every_shape_of_embeddings_input_is_counted(
    given_input: object, texts: int, tokens: int
) -> None:
    body = json.dumps({"model": "m", "input": given_input}).encode()
    understood = understand_embeddings(body, JSON)

    assert (len(understood.texts), understood.prompt_tokens) == (texts, tokens)


def test_embeddings_of_nothing_are_refused() -> None:
    with pytest.raises(NeuronError):
        understand_embeddings(b'{"model":"m","input":[]}', JSON)
