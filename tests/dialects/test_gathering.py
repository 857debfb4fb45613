"""A plain answer gathered from a stream is the plain answer: any of them, cut up in any way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Protocol, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects import gathering as gathering_module
from cortexd.dialects.assembly import Assembly
from cortexd.dialects.completions import CompletionGathering
from cortexd.dialects.gathering import ChatGathering
from cortexd.dialects.openai import plain_reply
from cortexd.dialects.responses import Responses
from cortexd.dialects.responses_stream import ResponsesGathering
from cortexd.dialects.surface import Document, Gathering
from cortexd.dialects.usage import Usage
from tests.dialects.surfaces import UNKNOWN, understood

Json = dict[str, object]
DrawnT = TypeVar("DrawnT")


class Draw(Protocol):
    """`data.draw`, and the `draw` of a composite."""

    def __call__(self, strategy: st.SearchStrategy[DrawnT]) -> DrawnT:
        """Draw one."""


TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
LOGPROBS = st.lists(
    st.fixed_dictionaries({"token": TEXT, "logprob": st.just(-0.5), "top_logprobs": st.just([])}),
    max_size=4,
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text("abc123", min_size=1, max_size=8),
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {"name": st.text("xyz_", min_size=1, max_size=8), "arguments": TEXT}
            ),
        }
    ),
    max_size=3,
)
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
COMMON: Json = {"id": "c-1", "created": 7, "model": "m", "system_fingerprint": "f"}


def optional(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[Json]:
    """Some of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


@st.composite
def chat_choices(draw: st.DrawFn) -> list[Json]:
    """Choices of a plain answer, with everything that a message can hold."""
    choices: list[Json] = []
    for index in range(draw(st.integers(1, 3))):
        message: Json = {"role": "assistant", "content": draw(st.none() | TEXT)}
        message |= draw(optional(reasoning_content=TEXT, refusal=TEXT, annotations=LOGPROBS))
        calls = draw(CALLS)
        if calls:
            message["tool_calls"] = calls
        choice: Json = {"index": index, "message": message}
        choice |= draw(optional(logprobs=st.none() | st.fixed_dictionaries({"content": LOGPROBS})))
        choice |= draw(optional(stop_reason=st.integers(1, 9)))
        choices.append({**choice, "finish_reason": draw(st.sampled_from(["stop", "tool_calls"]))})
    return choices


def pieces_of(draw: Draw, text: str) -> list[str]:
    """A text in as many pieces as it may come in."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    edges = [0, *cuts, len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def chat_deltas(draw: Draw, choice: Json) -> list[Json]:
    """The entries of `choices` that a stream has for one choice, in order."""
    message = choice["message"]
    assert isinstance(message, dict)
    deltas: list[Json] = [{"role": "assistant"}]
    for name, value in message.items():
        if name == "tool_calls":
            for position, call in enumerate(value):
                function = call["function"]
                first = {**call, "index": position, "function": {**function, "arguments": ""}}
                deltas.append({"tool_calls": [first]})
                for piece in pieces_of(draw, function["arguments"]):
                    part = {"index": position, "function": {"arguments": piece}}
                    deltas.append({"tool_calls": [part]})
        elif name == "annotations":
            deltas += [{name: [each]} for each in value] or [{name: []}]
        elif name != "role" and isinstance(value, str):
            deltas += [{name: piece} for piece in pieces_of(draw, value)]
    entries: list[Json] = [{"index": choice["index"], "delta": delta} for delta in deltas]
    if "logprobs" in choice:
        logprobs = choice["logprobs"]
        said: list[object] = [None] if logprobs is None else [{"content": []}]
        if isinstance(logprobs, dict):
            said += [{"content": [each]} for each in logprobs["content"]]
        entries += [{"index": choice["index"], "delta": {}, "logprobs": each} for each in said]
    last = {name: choice[name] for name in ("stop_reason",) if name in choice}
    reason = choice["finish_reason"]
    return [*entries, {"index": choice["index"], "delta": {}, **last, "finish_reason": reason}]


def interleaved(draw: Draw, rows: list[list[Json]]) -> list[Json]:
    """Entries of several choices as they may come: each row in its order."""
    mixed: list[Json] = []
    left = [list(row) for row in rows]
    while any(left):
        row = draw(st.sampled_from([row for row in left if row]))
        mixed.append(row.pop(0))
    return mixed


def on_the_wire(chunks: Iterable[Json], *, done: bool = True) -> bytes:
    """Chunks as events."""
    events = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    return b"".join([*events, b"data: [DONE]\n\n" if done else b""])


def gathered(gathering: Gathering, data: bytes, cuts: Iterable[int] = ()) -> Json:
    """Feed a whole stream in pieces, and read what comes of it."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        assert gathering.feed(data[start:end]) == b""
    assert gathering.close() == b""
    assert gathering.failure is None
    whole: Json = json.loads(gathering.whole())
    return whole


