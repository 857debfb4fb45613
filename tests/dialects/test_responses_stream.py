"""Streams of responses: passed on in order, numbered, held back at the end, and ended properly."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.dialects.responses_stream import ResponsesStream
from cortexd.dialects.sse import Events
from cortexd.dialects.usage import Seen, Usage

RESPONSE = {"id": "resp_1", "object": "response", "created_at": 5, "model": "there"}
USAGE = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
PART = {"item_id": "i", "output_index": 0, "content_index": 0}
ITEM = {"type": "message", "id": "i", "content": [{"type": "output_text", "text": "Hi!"}]}


def event(kind: str, **fields: object) -> bytes:
    data = json.dumps({"type": kind, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()


def numbered(*events: bytes) -> Iterator[bytes]:
    for number, each in enumerate(events):
        yield each.replace(b'"type"', b'"sequence_number": %d, "type"' % number, 1)


def whole(status: str = "completed", **more: object) -> list[bytes]:
    """The events of one good response."""
    response = {**RESPONSE, "status": "in_progress", "output": []}
    end = {**RESPONSE, "status": status, "output": [ITEM], "usage": USAGE, **more}
    return [
        event("response.created", response=response),
        event("response.output_text.delta", **PART, delta="Hi", logprobs=[]),
        event("response.output_text.delta", **PART, delta="!", logprobs=[]),
        event("response.output_item.done", output_index=0, item=ITEM),
        event(f"response.{status}", response=end),
    ]


def watching(output_tokens_max: int = 20) -> ResponsesStream:
    return ResponsesStream(model="m", output_tokens_max=output_tokens_max)


def decoded(stream: bytes) -> list[dict[str, object]]:
    """The events of a stream; each must be named as its type says."""
    found: list[dict[str, object]] = []
    for each in Events().feed(stream):
        if each.data is not None:
            data = json.loads(each.data)
            assert each.name == data["type"].encode()
            found.append(data)
    return found


def numbers(stream: bytes) -> list[object]:
    return [each["sequence_number"] for each in decoded(stream)]


def last_response(stream: bytes) -> dict[str, object]:
    response = decoded(stream)[-1]["response"]
    assert isinstance(response, dict)
    return response


def test_a_good_stream_passes_and_its_end_is_held_back_until_it_is_closed() -> None:
    watcher = watching()
    passed = watcher.feed(b"".join(numbered(*whole())))
    last = watcher.close()
    kinds = [each["type"] for each in decoded(passed)]
    assert kinds == [
        "response.created",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_item.done",
    ]
    assert [each["type"] for each in decoded(last)] == ["response.completed"]
    assert numbers(passed + last) == [0, 1, 2, 3, 4]
    assert (watcher.failure, watcher.finished, watcher.usage) == (None, True, Usage(7, 2))
    assert watcher.seen == Seen(chunks=2, text_bytes=3)


def test_everything_but_names_and_numbers_is_passed_on_as_the_neuron_said_it() -> None:
    watcher = watching()
    sent = b"".join(numbered(*whole()))
    received = watcher.feed(sent) + watcher.close()
    expected = decoded(sent)
    for each in expected:
        if isinstance(each.get("response"), dict):
            each["response"] = {**dict(each["response"]), "model": "m"}  # type: ignore[call-overload]  # a dict, as said
    assert decoded(received) == expected


def test_events_without_numbers_or_with_old_ones_get_the_next() -> None:
    unnumbered = watching()
    stream = unnumbered.feed(b"".join(whole())) + unnumbered.close()
    assert numbers(stream) == [0, 1, 2, 3, 4]
    stuck = watching()
    same = [each.replace(b'"type"', b'"sequence_number": 3, "type"', 1) for each in whole()]
    assert numbers(stuck.feed(b"".join(same)) + stuck.close()) == [3, 4, 5, 6, 7]


def test_an_event_whose_type_stands_only_in_its_name_gets_it_in_its_data() -> None:
    watcher = watching()
    passed = watcher.feed(b'event: response.output_text.delta\ndata: {"delta":"x"}\n\n')
    assert decoded(passed) == [
        {"delta": "x", "type": "response.output_text.delta", "sequence_number": 0}
    ]


def test_a_piece_that_is_cut_into_lines_is_one_line_to_the_client() -> None:
    line = (
        b'data: {"type":"response.output_text.delta",\ndata: "sequence_number":0,"delta":"x"}\n\n'
    )
    passed = watching().feed(line)
    assert passed.count(b"\n") == 3
    assert [each["delta"] for each in decoded(passed)] == ["x"]


def test_an_incomplete_response_is_a_whole_answer() -> None:
    watcher = watching()
    watcher.feed(b"".join(whole("incomplete")))
    assert decoded(watcher.close())[0]["type"] == "response.incomplete"
    assert watcher.failure is None


def test_a_done_that_follows_is_dropped_and_one_alone_completes_nothing() -> None:
    watcher = watching()
    watcher.feed(b"".join(whole()) + b"data: [DONE]\n\n")
    assert b"[DONE]" not in watcher.close()
    early = watching()
    early.feed(whole()[0] + b"data: [DONE]\n\n")
    assert last_response(early.close())["status"] == "failed"


def test_a_stream_that_just_ends_becomes_a_failed_response_with_what_is_known_of_it() -> None:
    watcher = watching()
    passed = watcher.feed(b"".join(whole()[:4]))
    last = watcher.close()
    response = last_response(last)
    assert numbers(passed + last) == [0, 1, 2, 3, 4]
    assert (response["id"], response["model"], response["status"]) == ("resp_1", "m", "failed")
    assert response["output"] == [ITEM]
    assert response["error"] == {
        "code": "upstream_failed",
        "message": "The neuron ended the stream before the answer was complete.",
    }
    assert watcher.fault == "incomplete"


FAILED = {**RESPONSE, "status": "failed", "error": {"code": "x", "message": "no room on 10.0.0.7"}}


@pytest.mark.parametrize(
    "broken",
    [
        event("response.failed", response=FAILED),
        event("error", code="x", message="no room on 10.0.0.7"),
        b'data: {"error":{"message":"no room on 10.0.0.7"}}\n\n',
    ],
)
def test_an_engines_failure_is_told_without_its_addresses(broken: bytes) -> None:
    watcher = watching()
    watcher.feed(whole()[0] + broken)
    assert (watcher.fault, watcher.finished) == ("error_event", False)
    response = last_response(watcher.close())
    assert response["status"] == "failed"
    assert response["error"] == {
        "code": "upstream_failed",
        "message": "The neuron failed: no room on [hidden]",
    }


@pytest.mark.parametrize("garbage", [b"data: proxy\n\n", b"data: []\n\n", b'data: {"a":1}\n\n'])
def test_what_is_no_event_of_a_response_is_a_failure(garbage: bytes) -> None:
    watcher = watching()
    assert watcher.feed(garbage) == b""
    assert watcher.fault == "garbage"


def test_more_pieces_than_were_paid_for_are_cut_into_an_incomplete_response() -> None:
    watcher = watching(output_tokens_max=1)
    passed = watcher.feed(b"".join(whole()))
    assert watcher.cut
    assert [each["type"] for each in decoded(passed)][1:] == ["response.output_text.delta"]
    last = watcher.close()
    assert decoded(last)[-1]["type"] == "response.incomplete"
    response = last_response(last)
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["error"] is None


def test_a_usage_above_the_limit_cuts_a_stream_but_not_one_that_has_ended() -> None:
    over = {"input_tokens": 7, "output_tokens": 99}
    running = watching()
    running.feed(event("response.in_progress", response={**RESPONSE, "usage": over}))
    assert running.cut
    ended = watching()
    ended.feed(b"".join(whole(usage=over)))
    assert (ended.cut, ended.usage) == (False, Usage(7, 99))


def test_a_failure_from_outside_is_told_as_the_end() -> None:
    watcher = watching()
    watcher.feed(whole()[0])
    watcher.failure = "The neuron fell silent (between bytes)."
    assert last_response(watcher.close())["error"] == {
        "code": "upstream_failed",
        "message": "The neuron fell silent (between bytes).",
    }


def test_a_stream_that_never_began_is_refused_as_a_failed_response() -> None:
    refusal = Refusal(RefusalKind.MODEL_LOAD_FAILED, "It cannot be loaded.")
    [event] = decoded(watching().refuse(refusal))
    assert (event["type"], event["sequence_number"]) == ("response.failed", 0)
    response = event["response"]
    assert isinstance(response, dict)
    assert response["error"] == {"code": "model_load_failed", "message": "It cannot be loaded."}


def test_comments_pass_and_a_heartbeat_is_one() -> None:
    watcher = watching()
    assert watcher.head() == b""
    assert watcher.feed(b": keep-alive\n\n") == b": keep-alive\n\n"
    assert watching().feed(watcher.heartbeat()) == watcher.heartbeat()


def test_nothing_is_passed_on_after_the_end() -> None:
    watcher = watching()
    watcher.feed(b"".join(whole()))
    assert watcher.feed(whole()[1]) == b""
    assert watcher.seen.chunks == 2


def test_an_event_that_is_too_large_is_a_failure() -> None:
    watcher = watching()
    assert watcher.feed(b"data: " + b"x" * (17 << 20)) == b""
    assert watcher.fault == "event_too_large"


@given(st.lists(st.integers(0, 2000), max_size=12))
def test_the_cuts_between_reads_do_not_matter(cuts: list[int]) -> None:
    sent = b"".join(whole())
    at_once = watching()
    expected = at_once.feed(sent) + at_once.close()
    watcher, received, start = watching(), b"", 0
    for end in [*sorted(cuts), len(sent)]:
        received += watcher.feed(sent[start:end])
        start = max(start, min(end, len(sent)))
    assert received + watcher.close() == expected
