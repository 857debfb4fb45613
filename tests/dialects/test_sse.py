"""Events out of bytes, whatever the cuts and the line ends."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.dialects.sse import Event, Events, EventTooLarge, write_event

LINES = (
    b": keep-alive",
    b"",
    b'data: {"a":1}',
    b"data:x",
    b"data",
    b"event: error",
    b"id: 7",
    b"data: [DONE]",
    b"data: caf\xc3\xa9",
)
STREAM = b"\n".join(
    (b"\xef\xbb\xbfdata: one", b"", b": note", b"", b"", b"event: e", b"data:two", b"data: 3", b"")
)


def events_of(pieces: list[bytes]) -> list[Event]:
    reader = Events()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return events + reader.end()


def test_data_lines_are_joined_and_comments_have_no_data() -> None:
    assert events_of([STREAM + b"\n"]) == [
        Event(b"data: one\n\n", b"", b"one"),
        Event(b": note\n\n", b"", None),
        Event(b"\n", b"", None),
        Event(b"event: e\ndata:two\ndata: 3\n\n", b"e", b"two\n3"),
    ]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_a_stream_cut_anywhere_gives_the_same_events(line_end: bytes) -> None:
    stream = STREAM.replace(b"\n", line_end) + line_end
    whole = events_of([stream])
    assert [(event.name, event.data) for event in whole] == [
        (b"", b"one"),
        (b"", None),
        (b"", None),
        (b"e", b"two\n3"),
    ]
    assert b"".join(event.raw for event in whole) == stream.removeprefix(b"\xef\xbb\xbf")
    for first in range(len(stream) + 1):
        assert events_of([stream[:first], stream[first:]]) == whole
    assert events_of([stream[i : i + 1] for i in range(len(stream))]) == whole


@given(
    lines=st.lists(st.sampled_from(LINES), max_size=12),
    ends=st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"]), min_size=12, max_size=12),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_mixed_line_ends_and_cuts_lose_and_add_nothing(
    lines: list[bytes], ends: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    marks = [0, *sorted(cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(marks)]
    whole = events_of([stream])
    assert events_of(pieces) == whole
    assert stream.startswith(b"".join(event.raw for event in whole))


@given(
    lines=st.lists(st.sampled_from(LINES), max_size=20),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_line_feeds_alone_are_read_as_any_other_line_ends(
    lines: list[bytes], cuts: list[int]
) -> None:
    """Most streams are such, and are cut in a way of their own."""
    stream = b"data: first\n\n" + b"".join(line + b"\n" for line in lines)
    marks = [0, *sorted(cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(marks)]
    other = events_of([stream.replace(b"\n", b"\r\n")])
    told = events_of(pieces)
    assert [(event.name, event.data) for event in told] == [(e.name, e.data) for e in other]
    assert [event.raw for event in told] == [e.raw.replace(b"\r\n", b"\n") for e in other]


def test_a_byte_order_mark_is_one_only_at_the_very_start() -> None:
    marked = b"\xef\xbb\xbfdata: x\n\n"
    for pieces in ([marked * 3], [marked] * 3, [marked[:5], marked[5:] + marked * 2]):
        assert [event.data for event in events_of(pieces)] == [b"x", None, None]


def test_a_byte_order_mark_is_not_passed_on() -> None:
    """Behind a heartbeat it would be none: clients would not see the first event."""
    marked = b"\xef\xbb\xbfdata: x\n\n"
    for pieces in ([marked], [marked[:2], marked[2:]]):
        assert [event.raw for event in events_of(pieces)] == [b"data: x\n\n"]


@given(cuts=st.lists(st.integers(0, 120), max_size=4))
def test_events_before_a_large_one_are_never_lost(cuts: list[int]) -> None:
    stream = b"data: a\n\ndata: b\n\n" + b"data: " + b"x" * 60 + b"\n\ndata: c\n\n"
    reader = Events(event_bytes_max=50)
    told: list[bytes | None] = []
    for first, last in pairwise([0, *sorted(cuts), len(stream)]):
        try:
            told += [event.data for event in reader.feed(stream[first:last])]
        except EventTooLarge:
            break
    assert told == [b"a", b"b"]
    with pytest.raises(EventTooLarge):
        reader.feed(b"")


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_arbitrary_bytes_give_events_that_are_a_prefix_of_them(pieces: list[bytes]) -> None:
    raw = b"".join(event.raw for event in events_of(pieces))
    assert b"".join(pieces).startswith(raw)


def test_an_event_is_given_out_with_its_last_byte_and_no_earlier() -> None:
    reader = Events()
    assert reader.feed(b"data: x\n") == []
    assert reader.feed(b"\n") == [Event(b"data: x\n\n", b"", b"x")]
    assert reader.feed(b"data: y\r\n\r") == []
    assert reader.feed(b"\n") == [Event(b"data: y\r\n\r\n", b"", b"y")]


def test_an_event_without_its_empty_line_is_lost_at_the_end() -> None:
    reader = Events()
    assert reader.feed(b"data: x\n") == []
    assert reader.end() == []


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("large", [b"data: " + b"x" * 60, b"data: " + b"x" * 60 + b"\n\n"])
def test_a_large_event_is_an_error_after_the_events_before_it(
    large: bytes, line_end: bytes
) -> None:
    reader = Events(event_bytes_max=50)
    stream = (b"data: a\n\n" + large).replace(b"\n", line_end)
    assert [event.data for event in reader.feed(stream)] == [b"a"]
    with pytest.raises(EventTooLarge):
        reader.feed(b"")


def test_a_large_event_that_comes_alone_is_an_error_at_once() -> None:
    for size in (49, 60):
        with pytest.raises(EventTooLarge):
            Events(event_bytes_max=50).feed(b"data: " + b"x" * size + b"\n\n")


def test_what_is_written_can_be_read() -> None:
    text = write_event(b"[DONE]") + write_event(b"{}", name=b"error")
    assert [(e.name, e.data) for e in events_of([text])] == [(b"", b"[DONE]"), (b"error", b"{}")]