def chat_gathering(choices: int = 1, output_tokens_max: int = 1_000) -> ChatGathering:
    return ChatGathering(model="m", output_tokens_max=output_tokens_max, choices=choices)


@given(st.data(), chat_choices(), st.lists(st.integers(0, 2_000), max_size=5))
def test_a_chat_comes_out_as_the_plain_answer_would_have(
    data: st.DataObject, choices: list[Json], cuts: list[int]
) -> None:
    plain = {**COMMON, "object": "chat.completion", "choices": choices, "usage": USAGE}
    rows = [chat_deltas(data.draw, choice) for choice in choices]
    chunks: list[Json] = [
        {**COMMON, "object": "chat.completion.chunk", "choices": [entry]}
        for entry in interleaved(data.draw, rows)
    ]
    chunks.append({**COMMON, "object": "chat.completion.chunk", "choices": [], "usage": USAGE})
    gathering = chat_gathering(choices=len(choices))
    assert gathered(gathering, on_the_wire(chunks), cuts) == plain
    assert gathering.usage == Usage(9, 3)
    reply = plain_reply(gathering.whole(), model="m")
    assert reply is not None
    by_itself = plain_reply(json.dumps(plain).encode(), model="m")
    assert by_itself is not None
    assert (reply.usage, reply.seen) == (by_itself.usage, by_itself.seen)


@given(st.data(), st.lists(TEXT, min_size=1, max_size=3), st.booleans())
def test_a_text_completion_does_so_too(
    data: st.DataObject, texts: list[str], with_logprobs: bool
) -> None:
    choices: list[Json] = []
    rows: list[list[Json]] = []
    for index, text in enumerate(texts):
        pieces = pieces_of(data.draw, text)
        numbers = [-0.5] * len(pieces)
        row: list[Json] = [{"index": index, "text": piece} for piece in pieces]
        for entry in row:
            if with_logprobs:
                entry["logprobs"] = {"tokens": [entry["text"]], "token_logprobs": [-0.5]}
        rows.append([*row, {"index": index, "text": "", "finish_reason": "length"}])
        choice: Json = {"index": index, "text": text, "finish_reason": "length"}
        if with_logprobs:
            choice["logprobs"] = {"tokens": pieces, "token_logprobs": numbers}
        choices.append(choice)
    chunks = [
        {**COMMON, "object": "text_completion", "choices": [entry]}
        for entry in interleaved(data.draw, rows)
    ]
    gathering = CompletionGathering(model="m", output_tokens_max=1_000, choices=len(texts))
    whole = gathered(gathering, b"data: null\n\n" + on_the_wire(chunks))
    assert whole == {**COMMON, "object": "text_completion", "choices": choices}


def chunk(delta: object, finish: str | None = None, **more: object) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {**COMMON, "object": "chat.completion.chunk", "choices": [choice], **more}


def choice_of(whole: Json) -> Json:
    choices = whole["choices"]
    assert isinstance(choices, list)
    (choice,) = choices
    assert isinstance(choice, dict)
    return choice


def test_an_answer_past_its_output_ends_there() -> None:
    gathering = chat_gathering(output_tokens_max=3)
    for _ in range(9):
        gathering.feed(on_the_wire([chunk({"content": "ab"})], done=False))
    assert gathering.cut
    whole = gathered(gathering, b"")
    choice = choice_of(whole)
    assert choice["finish_reason"] == "length"
    assert choice["message"] == {"role": "assistant", "content": "ababab"}


def test_an_answer_that_never_began_is_still_an_answer_when_it_is_cut() -> None:
    gathering = chat_gathering(output_tokens_max=1)
    usage = {**USAGE, "completion_tokens": 50}
    whole = gathered(gathering, on_the_wire([{**COMMON, "choices": [], "usage": usage}]))
    assert gathering.cut
    choice = choice_of(whole)
    assert choice["message"] == {"role": "assistant", "content": None}
    assert plain_reply(gathering.whole(), model="m") is not None


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (on_the_wire([chunk({"content": "a"})]), "incomplete"),
        (on_the_wire([chunk({"content": "a"})], done=False), "incomplete"),
        (on_the_wire([{"error": {"message": "broke"}}]), "error_event"),
        (b"data: {\n\n", "garbage"),
        (b"proxy error: Failed to read connection", "incomplete"),
        (b"", "incomplete"),
    ],
)
def test_what_is_not_whole_is_a_failure(data: bytes, fault: str) -> None:
    gathering = chat_gathering()
    gathering.feed(data)
    assert gathering.close() == b""
    assert (gathering.fault, gathering.failure is not None) == (fault, True)


