"""Messages of neurons that speak Anthropic's dialect: plain ones, usage, and streams in any cut."""

import json
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.anthropic_native import (
    native_body,
    native_reply,
    native_usage,
    spoken_bytes,
)
from cortexd.dialects.anthropic_native_stream import NativeStream
from cortexd.dialects.body import Body
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.dialects.usage import Seen, Usage
from tests.support.anthropic_grammar import Told, read_stream

START: dict[str, object] = {
    "id": "theirs",
    "type": "message",
    "role": "assistant",
    "content": [],
    "model": "org/theirs",
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 9, "output_tokens": 1, "cache_read_input_tokens": None},
}
TOOL: dict[str, object] = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
ENDED = {"stop_reason": "tool_use", "stop_sequence": None}


def frame(kind: str, *, named: bool = True, **fields: object) -> bytes:
    """One event."""
    name = f"event: {kind}\n" if named else ""
    return f"{name}data: {json.dumps({'type': kind, **fields})}\n\n".encode()


def block(index: int, kind: dict[str, object], *deltas: dict[str, object]) -> bytes:
    """A block with its pieces."""
    pieces = [frame("content_block_delta", index=index, delta=delta) for delta in deltas]
    begin = frame("content_block_start", index=index, content_block=kind)
    return begin + b"".join(pieces) + frame("content_block_stop", index=index)


THINKING = block(
    0,
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "thinking_delta", "thinking": "Hm"},
    {"type": "signature_delta", "signature": "x" * 99},
)
TEXT = block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Hé"})
CALL = block(2, TOOL, {"type": "input_json_delta", "partial_json": '{"a":1}'})
END = frame("message_delta", delta=ENDED, usage={"output_tokens": 7}) + frame("message_stop")
WHOLE = frame("message_start", message=START) + frame("ping") + THINKING + TEXT + CALL + END


def stream(*, output_tokens_max: int = 99) -> NativeStream:
    """A filter that nothing has passed yet."""
    return NativeStream(model="ours", request_id="r-1", output_tokens_max=output_tokens_max)


def passed(data: bytes, watcher: NativeStream | None = None) -> bytes:
    """What a client gets of a stream in one piece."""
    watcher = watcher or stream()
    return watcher.feed(data) + watcher.close()


def test_a_whole_stream_is_told_under_our_names_and_counted() -> None:
    watcher = stream()
    told = read_stream(passed(WHOLE, watcher))
    assert (told.start["id"], told.start["model"]) == ("msg_r-1", "ours")
    assert told.ending == "stop"
    assert [each["type"] for each in told.content] == ["thinking", "text", "tool_use"]
    assert json.loads(told.content[2]["input"]) == {"a": 1}
    assert told.usage["input_tokens"] == 9
    assert told.usage["output_tokens"] == 7
    assert watcher.usage == Usage(9, 7)
    assert watcher.seen == Seen(chunks=4, text_bytes=2 + 3 + 1 + 7)


