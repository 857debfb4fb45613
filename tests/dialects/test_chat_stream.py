"""What a client sees of a neuron's stream, and what is counted."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.chat_stream import ChatStream
from cortexd.dialects.sse import Events
from cortexd.dialects.usage import Seen, Usage

USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
DONE = b"data: [DONE]\n\n"


def chunk(
    delta: object = None,
    *,
    finish: str | None = None,
    index: int = 0,
    model: str = "m",
    **more: object,
) -> bytes:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return event({"choices": [choice], **more}, model=model)


def event(body: dict[str, object], *, model: str = "m") -> bytes:
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": model}
    return b"data: " + json.dumps({**head, **body}).encode() + b"\n\n"


def usage_chunk(usage: object = USAGE, model: str = "m") -> bytes:
    return event({"choices": [], "usage": usage}, model=model)


def stream_of(
    *, include_usage: bool = False, output_tokens_max: int = 100, choices: int = 1
) -> ChatStream:
    return ChatStream(
        include_usage=include_usage,
        model="m",
        output_tokens_max=output_tokens_max,
        choices=choices,
    )


def bodies(data: bytes) -> list[dict[str, object]]:
    events = Events().feed(data)
    return [json.loads(e.data) for e in events if e.data is not None and e.data != b"[DONE]"]


HELLO = chunk({"role": "assistant", "content": ""}) + b": still here\n\n" + chunk({"content": "Hé"})
TEXT = HELLO + chunk({"content": "llo"})
END = chunk(finish="stop")


def test_a_plain_stream_passes_byte_for_byte_and_its_usage_chunk_is_taken_out() -> None:
    stream = stream_of()
    assert stream.feed(TEXT + END + usage_chunk() + DONE) == TEXT + END
    assert stream.done
    assert stream.finished
    assert stream.usage == Usage(9, 2)
    assert stream.seen == Seen(chunks=2, text_bytes=6)
    assert stream.close() == DONE
    assert stream.failure is None


def test_a_client_that_asked_for_usage_gets_the_chunk_as_it_is() -> None:
    stream = stream_of(include_usage=True)
    assert stream.feed(TEXT + END + usage_chunk() + DONE) == TEXT + END + usage_chunk()
    assert stream.close() == DONE


def test_usage_that_was_asked_for_and_never_came_is_not_invented() -> None:
    stream = stream_of(include_usage=True)
    assert stream.feed(TEXT + END + DONE) + stream.close() == TEXT + END + DONE
    assert stream.usage is None


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("include_usage", [True, False])
def test_every_split_gives_the_client_the_same_bytes(line_end: bytes, include_usage: bool) -> None:
    data = (TEXT + END + usage_chunk() + DONE).replace(b"\n", line_end)
    whole = stream_of(include_usage=include_usage)
    expected = whole.feed(data) + whole.close()
    assert expected.endswith(DONE)
    for cut in range(0, len(data), 3):
        stream = stream_of(include_usage=include_usage)
        assert stream.feed(data[:cut]) + stream.feed(data[cut:]) + stream.close() == expected
        assert (stream.usage, stream.seen) == (whole.usage, whole.seen)
    stream = stream_of(include_usage=include_usage)
    bytewise = b"".join(stream.feed(data[i : i + 1]) for i in range(len(data)))
    assert bytewise + stream.close() == expected


def test_success_needs_a_finish_reason_and_not_the_done_line() -> None:
    """transformers serve ends without [DONE]; Ollama ends so after an error, without a reason."""
    stream = stream_of()
    assert stream.feed(TEXT + END) + stream.close() == TEXT + END + DONE
    assert not stream.done
    stream = stream_of()
    stream.feed(TEXT + DONE)
    assert stream.done
    assert DONE not in stream.close()
    assert stream.fault == "incomplete"


def test_a_stream_that_just_ends_gets_an_error_event_and_no_done_line() -> None:
    stream = stream_of()
    stream.feed(TEXT)
    assert not stream.finished
    last = stream.close()
    assert last.startswith(b'data: {"error":{"message":"')
    assert b'"type":"api_error","param":null,"code":"upstream_failed"}}\n\n' in last
    assert b"[DONE]" not in last


def test_a_bare_finish_chunk_at_the_very_end_with_cr_line_ends_still_counts() -> None:
    stream = stream_of()
    data = (TEXT + END).replace(b"\n", b"\r")
    assert stream.feed(data) + stream.close() == data + DONE


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b'data: {"error":{"message":"no memory","code":500}}\n\n', "no memory"),
        (b'data: {"error":"no memory"}\n\n', "no memory"),
        (b'data: {"object":"error","message":"no memory","code":500}\n\n', "no memory"),
        (b'event: error\ndata: {"message":"no memory"}\n\n', "no memory"),
        (b'data: {"error":{}, "object":"error"}\n\n', "no reason"),
        (b'data: {"error":{"message":"http://beast.lan:8000/x broke"}}\n\n', "[hidden] broke"),
    ],
)
def test_an_error_event_ends_the_stream_in_our_words(frame: bytes, words: str) -> None:
    stream = stream_of()
    assert stream.feed(HELLO + frame + DONE) == HELLO
    assert stream.failure is not None
    assert words in stream.failure
    assert stream.fault == "error_event"
    assert stream.feed(TEXT) == b""
    (error,) = bodies(stream.close())
    assert error["error"] == {
        "message": stream.failure,
        "type": "api_error",
        "param": None,
        "code": "upstream_failed",
    }
    assert b"beast" not in stream.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"data: proxy error: Failed to read connection\n\n",
        b"data: [1]\n\n",
        b"data: \n\n",
        b"data: null\n\n",
        b'data: {"a":\n\n',
        b'data: {"a":"\xff"}\n\n',
        b'data: {"a":"\\ud800"}\n\n',
        b"data: " + b"[" * 5000 + b"\n\n",
        b"data: " + b"[" * 5000 + b"]" * 5000 + b"\n\n",
    ],
)
def test_garbage_is_a_failure(garbage: bytes) -> None:
    stream = stream_of()
    assert stream.feed(HELLO + garbage) == HELLO
    assert stream.fault == "garbage"


@pytest.mark.parametrize("tail", [b"", b"\n\n"])
def test_an_event_beyond_all_bounds_is_a_failure(tail: bytes) -> None:
    stream = stream_of()
    passed_on = stream.feed(HELLO + b"data: " + b"x" * (1 << 20) + tail) + stream.feed(b" ")
    assert passed_on == HELLO
    assert stream.fault == "event_too_large"
    stream = stream_of()
    stream.feed(HELLO + b"data: " + b"x" * (1 << 20) + tail)
    assert b"upstream_failed" in stream.close()


@pytest.mark.parametrize("depth", range(940, 1000, 3))
def test_nesting_near_the_recursion_limit_is_a_failure_or_fine(depth: int) -> None:
    stream = stream_of()
    content = b"[" * depth + b"]" * depth
    stream.feed(b'data: {"choices":[{"delta":{"content":' + content + b"}}]}\n\n")
    assert stream.fault in (None, "garbage")


def test_the_models_name_is_rewritten_where_it_differs_and_nothing_else() -> None:
    stream = stream_of(include_usage=True)
    odd = b'data: {"id":"x", "model" : "Qwen","choices": [ {"delta":{"content":"\\u00e9"}} ]}\n\n'
    expected = b'data: {"id":"x","model":"m","choices":[ {"delta":{"content":"\\u00e9"}} ]}\n\n'
    assert stream.feed(odd) == expected
    assert bodies(stream.feed(usage_chunk(model="Qwen")))[0]["model"] == "m"
    named = b"event: chunk\n" + odd
    assert stream.feed(named) == b"event: chunk\n" + expected


def test_running_usage_is_read_and_taken_out_of_chunks_for_those_who_did_not_ask() -> None:
    running = chunk({"content": "x"}, usage=USAGE)
    nothing = chunk({"content": "y"}, usage=None)
    stream = stream_of()
    (passed_on,) = bodies(stream.feed(running))
    assert "usage" not in passed_on
    assert passed_on["choices"] == bodies(running)[0]["choices"]
    assert stream.feed(nothing) == nothing
    assert stream.usage == Usage(9, 2)
    asking = stream_of(include_usage=True)
    assert asking.feed(running + nothing) == running + nothing


@pytest.mark.parametrize("usage", [{"prompt_tokens": -1, "completion_tokens": 3}, {}, 5, "x"])
def test_unbelievable_usage_does_not_replace_what_was_known(usage: object) -> None:
    stream = stream_of()
    stream.feed(chunk({"content": "x"}, usage=USAGE) + usage_chunk(usage))
    assert stream.usage == Usage(9, 2)


def test_usage_words_inside_the_text_are_only_text() -> None:
    stream = stream_of()
    text = json.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": 99999}})
    said = chunk({"content": text}) + chunk({"tool_calls": [{"function": {"arguments": text}}]})
    assert stream.feed(said) == said
    assert stream.usage is None
    assert not stream.cut


@pytest.mark.parametrize(
    ("delta", "seen"),
    [
        ({"role": "assistant"}, Seen()),
        ({"role": "assistant", "content": ""}, Seen()),
        ({"content": None}, Seen()),
        ({"content": "中"}, Seen(1, 3)),
        ({"role": "assistant", "content": "ab"}, Seen(1, 2)),
        ({"reasoning_content": "ab", "reasoning": "ab"}, Seen(1, 2)),
        ({"reasoning": "abc", "content": "d"}, Seen(1, 4)),
        ({"refusal": "no"}, Seen(1, 2)),
        ({"content": [{"type": "text", "text": "x"}]}, Seen(1, 28)),
        ({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}, Seen(1, 1)),
        ({"tool_calls": [{"function": {"arguments": '{"a'}}]}, Seen(1, 3)),
        ({"tool_calls": [{"function": {"arguments": {"a": 1}}}]}, Seen(1, 7)),
        ({"tool_calls": [{"function": None}, 7], "x": 1}, Seen()),
        ({"tool_calls": "x"}, Seen()),
        ({"function_call": {"name": "f", "arguments": "{}"}}, Seen(1, 3)),
        ("text", Seen()),
    ],
)
def test_what_counts_as_generated(delta: object, seen: Seen) -> None:
    stream = stream_of()
    stream.feed(chunk(delta))
    assert stream.seen == seen


def test_every_choice_of_an_event_counts_and_odd_ones_do_no_harm() -> None:
    stream = stream_of(choices=3)
    choices = [{"index": 0, "text": "ab"}, {"index": "x", "delta": {"content": "c"}}, 7]
    stream.feed(event({"choices": choices}))
    assert stream.seen == Seen(2, 3)


def test_an_object_that_is_no_chunk_is_kept_from_the_client() -> None:
    stream = stream_of()
    assert stream.feed(b'data: {"type":"ping"}\n\n') == b""
    assert stream.feed(b'event: ping\ndata: {"type":"ping","choices":null}\n\n') == b""
    assert stream.failure is None


def test_a_usage_event_without_choices_becomes_a_proper_chunk() -> None:
    stream = stream_of(include_usage=True)
    (body,) = bodies(stream.feed(event({"choices": None, "usage": USAGE})))
    assert body["choices"] == []
    assert body["usage"] == USAGE


def test_a_chunk_with_no_choices_and_no_usage_passes() -> None:
    odd = event({"choices": [], "prompt_filter_results": []})
    assert stream_of().feed(odd) == odd


def test_an_answer_of_exactly_the_reserved_length_is_not_cut() -> None:
    stream = stream_of(output_tokens_max=2)
    data = chunk({"content": "a"}) + chunk({"content": "b"}) + chunk(finish="length")
    assert stream.feed(data + usage_chunk() + DONE) == data
    assert not stream.cut
    assert stream.close() == DONE


@pytest.mark.parametrize("finish", [None, "stop"])
def test_a_stream_beyond_its_output_is_cut_with_finish_reason_length(finish: str | None) -> None:
    stream = stream_of(output_tokens_max=2)
    kept = chunk({"content": "a"}) + chunk({"content": "b"})
    assert stream.feed(kept + chunk({"content": "c"}, finish=finish)) == kept
    assert stream.cut
    assert stream.seen == Seen(3, 3)
    assert stream.feed(chunk({"content": "d"})) == b""
    last = stream.close()
    assert last.endswith(DONE)
    assert bodies(last) == [
        {
            "id": "c-1",
            "created": 7,
            "object": "chat.completion.chunk",
            "model": "m",
            "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}],
        }
    ]


def test_a_cut_stream_tells_the_usage_it_knows_when_asked() -> None:
    stream = stream_of(output_tokens_max=2, include_usage=True)
    stream.feed(chunk({"content": "abc"}, usage={**USAGE, "completion_tokens": 3}))
    assert stream.cut
    length, usage = bodies(stream.close())
    assert length["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def test_a_running_usage_beyond_the_output_cuts_before_anything_was_seen() -> None:
    stream = stream_of(output_tokens_max=2)
    stream.feed(usage_chunk({**USAGE, "completion_tokens": 3}))
    assert stream.cut
    assert bodies(stream.close())[0]["choices"] == [
        {"index": 0, "delta": {}, "finish_reason": "length"}
    ]


def test_usage_beyond_the_output_does_not_cut_what_is_whole() -> None:
    """Speculative decoding overshoots a little; the answer is there and its usage is charged."""
    for tail in (END + usage_chunk({**USAGE, "completion_tokens": 101}), b""):
        last = tail or chunk(finish="stop", usage={**USAGE, "completion_tokens": 101})
        stream = stream_of(include_usage=True)
        assert stream.feed(TEXT + last) + stream.close() == TEXT + last + DONE
        assert stream.usage == Usage(9, 101)


def test_only_choices_that_had_not_ended_are_ended_by_a_cut() -> None:
    stream = stream_of(output_tokens_max=1, choices=2)
    stream.feed(chunk({"content": "a"}) + chunk(finish="stop"))
    assert stream.finished
    stream.feed(chunk({"content": "b"}, index=1))
    assert not stream.finished
    stream.feed(chunk({"content": "c"}, index=1))
    assert stream.cut
    (length,) = bodies(stream.close())
    assert length["choices"] == [{"index": 1, "delta": {}, "finish_reason": "length"}]


def test_a_neuron_that_goes_on_after_its_end_is_cut_without_a_second_ending() -> None:
    stream = stream_of(output_tokens_max=1)
    stream.feed(chunk({"content": "a"}) + END + chunk({"content": "b"}))
    assert stream.cut
    assert stream.close() == DONE


def test_choices_beyond_any_number_are_taken_for_the_first() -> None:
    stream = stream_of(output_tokens_max=1000)
    for index in range(500):
        stream.feed(chunk({"content": "a"}, index=index))
    stream.feed(b"".join(chunk(finish="stop", index=index) for index in range(128)))
    assert stream.finished


@pytest.mark.slow
@given(st.lists(st.binary(max_size=60) | st.sampled_from([TEXT, END, DONE, usage_chunk()])))
def test_arbitrary_bytes_end_in_done_or_an_error(pieces: list[bytes]) -> None:
    stream = stream_of()
    for piece in pieces:
        stream.feed(piece)
    last = stream.close()
    assert last.endswith(DONE) == (stream.failure is None)
    assert stream.failure is None or b"upstream_failed" in last


NAMES = ["choices", "delta", "content", "usage", "index", "finish_reason", "tool_calls"]
NAMES += ["function", "model", "error", "message", "prompt_tokens", "completion_tokens"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.slow
@given(st.lists(JSON, max_size=5), st.booleans())
def test_any_json_in_a_stream_is_survived(values: list[object], include_usage: bool) -> None:
    stream = stream_of(include_usage=include_usage, output_tokens_max=3)
    data = b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)
    marks = [0, len(data) // 3, len(data)]
    for start, end in pairwise(marks):
        stream.feed(data[start:end])
    assert stream.close()