def test_there_is_an_end_to_what_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering_module, "STREAM_BYTES_MAX", 500)
    gathering = chat_gathering()
    for _ in range(10):
        gathering.feed(b": still here" + b" " * 90 + b"\n\n")
    assert gathering.fault == "too_long"


def test_an_engine_that_says_a_name_again_means_the_same_call() -> None:
    first = {"index": 0, "id": "i", "type": "function", "function": {"name": "f"}}
    again = {"index": 0, "id": "i", "function": {"name": "f", "arguments": "{}"}}
    chunks = [chunk({"tool_calls": [first]}), chunk({"tool_calls": [again]}, "tool_calls")]
    message = choice_of(gathered(chat_gathering(), on_the_wire(chunks)))["message"]
    assert message == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "i", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ],
    }


@pytest.mark.parametrize("index", [{}, {"index": 0}])
def test_calls_with_ids_of_their_own_are_told_apart_where_their_index_does_not(
    index: dict[str, object],
) -> None:
    """Some engines give no index, or the same to all."""
    pieces: list[Json] = [
        {"id": "1", "function": {"name": "a", "arguments": '{"x":'}},
        {"id": "1", "function": {"arguments": "1}"}},
        {"id": "2", "function": {"name": "b", "arguments": '{"y":'}},
        {"function": {"arguments": "2}"}},
    ]
    chunks = [chunk({"tool_calls": [{**index, **piece}]}) for piece in pieces]
    told = on_the_wire([*chunks, chunk({}, "tool_calls")])
    message = choice_of(gathered(chat_gathering(), told))["message"]
    assert isinstance(message, dict)
    assert message["tool_calls"] == [
        {"id": "1", "function": {"name": "a", "arguments": '{"x":1}'}},
        {"id": "2", "function": {"name": "b", "arguments": '{"y":2}'}},
    ]


def test_an_older_call_of_a_function_is_put_together_too() -> None:
    chunks = [
        chunk({"function_call": {"name": "f", "arguments": "{"}}),
        chunk({"function_call": {"arguments": "}"}}, "function_call"),
    ]
    message = choice_of(gathered(chat_gathering(), on_the_wire(chunks)))["message"]
    assert isinstance(message, dict)
    assert message["function_call"] == {"name": "f", "arguments": "{}"}


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
NAMES = st.sampled_from(
    (
        *("choices", "index", "delta", "content", "tool_calls", "function", "arguments"),
        *("name", "logprobs", "text", "usage"),
    )
)
WILD = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4)
)


@given(st.lists(st.dictionaries(NAMES, WILD, max_size=4), max_size=5), st.booleans())
def test_pieces_of_any_shape_are_put_together_or_left_out(chunks: list[Json], chat: bool) -> None:
    assembly = Assembly(is_chat=chat)
    for each in chunks:
        assembly.add(each)
    assert isinstance(json.dumps(assembly.whole()), str)


def response_event(kind: str, **fields: object) -> bytes:
    body = json.dumps({"type": kind, **fields})
    return f"event: {kind}\ndata: {body}\n\n".encode()


RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "model": "there",
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
    "usage": {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12},
}


def test_a_response_is_what_its_last_event_says() -> None:
    data = response_event("response.created", response={**RESPONSE, "status": "in_progress"})
    data += response_event("response.output_text.delta", delta="hi")
    data += response_event("response.completed", response=RESPONSE)
    gathering = ResponsesGathering(model="m", output_tokens_max=10)
    whole = gathered(gathering, data)
    assert whole == {**RESPONSE, "model": "m"}
    request = understood(Responses(), {"model": "m", "input": "hi"})
    reply = request.read(Document(gathering.whole()), UNKNOWN)
    assert reply is not None
    assert reply.usage == Usage(9, 3)


def test_a_response_past_its_output_is_incomplete() -> None:
    item = {"type": "message", "content": []}
    data = response_event("response.output_item.done", item=item)
    data += b"".join(response_event("response.output_text.delta", delta="x") for _ in range(5))
    gathering = ResponsesGathering(model="m", output_tokens_max=3)
    whole = gathered(gathering, data)
    assert gathering.cut
    assert (whole["status"], whole["output"]) == ("incomplete", [item])


GATHERS: list[Callable[[], Gathering]] = [
    chat_gathering,
    lambda: CompletionGathering(model="m", output_tokens_max=9, choices=1),
    lambda: ResponsesGathering(model="m", output_tokens_max=9),
]


@pytest.mark.parametrize("begin", GATHERS)
@given(data=st.binary(max_size=300))
def test_any_bytes_end_in_a_failure_and_in_nothing_for_a_client(
    begin: Callable[[], Gathering], data: bytes
) -> None:
    gathering = begin()
    assert gathering.feed(data) == b""
    assert gathering.close() == b""
    assert gathering.failure is not None
