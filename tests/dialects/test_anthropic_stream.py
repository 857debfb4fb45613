"""What Anthropic's clients see of a neuron's chat stream."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.anthropic_reply import BAD_ARGUMENTS, NAMELESS_CALL
from cortexd.dialects.anthropic_stream import AnthropicStream
from cortexd.dialects.chat_stream import ChatStream
from cortexd.dialects.usage import Seen, Usage
from tests.dialects.test_chat_stream import JSON
from tests.support.anthropic_grammar import Json, Told, read_stream
from tests.support.chat_answers import ANSWERS, USAGE, Answer, chunk, event

DONE = b"data: [DONE]\n\n"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
END = chunk({}, finish="stop")


def stream_of(*, output_tokens_max: int = 1000, **options: Any) -> AnthropicStream:
    return AnthropicStream(
        model="m", request_id="r-1", output_tokens_max=output_tokens_max, **options
    )


def told_of(data: bytes, **options: Any) -> tuple[Told, AnthropicStream]:
    stream = stream_of(**options)
    return read_stream(stream.feed(data) + stream.close()), stream


def call(
    index: int | None, arguments: object = "", *, id: object = None, name: object = None
) -> Json:
    """A piece of a tool call."""
    piece: Json = {"function": {"arguments": arguments, **({"name": name} if name else {})}}
    return {**({} if index is None else {"index": index}), **({"id": id} if id else {}), **piece}


def calls(*pieces: Json) -> bytes:
    return b"".join(chunk({"tool_calls": [piece]}) for piece in pieces)


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def use(arguments: str, *, id: str = "a", name: str = "f") -> Json:
    return {"type": "tool_use", "id": id, "name": name, "input": arguments}


def test_an_ordinary_answer_is_told_event_by_event() -> None:
    stream = stream_of(input_tokens=12)
    begun = stream.feed(chunk({"role": "assistant", "content": ""}))
    message: Json = {
        "id": "msg_r-1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 12,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 0,
        },
    }
    start = json.dumps({"type": "message_start", "message": message}, separators=(",", ":"))
    assert begun == b"event: message_start\ndata: " + start.encode() + b"\n\n" + PING
    assert stream.feed(chunk({"content": "Hé"})) == (
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"H\xc3\xa9"}}\n\n'
    )
    assert stream.feed(chunk({"content": "!"}) + END) == (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"!"}}\n\n'
    )
    assert stream.feed(event({"choices": [], "usage": USAGE}) + DONE) == b""
    assert (stream.done, stream.finished, stream.failure) == (True, True, None)
    assert (stream.usage, stream.seen) == (Usage(90, 21, 64), Seen(2, 4))
    assert stream.close() == (
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn",'
        b'"stop_sequence":null},"usage":{"input_tokens":26,"cache_creation_input_tokens":0,'
        b'"cache_read_input_tokens":64,"output_tokens":21}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )


def test_the_head_and_heartbeats_can_go_out_before_the_neuron_answers() -> None:
    stream = stream_of()
    sent = stream.heartbeat() + stream.heartbeat() + stream.head() + stream.heartbeat()
    sent += stream.feed(chunk({"content": "x"}) + END + DONE) + stream.close()
    told = read_stream(sent)
    assert (told.pings, told.ending, told.content) == (3, "stop", [text("x")])


def test_a_chat_stream_has_the_same_interface_and_says_nothing_first() -> None:
    stream = ChatStream(include_usage=False, model="m", output_tokens_max=9, choices=1)
    assert stream.head() == b""
    assert stream.heartbeat().startswith(b":")
    assert stream.heartbeat().endswith(b"\n\n")


def test_a_neurons_comment_becomes_a_ping_and_an_empty_event_nothing() -> None:
    stream = stream_of()
    stream.head()
    assert stream.feed(b": alive\n\n\n") == PING


def wholes(answer: Answer) -> list[tuple[str, str]]:
    return answer.blocks or [("text", "")]


@given(ANSWERS)
def test_every_answer_keeps_the_grammar_and_loses_nothing(answer: Answer) -> None:
    told, stream = told_of(answer.stream)
    assert (told.ending == "stop") == (stream.failure is None) == answer.is_whole
    assert told.pings == 1 + answer.stream.count(b": alive\n\n")
    if not answer.is_whole:
        assert told.ending == "error"
        return
    fields = {"text": "text", "thinking": "thinking", "tool_use": "input"}
    content = [(each["type"], each[fields[each["type"]]]) for each in told.content]
    assert content == wholes(answer)
    assert [each["name"] for each in told.content if each["type"] == "tool_use"] == answer.names
    usual = "tool_use" if answer.names else "end_turn"
    assert told.delta["stop_reason"] == ("max_tokens" if answer.finish == "length" else usual)
    if answer.has_usage:
        assert told.usage["input_tokens"] + told.usage["cache_read_input_tokens"] == 90
        assert told.usage["output_tokens"] == 21
    assert not stream.notes


@given(ANSWERS)
def test_a_broken_answer_tells_a_beginning_of_what_came(answer: Answer) -> None:
    told, _ = told_of(answer.stream)
    came = [each["input"] if "input" in each else each[each["type"]] for each in told.content]
    for part, (_, whole) in zip(came, wholes(answer), strict=False):
        assert whole.startswith(part)


@given(ANSWERS)
def test_an_answer_is_watched_as_a_chat_is(answer: Answer) -> None:
    """What is charged cannot depend on the dialect."""
    _, ours = told_of(answer.stream, output_tokens_max=3)
    chats = ChatStream(include_usage=False, model="m", output_tokens_max=3, choices=1)
    chats.feed(answer.stream)
    chats.close()
    for name in ("failure", "fault", "cut", "done", "usage", "seen", "finished"):
        assert getattr(ours, name) == getattr(chats, name), name


@given(ANSWERS, st.integers(1, 7), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_every_split_gives_the_client_the_same_bytes(
    answer: Answer, step: int, line_end: bytes
) -> None:
    data = answer.stream.replace(b"\n", line_end)
    whole = stream_of()
    expected = whole.feed(data) + whole.close()
    stream = stream_of()
    parts = [stream.feed(data[at : at + step]) for at in range(0, len(data), step)]
    assert b"".join(parts) + stream.close() == expected
    for part in parts:
        assert part == b"" or part.endswith(b"\n\n")


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_every_cut_of_one_stream_gives_the_same_bytes(line_end: bytes) -> None:
    data = chunk({"role": "assistant", "content": "", "reasoning_content": "Hm"})
    data += chunk({"content": "Hé"}) + calls(call(0, '{"a"', id="a", name="f"), call(0, ":1}"))
    data = (data + END + event({"choices": [], "usage": USAGE}) + DONE).replace(b"\n", line_end)
    whole = stream_of()
    expected = whole.feed(data) + whole.close()
    assert read_stream(expected).ending == "stop"
    for cut in range(len(data)):
        stream = stream_of()
        assert stream.feed(data[:cut]) + stream.feed(data[cut:]) + stream.close() == expected


def test_thinking_text_and_calls_of_one_chunk_come_in_this_order() -> None:
    delta = {"tool_calls": [call(0, "{}", id="a", name="f")], "content": "T", "reasoning": "R"}
    told, _ = told_of(chunk(delta) + END)
    thought = {"type": "thinking", "thinking": "R", "signature": ""}
    assert told.content == [thought, text("T"), use("{}")]


def test_hidden_thinking_leaves_an_empty_block() -> None:
    data = chunk({"reasoning_content": "se"}) + chunk({"reasoning_content": "cret"})
    stream = stream_of(hide_thinking=True)
    sent = stream.feed(data + chunk({"content": "T"}) + END) + stream.close()
    assert read_stream(sent).content == [
        {"type": "thinking", "thinking": "", "signature": ""},
        text("T"),
    ]
    assert b"cret" not in sent


def test_the_first_call_is_told_as_it_comes_and_the_next_once_it_is_whole() -> None:
    stream = stream_of()
    stream.feed(calls(call(0, '{"a"', id="a", name="f")))
    assert stream.feed(calls(call(1, '{"b"', id="b", name="g"))) == b""
    assert b'":1}"' in stream.feed(calls(call(0, ":1}")))
    opened = stream.feed(calls(call(1, ":")))
    assert b'"content_block_stop","index":0' in opened
    assert rb'"partial_json":"{\"b\":"' in opened
    assert b'"partial_json":"2}"' in stream.feed(calls(call(1, "2}")))


def test_an_object_within_the_arguments_does_not_end_a_call() -> None:
    stream = stream_of()
    stream.feed(calls(call(0, '{"a":{}', id="a", name="f")))
    assert stream.feed(calls(call(1, "{", id="b", name="g"))) == b""
    assert b'"partial_json":"}"' in stream.feed(calls(call(0, "}")))
    assert b'"name":"g"' in stream.feed(calls(call(1, "}")))


def test_text_after_a_call_whose_name_is_late_stays_after_it() -> None:
    data = chunk({"content": "a"}) + calls(call(0, "{}")) + chunk({"content": "b"})
    told, _ = told_of(data + calls(call(0, id="c", name="f")) + END)
    assert told.content == [text("a"), use("{}", id="c"), text("b")]


def test_calls_that_never_become_whole_wait_for_the_end_and_are_noted() -> None:
    pieces = calls(call(0, '{"a"', id="a", name="f"), call(1, "{}", id="b", name="g"))
    told, stream = told_of(pieces + chunk({"content": "af"}) + chunk({"content": "ter"}) + END)
    assert told.content == [use('{"a"'), use("{}", id="b", name="g"), text("after")]
    assert stream.notes == {BAD_ARGUMENTS}


def test_a_call_cut_short_by_its_limit_is_no_call_to_follow_and_no_fault() -> None:
    pieces = calls(call(0, '{"a"', id="a", name="f"))
    told, stream = told_of(pieces + chunk({}, finish="length"))
    assert (told.delta["stop_reason"], stream.notes) == ("max_tokens", frozenset())


@pytest.mark.parametrize(
    ("pieces", "content"),
    [
        # without an index: by id, or else the last one
        (
            [
                call(None, '{"a":', id="a", name="f"),
                call(None, "1}"),
                call(None, "{}", id="b", name="g"),
            ],
            [use('{"a":1}'), use("{}", id="b", name="g")],
        ),
        (
            [
                call(None, '{"a":', id="a", name="f"),
                call(None, "{", id="b", name="g"),
                call(None, "1}", id="a"),
                call(None, "}", id="b"),
            ],
            [use('{"a":1}'), use("{}", id="b", name="g")],
        ),
        # one index for all, as Ollama had it
        (
            [call(0, "{}", id="a", name="f"), call(0, "{}", id="b", name="f")],
            [use("{}"), use("{}", id="b")],
        ),
        # the id and the name again with every piece
        (
            [call(0, '{"a":', id="a", name="f"), call(0, "1}", id="a", name="f")],
            [use('{"a":1}')],
        ),
        # another id with every piece
        ([call(0, '{"a":', id="a", name="f"), call(0, "1}", id="z")], [use('{"a":1}')]),
        # the name late, the id later
        (
            [call(0, "{"), call(0, "", name="f"), call(0, "}", id="b")],
            [use("{}", id="toolu_r-1_0")],
        ),
        ([call(0, "{"), call(0, "}", id="b", name="f")], [use("{}", id="b")]),
        # the same id twice, no id at all
        (
            [call(0, "{}", id="a", name="f"), call(1, "{}", id="a", name="f"), call(2, name="f")],
            [use("{}"), use("{}", id="toolu_r-1_1"), use("", id="toolu_r-1_2")],
        ),
        # arguments as an object, or none yet
        (
            [call(0, None, id="a", name="f"), call(0, {"a": 1})],
            [use('{"a":1}')],
        ),
        # white space after the end of a call
        (
            [call(0, "{}", id="a", name="f"), call(1, "{}", id="b", name="f"), call(0, "\n")],
            [use("{}"), use("{}", id="b")],
        ),
    ],
)
def test_calls_are_told_apart_whatever_engines_leave_out(
    pieces: list[Json], content: list[Json]
) -> None:
    told, stream = told_of(calls(*pieces) + END)
    assert told.content == content
    assert told.delta["stop_reason"] == "tool_use"
    assert not stream.notes


def test_the_call_of_an_older_engine_is_read() -> None:
    pieces = [{"name": "f", "arguments": "{"}, {"arguments": "}"}]
    data = b"".join(chunk({"function_call": piece}) for piece in pieces)
    assert told_of(data + chunk({}, finish="function_call"))[0].content == [
        use("{}", id="toolu_r-1_0")
    ]


def test_a_call_that_goes_on_after_its_end_is_a_failure() -> None:
    pieces = calls(
        call(0, "{}", id="a", name="f"), call(1, "{}", id="b", name="f"), call(0, ',"b":1}')
    )
    told, stream = told_of(pieces + END)
    assert (told.ending, stream.fault) == ("error", "late_arguments")


def test_a_call_without_a_name_is_left_out_and_noted() -> None:
    told, stream = told_of(calls(call(0, "{}", id="a")) + chunk({"content": "x"}) + END)
    assert told.content == [text("x")]
    assert told.delta["stop_reason"] == "end_turn"
    assert stream.notes == {NAMELESS_CALL}


@pytest.mark.parametrize("delta", [{"content": ""}, {"content": None}, {}, {"tool_calls": []}])
def test_an_empty_answer_is_one_empty_block_of_text(delta: Json) -> None:
    told, _ = told_of(chunk(delta) + END)
    assert told.content == [text("")]
    assert told.delta == {"stop_reason": "end_turn", "stop_sequence": None}


def test_a_stop_sequence_is_told() -> None:
    last = event({"choices": [{"index": 0, "finish_reason": "stop", "stop_reason": "END"}]})
    told, _ = told_of(chunk({"content": "x"}) + last, stop_sequences=("END",))
    assert told.delta == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


def test_the_first_finish_reason_counts() -> None:
    told, _ = told_of(chunk({"content": "x"}, finish="length") + END)
    assert told.delta["stop_reason"] == "max_tokens"


def test_other_choices_are_nobodys() -> None:
    other = event({"choices": [{"index": 1, "delta": {"content": "no"}}, 5]})
    told, stream = told_of(chunk({"content": "x"}) + other + END)
    assert told.content == [text("x")]
    assert stream.failure is not None  # the other one never ended
    for index in ("x", 500, -1, True):
        odd = event({"choices": [{"index": index, "delta": {"content": "y"}}]})
        assert told_of(odd + END)[0].content == [text("y")]


def test_usage_that_never_came_is_what_was_counted() -> None:
    told, _ = told_of(chunk({"content": "x"}) + chunk({"content": "y"}) + END, input_tokens=7)
    assert (told.usage["input_tokens"], told.usage["output_tokens"]) == (7, 2)


def test_a_stream_beyond_its_output_is_cut_with_max_tokens() -> None:
    pieces = chunk({"content": "a"}) + calls(call(0, '{"a"', id="a", name="f"))
    told, stream = told_of(pieces + calls(call(0, ":1}")), output_tokens_max=2)
    assert stream.cut
    assert told.content == [text("a"), use('{"a"')]
    assert told.delta == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert told.ending == "stop"


def test_a_stream_that_is_cut_before_it_began_is_a_whole_message() -> None:
    told, stream = told_of(event({"choices": [], "usage": USAGE}), output_tokens_max=2)
    assert stream.cut
    assert (told.ending, told.content, told.usage["output_tokens"]) == ("stop", [text("")], 21)


def test_a_failure_ends_the_open_block_and_names_the_request() -> None:
    stream = stream_of()
    stream.feed(chunk({"content": "a"}))
    stream.feed(b'data: {"error":{"message":"http://beast.lan:8000/x broke"}}\n\n')
    last = stream.close()
    assert last.startswith(b"event: content_block_stop\n")
    assert b'"request_id":"r-1"' in last
    assert b"[hidden] broke" in last
    assert b"message_stop" not in last


def test_a_failure_told_from_outside_is_told_the_client() -> None:
    """The relay knows that a neuron broke off; the stream knows how to say it."""
    stream = stream_of()
    sent = stream.feed(chunk({"content": "a"}))
    stream.failure = "The neuron broke off."
    told = read_stream(sent + stream.close())
    assert (told.ending, told.error["message"]) == ("error", "The neuron broke off.")


def test_chunks_without_choices_tell_nothing() -> None:
    stream = stream_of()
    stream.head()
    assert stream.feed(event({"choices": None, "usage": USAGE}) + event({"choices": []})) == b""
    assert stream.usage == Usage(90, 21, 64)


@pytest.mark.slow
@given(st.lists(JSON, max_size=5))
def test_any_json_in_a_stream_keeps_the_grammar(values: list[object]) -> None:
    stream = stream_of(output_tokens_max=3)
    data = b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)
    marks = [0, len(data) // 3, len(data)]
    sent = b"".join(stream.feed(data[start:end]) for start, end in pairwise(marks))
    told = read_stream((sent or stream.head()) + stream.close())
    assert (told.ending == "stop") == (stream.failure is None)
