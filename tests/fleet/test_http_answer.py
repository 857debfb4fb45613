"""The reader of one response, without any socket."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortexd.fleet.http_answer import HEAD_BYTES_MAX, AnswerReader

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A:  b c \r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;ext=1\r\nhel\r\n02\r\nlo\r\n0\r\nTrailer: x\r\n\r\n"
)
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nhello"
INTERIM = b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n" + PLAIN

Outcome = tuple[int, tuple[tuple[bytes, bytes], ...], bytes, bool, str | None]


def outcome(pieces: list[bytes], *, eof: bool = False, head_only: bool = False) -> Outcome:
    reader = AnswerReader(head_only=head_only)
    body = b""
    for piece in pieces:
        if reader.complete or reader.failure:
            break
        reader.feed(piece)
        body += reader.take()
    if eof:
        reader.feed_eof()
    return reader.status, reader.headers, body, reader.complete, reader.failure


def read(data: bytes, *, eof: bool = False, head_only: bool = False) -> AnswerReader:
    reader = AnswerReader(head_only=head_only)
    reader.feed(data)
    if eof:
        reader.feed_eof()
    return reader


@pytest.mark.parametrize(
    ("wire", "status"), [(PLAIN, 200), (CHUNKED, 201), (UNTIL_CLOSE, 200), (INTERIM, 200)]
)
def test_every_framing_gives_the_same_answer_in_every_split(wire: bytes, status: int) -> None:
    whole = outcome([wire], eof=True)
    assert (whole[0], whole[2:]) == (status, (b"hello", True, None))
    assert outcome([wire[i : i + 1] for i in range(len(wire))], eof=True) == whole
    for cut in range(len(wire) + 1):
        assert outcome([wire[:cut], wire[cut:]], eof=True) == whole


def test_header_names_come_in_lower_case_and_values_without_the_space_around_them() -> None:
    assert read(PLAIN).headers == ((b"content-length", b"5"), (b"x-a", b"b c"))


def test_headers_of_interim_heads_and_trailers_are_not_the_answers() -> None:
    assert read(INTERIM).headers == read(PLAIN).headers
    assert read(CHUNKED).headers == ((b"transfer-encoding", b"chunked"),)


@pytest.mark.parametrize("wire", [PLAIN, CHUNKED, INTERIM])
def test_an_answer_that_ends_by_itself_leaves_the_connection_reusable(wire: bytes) -> None:
    assert read(wire).reusable


@pytest.mark.parametrize(
    "wire",
    [
        PLAIN + b"x",
        PLAIN + b"HTTP/1.1 200 OK\r\n\r\n",
        CHUNKED + PLAIN,
        b"HTTP/1.1 204 No\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\nmore",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_connection_that_is_out_of_step_or_about_to_close_is_not_reused(wire: bytes) -> None:
    reader = read(wire)
    assert (reader.complete, reader.failure, reader.reusable) == (True, None, False)


def test_bytes_after_the_end_in_a_later_read_spoil_the_connection_and_not_the_answer() -> None:
    reader = read(PLAIN)
    reader.feed(b"more")
    assert (reader.take(), reader.complete, reader.reusable) == (b"hello", True, False)


def test_the_neuron_closing_after_the_end_spoils_the_connection_only() -> None:
    reader = read(PLAIN, eof=True)
    assert (reader.complete, reader.reusable) == (True, False)


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_is_complete_with_its_head(status: int) -> None:
    reader = read(b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % status)
    assert (reader.complete, reader.reusable, reader.take()) == (True, True, b"")


def test_the_answer_to_head_is_complete_with_its_head() -> None:
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert read(wire, head_only=True).reusable
    with_a_body = read(PLAIN, head_only=True)
    assert (with_a_body.complete, with_a_body.reusable) == (True, False)
    assert with_a_body.take() == b""


@pytest.mark.parametrize("cut", range(len(PLAIN)))
def test_closing_before_the_end_is_a_failure_at_every_byte(cut: int) -> None:
    reader = read(PLAIN[:cut], eof=True)
    wanted = "without an answer" if cut < len(PLAIN) - 5 else "in the middle"
    assert not reader.complete
    assert wanted in (reader.failure or "")


def test_a_chunked_answer_cut_off_is_a_failure_but_what_came_can_be_taken() -> None:
    reader = read(CHUNKED[:-10], eof=True)
    assert (reader.take(), reader.complete) == (b"hello", False)
    assert reader.failure == "it closed the connection in the middle of an answer"


@pytest.mark.parametrize(
    "wire",
    [
        b"<html>",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 999 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_not_http_is_a_failure_in_our_own_words(wire: bytes) -> None:
    assert read(wire).failure == "it does not speak HTTP/1.1"


@pytest.mark.parametrize("coding", [b"gzip", b"gzip, chunked", b"identity", b"x\r\nA: b"])
def test_a_transfer_coding_that_nobody_asked_for_is_refused(coding: bytes) -> None:
    reader = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + coding + b"\r\n\r\n")
    assert reader.failure == "it uses a transfer coding that was not asked for"
    assert not reader.head_complete


@pytest.mark.parametrize("extra", [b"", b"Connection: upgrade\r\nUpgrade: websocket\r\n"])
def test_switching_protocols_is_refused(extra: bytes) -> None:
    reader = read(b"HTTP/1.1 101 Switching\r\n" + extra + b"\r\n\x00\x01")
    assert reader.failure == "it switched protocols without being asked to"


def test_an_answer_without_a_status_text_is_read() -> None:
    assert read(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n").reusable


def test_a_head_without_an_end_is_given_up() -> None:
    many = read(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * HEAD_BYTES_MAX)
    assert many.failure == "its head is too large"
    with_a_body = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n" + b"A: b\r\n" * 20_000 + b"\r\nx"
    assert (read(with_a_body).failure, read(with_a_body).take()) == (many.failure, b"")
    one_endless_line = AnswerReader()
    for _ in range(70):
        one_endless_line.feed(b"HTTP/1.1 200 OK\r\nA: " if not _ else b"b" * 1000)
    assert one_endless_line.failure == "its head is too large"


def test_interim_heads_without_an_end_are_given_up() -> None:
    reader = AnswerReader()
    for _ in range(4000):
        reader.feed(b"HTTP/1.1 102 Processing\r\n\r\n")
    assert reader.failure == "its head is too large"


@pytest.mark.parametrize("junk", [b"1;" + b"x" * 1000, b"0\r\nT: " + b"x" * 1000])
def test_framing_without_a_body_is_given_up(junk: bytes) -> None:
    """Chunk extensions and trailers would otherwise be read, and a trailer kept, without an end."""
    reader = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    reader.feed(junk)
    for _ in range(70):
        reader.feed(b"x" * 1000)
    assert reader.failure == "it sends no body, only framing"


def test_a_long_body_is_not_mistaken_for_framing() -> None:
    reader = read(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
    for _ in range(200):
        reader.feed(b"x" * 1000)
    assert reader.reusable
    assert len(reader.take()) == 200_000


def test_after_a_failure_nothing_more_is_taken_in() -> None:
    reader = read(b"<html>")
    reader.feed(PLAIN)
    reader.feed_eof()
    assert (reader.head_complete, reader.complete, reader.reusable) == (False, False, False)
    assert reader.failure == "it does not speak HTTP/1.1"


PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 C\r\n\r\n",
        b"HTTP/1.0 503 No\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"abc",
        b"\n",
        b"\x00",
    ]
)


@settings(deadline=None)  # the machine may be busy
@given(wire=st.lists(PIECES | st.binary(max_size=8), max_size=12), data=st.data())
def test_no_bytes_and_no_split_change_the_verdict(wire: list[bytes], data: st.DataObject) -> None:
    joined = b"".join(wire)
    head_only = data.draw(st.booleans())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(joined)), max_size=6)))
    pieces = [joined[a:b] for a, b in zip([0, *cuts], [*cuts, len(joined)], strict=True)]
    assert outcome(pieces, eof=True, head_only=head_only) == outcome(
        [joined], eof=True, head_only=head_only
    )
