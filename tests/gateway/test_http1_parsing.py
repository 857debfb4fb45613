"""Requests as bytes, without a connection: every split, random bytes, and a second opinion.

What is accepted and refused in words is held against both faces in tests/daemon; here is what
holds for any bytes at all.
"""

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cortexd.gateway.http1_parsing import (
    HEADERS_MAX,
    BadRequest,
    Chunked,
    Framing,
    RequestHead,
    Sized,
    check_beginning,
    end_of_head,
    parse_head,
)

REST = b"GET /next HTTP/1.1\r\n"
CHUNKS = b"5;x=y\r\nhello\r\n00A\r\n\r\n0\r\n\r\n0\r\n\r\n0;z\r\ntrailer: a\r\n\r\n"
CONTENT = b"hello\r\n0\r\n\r\n0\r\n"

# Pieces that requests, and attempts to split them, are made of.
_PIECES = st.sampled_from(
    [
        *(b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"get", b"PRI", b" ", b"  ", b"\t"),
        *(b"/", b"/a?b", b"*", b"http://x/y", b"x:1", b"/%00", b"#", b"\xff", b"\x00", b"\x0b"),
        *(b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1.1\r\n"),
        *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\r\r\n", b":", b": ", b" :", b",", b";"),
        *(
            b"host: x",
            b"Host: y",
            b"content-length: 5",
            b"Content-Length: +5",
            b"content-length: 05",
        ),
        *(b"transfer-encoding: chunked", b"Transfer-Encoding: x, chunked", b"transfer-encoding:"),
        *(b"connection: close", b"connection: upgrade", b"upgrade: h2c", b"expect: 100-continue"),
        *(b"a: b", b"a:b\t", b" folded", b"\tfolded", b"0", b"5", b"a", b"f" * 17, b"\x80"),
    ]
)
_HEADS = st.lists(_PIECES, max_size=20).map(b"".join)
_NEARLY_HEADS = st.lists(_PIECES, max_size=6).map(
    lambda pieces: b"POST / HTTP/1.1\r\nhost: x\r\n" + b"".join(pieces) + b"\r\n\r\n"
)
_CHUNK_PIECES = st.sampled_from(
    [
        *(b"0", b"5", b"a", b"00", b"+5", b"-1", b"0x5", b"5 ", b" 5", b"g", b"_", b"f" * 16),
        *(b"\r\n", b"\n", b"\r", b"hello", b"hello\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n"),
        *(b";", b";a=b", b';"\r\n"', b"a: b\r\n", b" folded\r\n", b"\x00", b"\x80", b"\r\n\r\n"),
    ]
)


def head_of(raw: bytes) -> RequestHead | None:
    """The head that `raw` begins with, None when it is refused or not whole."""
    end = end_of_head(bytearray(raw), 0)
    if not end:
        return None
    try:
        return parse_head(raw[:end])
    except BadRequest:
        return None


def read(framing: Framing, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """The content of a body that comes in pieces, and what is left behind it."""
    buffer, content = bytearray(), b""
    for piece in pieces:
        buffer += piece
        content += framing.take(buffer)
    return content, bytes(buffer)


def second_opinion(raw: bytes) -> tuple[h11.Request, bytes, bytes]:
    """What h11 makes of a request: head, content of its body, and what is left behind it."""
    connection = h11.Connection(our_role=h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(raw)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    content = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            content += bytes(event.data)
        else:
            break
    assert isinstance(event, h11.EndOfMessage)
    return request, content, connection.trailing_data[0]


@pytest.mark.parametrize("cut", range(len(CHUNKS) + 1))
def test_a_chunked_body_is_the_same_however_it_is_cut(cut: int) -> None:
    body = Chunked()
    assert read(body, [CHUNKS[:cut], CHUNKS[cut:] + REST]) == (CONTENT, REST)
    assert body.complete


def test_a_chunked_body_is_the_same_byte_by_byte() -> None:
    body = Chunked()
    assert read(body, [bytes([each]) for each in CHUNKS + REST]) == (CONTENT, REST)
    assert body.complete


@pytest.mark.parametrize("length", range(len(CHUNKS)))
def test_a_chunked_body_is_complete_with_its_last_byte_and_not_before(length: int) -> None:
    body = Chunked()
    content, rest = read(body, [CHUNKS[:length]])
    assert not body.complete
    assert CONTENT.startswith(content)
    assert CHUNKS[:length].endswith(rest)


def test_trailers_are_bounded_all_together_and_a_size_line_by_itself() -> None:
    few, many = b"a: b\r\n" * 1000, b"a: b\r\n" * 2000
    body = Chunked()
    assert read(body, [b"0\r\n" + few + b"\r\n" + REST]) == (b"", REST)
    for too_much in (b"0\r\n" + many + b"\r\n", b"0\r\na: " + b"b" * 9000, b"5;" + b"a" * 300):
        with pytest.raises(BadRequest, match="too large"):
            read(Chunked(), [too_much])


@given(st.lists(st.binary(max_size=10), max_size=10), st.binary(max_size=30))
def test_a_sized_body_takes_its_bytes_and_no_more(pieces: list[bytes], rest: bytes) -> None:
    whole = b"".join(pieces)
    if not whole:
        return
    body = Sized(len(whole))
    assert read(body, [*pieces, rest]) == (whole, rest)
    assert body.complete


@given(_HEADS | _NEARLY_HEADS | st.binary(max_size=100))
@example(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n")
@example(b"\r\n\r\n")
def test_a_head_that_is_accepted_means_the_same_to_h11(raw: bytes) -> None:
    """Ours is the stricter reader: what it takes, nobody may read in another way."""
    head = head_of(raw)
    if head is None:
        return
    end = end_of_head(bytearray(raw), 0)
    body = b""
    if head.length:
        body = b"x" * min(head.length, 100_000)
        if head.length > len(body):
            return
    elif head.body is not None:
        body = CHUNKS
    request, content, rest = second_opinion(raw[:end] + body + REST)
    assert request.method.decode() == head.method
    assert {name: value for name, value in request.headers} == head.headers  # noqa: C416
    assert content == (CONTENT if body == CHUNKS else body)
    assert rest == REST


@given(st.lists(_CHUNK_PIECES, max_size=12).map(b"".join))
@example(b"5\r\nhello\r\n0\r\n\r\n")
@example(b"0\r\n\r\n0\r\n\r\n")
def test_a_chunked_body_that_is_accepted_means_the_same_to_h11(raw: bytes) -> None:
    body = Chunked()
    try:
        content, rest = read(body, [raw])
    except BadRequest:
        return
    if not body.complete:
        return
    head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    _, theirs, left = second_opinion(head + raw + REST)
    assert (theirs, left) == (content, rest + REST)


@given(st.lists(_CHUNK_PIECES, max_size=8).map(b"".join), st.data())
def test_where_a_chunked_body_is_cut_never_changes_the_verdict(
    raw: bytes, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(raw)))

    def verdict(pieces: list[bytes]) -> tuple[bytes, bytes, bool] | None:
        body = Chunked()
        try:
            content, rest = read(body, pieces)
        except BadRequest:
            return None
        return content, rest, body.complete

    assert verdict([raw]) == verdict([raw[:cut], raw[cut:]])


@given(st.binary(max_size=60), st.data())
def test_the_end_of_a_head_is_found_wherever_it_was_looked_for_before(
    noise: bytes, data: st.DataObject
) -> None:
    raw = bytearray(noise.replace(b"\r\n\r\n", b"") + b"\r\n\r\n" + noise)
    whole = end_of_head(raw, 0)
    looked_at = data.draw(st.integers(0, whole - 1))
    assert whole == raw.index(b"\r\n\r\n") + 4
    assert end_of_head(raw, looked_at) == whole


@pytest.mark.parametrize("beginning", [b"", b"\r", b"G", b"GET / HTTP/1.1\r\nhost"])
def test_a_beginning_that_may_become_a_head_is_waited_for(beginning: bytes) -> None:
    check_beginning(bytearray(beginning))


@pytest.mark.parametrize(
    "beginning", [b"\x16\x03\x01", b"get", b" GET", b"GET / HTTP/1.1\n", b"\n"]
)
def test_a_beginning_that_cannot_is_refused_at_once(beginning: bytes) -> None:
    with pytest.raises(BadRequest):
        check_beginning(bytearray(beginning))


def test_the_number_of_headers_is_bounded() -> None:
    def head(count: int) -> bytes:
        return b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * (count - 1) + b"\r\n"

    assert parse_head(head(HEADERS_MAX)).headers == {b"host": b"x", b"a": b"b"}
    with pytest.raises(BadRequest, match="more than 128"):
        parse_head(head(HEADERS_MAX + 1))


def test_of_a_repeated_header_the_last_one_counts_however_each_is_spelt() -> None:
    lines = (b"host: x", b"X-A: 1", b"x-a: 2", b"X-A: 3", b"Connection: a", b"connection: Close")
    head = parse_head(
        b"GET / HTTP/1.1\r\n" + b"".join(b"%b\r\n" % line for line in lines) + b"\r\n"
    )
    assert head.headers == {b"host": b"x", b"x-a": b"3", b"connection": b"Close"}
    assert not head.keep_alive