@given(cuts=st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_a_stream_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    watcher, edges = stream(), [0, *sorted(cuts), len(WHOLE)]
    pieces = [WHOLE[start:end] for start, end in pairwise(edges)]
    told = b"".join(map(watcher.feed, pieces)) + watcher.close()
    assert told == passed(WHOLE)


def test_frames_without_a_name_are_given_one() -> None:
    """SDKs see no event where the `event:` line is missing; some servers leave it out."""
    bare = b"".join(
        line for line in WHOLE.splitlines(keepends=True) if not line.startswith(b"event:")
    )
    assert read_stream(passed(bare)) == read_stream(passed(WHOLE))


def test_several_lines_of_data_are_one_event() -> None:
    split = b'data: {"type": "content_block_stop",\ndata: "index": 1}\n\n'
    told = passed(WHOLE.replace(frame("content_block_stop", index=1), split))
    assert read_stream(told) == read_stream(passed(WHOLE))


def test_what_nobody_knows_is_left_out_and_what_says_nothing_is_no_fault() -> None:
    odd = frame("engine_stats", text="secret") + b": comment\n\n" + b"data: [DONE]\n\n"
    told = passed(WHOLE.replace(TEXT, odd + TEXT))
    assert b"secret" not in told
    assert b"[DONE]" not in told
    assert read_stream(told).content == read_stream(passed(WHOLE)).content


@pytest.mark.parametrize("usage", [None, {}, {"output_tokens": None}, {"output_tokens": -1}])
def test_what_a_message_begins_with_is_not_what_it_used(usage: object) -> None:
    """Its `output_tokens` are those of the first moment."""
    end = frame("message_delta", delta=ENDED, usage=usage) + frame("message_stop")
    watcher = stream()
    told = read_stream(passed(WHOLE.replace(END, end), watcher))
    assert watcher.usage is None
    assert told.usage["output_tokens"] == watcher.seen.chunks


def test_a_beginning_that_was_told_is_not_told_again() -> None:
    watcher = stream()
    head = watcher.heartbeat()
    told = head + passed(WHOLE, watcher)
    assert told.count(b"event: message_start") == 1
    assert read_stream(told).usage["input_tokens"] == 9


def test_a_stream_is_cut_where_its_output_is_used_up() -> None:
    watcher = stream(output_tokens_max=2)
    told = read_stream(passed(WHOLE, watcher))
    assert watcher.cut
    assert told.delta == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert [each["type"] for each in told.content] == ["thinking", "text"]


@pytest.mark.parametrize(
    "data",
    [
        frame("message_start", message="no"),
        frame("message_start", message=START) + b"data: 7\n\n",
        frame("content_block_start", index=0),
        frame("content_block_delta", index="0", delta={}),
        frame("error", error={"type": "overloaded_error", "message": "busy"}),
        b'data: {"error":"busy"}\n\n',
        b"data: " + b"x" * (1 << 21),
        WHOLE[:300],
        b"",
        frame("message_stop"),
    ],
)
def test_what_is_not_whole_ends_in_an_error(data: bytes) -> None:
    watcher = stream()
    told: Told = read_stream(watcher.head() + passed(data, watcher))
    assert (told.ending, watcher.failure is not None) == ("error", True)
    assert told.error["type"] == "api_error"
    assert watcher.fault is not None
    assert watcher.feed(WHOLE) == b"", "nothing comes after it"


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        ([{"input_tokens": 3, "output_tokens": 2}], Usage(3, 2)),
        ([{"input_tokens": 3}, {"output_tokens": 2}], Usage(3, 2)),
        ([{"input_tokens": 3}, {"input_tokens": 5, "output_tokens": 2}], Usage(5, 2)),
        (
            [
                {
                    "input_tokens": 3,
                    "cache_read_input_tokens": 4,
                    "cache_creation_input_tokens": 5,
                    "output_tokens": 2,
                }
            ],
            Usage(12, 2, 4),
        ),
        ([{"input_tokens": 3, "cache_read_input_tokens": None, "output_tokens": 2}], Usage(3, 2)),
        ([{"input_tokens": 0, "cache_read_input_tokens": 4, "output_tokens": 2}], Usage(4, 2, 4)),
        ([{"input_tokens": 0, "output_tokens": 2}], None),
        ([{"input_tokens": 3.0, "output_tokens": 2}], None),
        ([{"input_tokens": 9, "cache_read_input_tokens": -4, "output_tokens": 2}], None),
        ([{"input_tokens": True, "output_tokens": 2}], None),
        ([{"input_tokens": 3}], None),
        (["x", None], None),
    ],
)
def test_usage_counts_all_of_the_prompt_or_is_none(
    reported: list[object], usage: Usage | None
) -> None:
    assert native_usage(*reported) == usage


def test_a_plain_message_is_told_under_our_names() -> None:
    theirs = {**START, "content": [{"type": "text", "text": "Hé"}, {**TOOL, "input": {"a": 1}}]}
    reply = native_reply(json.dumps(theirs).encode(), model="ours", request_id="r-1")
    assert reply is not None
    told = json.loads(reply.body)
    assert told == {**theirs, "id": "msg_r-1", "model": "ours"}
    assert (reply.usage, reply.seen) == (Usage(9, 1), Seen(2, 3 + 1 + 7))
    bare = native_reply(
        json.dumps({**theirs, "usage": None}).encode(), model="ours", request_id="r-1"
    )
    assert bare is not None
    assert bare.usage is None
    assert json.loads(bare.body)["usage"]["output_tokens"] == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"type":"error","error":{}}',
        b'{"type":"message","content":"x"}',
        b"\xff",
        b"[" * 100_000,
        b'{"choices":[{"message":{"content":"x"}}]}',
    ],
)
def test_anything_else_is_no_message(body: bytes) -> None:
    assert native_reply(body, model="ours", request_id="r-1") is None


def test_all_that_was_generated_counts_as_spoken() -> None:
    assert spoken_bytes({"type": "text_delta", "text": "Hé"}) == 3
    assert spoken_bytes({"type": "citations_delta", "citation": {"t": "x"}}) > 0
    assert spoken_bytes({"type": "signature_delta", "signature": "x"}) == 0
    assert spoken_bytes({"type": "tool_use", "id": "t", "name": "f", "input": {}}) == 1


BILLING = "x-anthropic-billing-header: cch=1;"


def written(**fields: object) -> dict[str, object]:
    """The body that a neuron gets of a request with these fields."""
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    body = Body(json.dumps(asked).encode())
    extra = {"cache_salt": msgspec.Raw(b"1")}
    sent: dict[str, object] = json.loads(
        native_body(body, model="theirs", output_tokens=7, extra=extra)
    )
    assert (sent["model"], sent["max_tokens"], sent["cache_salt"]) == ("theirs", 7, 1)
    return sent


@pytest.mark.parametrize(
    ("system", "kept"),
    [
        ("Be brief.", "Be brief."),
        (f"{BILLING}\nBe brief.", "Be brief."),
        (BILLING, None),
        ([{"type": "text", "text": BILLING}], None),
        (
            [{"type": "text", "text": f"{BILLING}\nA", "cache_control": {"type": "ephemeral"}}],
            [{"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}}],
        ),
        ([{"type": "text", "text": ""}], [{"type": "text", "text": ""}]),
    ],
)
def test_of_a_system_prompt_only_the_lines_that_always_change_are_left_out(
    system: object, kept: object
) -> None:
    assert written(system=system).get("system") == kept
    turns = [{"role": "user", "content": "hi"}, {"role": "system", "content": system}]
    late = [] if kept is None else [{"role": "system", "content": kept}]
    assert written(messages=turns)["messages"] == [turns[0], *late]


def test_a_choice_among_no_tools_is_left_out_with_them() -> None:
    finder = {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}
    sent = written(tools=[finder], tool_choice={"type": "auto"})
    assert not {"tools", "tool_choice"} & sent.keys()


def test_what_is_said_twice_is_told_once() -> None:
    body = Body(b'{"model":"m","messages":[{"role":"user","content":"a","content":"b"}],"top_k":3}')
    sent = native_body(body, model="m", output_tokens=1, extra={})
    assert b'"content":"a"' not in sent
    assert json.loads(sent)["top_k"] == 3


def test_no_key_of_a_neurons_event_is_taken_for_ours() -> None:
    """An event is told again with all its fields, whatever they are called."""
    end = frame("message_delta", delta=ENDED, usage={"output_tokens": 7}, name="x", self="y")
    told = passed(WHOLE.replace(END, end + frame("message_stop")))
    assert b'"name":"x"' in told
    assert told.endswith(b'data: {"type":"message_stop"}\n\n')


def test_a_delta_that_ends_nothing_is_only_counted() -> None:
    running = frame("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 2})
    watcher = stream()
    told = read_stream(passed(WHOLE.replace(END, running + END), watcher))
    assert (told.ending, watcher.usage) == ("stop", Usage(9, 7))


def test_a_beginning_without_usage_is_given_one() -> None:
    """SDKs reject a stream that begins without."""
    start = {name: value for name, value in START.items() if name != "usage"}
    data = WHOLE.replace(
        frame("message_start", message=START), frame("message_start", message=start)
    )
    watcher = stream()
    told = read_stream(passed(data, watcher))
    assert told.start["usage"]["input_tokens"] == 0
    assert watcher.usage is None, "nobody has counted the prompt"


def test_a_last_event_that_is_too_large_is_no_end() -> None:
    watcher = stream()
    told = watcher.feed(WHOLE[: -len(END)] + b"data: " + b"x" * (1 << 20)) + watcher.close()
    assert read_stream(told).ending == "error"


def test_a_stream_that_never_began_is_refused_in_its_dialect() -> None:
    watcher = stream()
    refusal = Refusal(RefusalKind.NO_NEURON, "why", retry_after_seconds=3)
    told = read_stream(watcher.head() + watcher.refuse(refusal))
    assert (told.ending, told.error["type"]) == ("error", "overloaded_error")
