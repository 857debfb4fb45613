"""Responses as bytes: h11 reads each of them as the core meant it, or nothing is written."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.gateway.exchange import Headers
from cortexd.gateway.http1_writing import Response, ResponseFault

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
LENGTH_5 = ((b"content-length", b"5"),)


def response(*, to_head: bool = False, is_http_1_0: bool = False) -> Response:
    """A response on a connection that may be kept."""
    return Response(to_head=to_head, is_http_1_0=is_http_1_0, keep_alive=True)


def as_read(written: bytes, method: str = "GET") -> tuple[int, bytes, bytes]:
    """Status and body as h11 reads them, and what is left."""
    reader = h11.Connection(our_role=h11.CLIENT)
    reader.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(written)
    status, body = 0, b""
    while True:
        match reader.next_event():
            case h11.Response() as event:
                status = event.status_code
            case h11.Data() as event:
                body += bytes(event.data)
            case h11.EndOfMessage():
                return status, body, reader.trailing_data[0]
            case other:
                raise AssertionError(other)


@given(st.lists(st.binary(max_size=20)), st.booleans(), st.sampled_from([200, 404, 429, 599]))
def test_a_body_arrives_as_it_was_written(pieces: list[bytes], sized: bool, status: int) -> None:
    whole = b"".join(pieces)
    headers: Headers = ((b"content-length", b"%d" % len(whole)),) if sized else ()
    writing = response()
    writing.start(status, headers, DATE)
    written = b"".join(map(writing.piece, pieces)) + writing.end()
    assert as_read(written + b"next") == (status, whole, b"next")
    assert writing.complete
    assert writing.keep_alive


@pytest.mark.parametrize("status", [200, 204, 304])
@pytest.mark.parametrize("headers", [(), LENGTH_5])
def test_an_answer_to_head_or_of_a_bodiless_status_has_no_body(
    status: int, headers: Headers
) -> None:
    for to_head in (True, False):
        if status == 200 and not to_head:
            continue
        writing = response(to_head=to_head)
        writing.start(status, headers, DATE)
        written = writing.piece(b"hel") + writing.end(b"lo")
        method = "HEAD" if to_head else "GET"
        assert as_read(written + b"next", method) == (status, b"", b"next")
        assert (b"content-length: 5" in written) == (headers == LENGTH_5 and status != 204)


def test_an_answer_of_unknown_length_to_http_1_0_ends_with_the_connection() -> None:
    writing = response(is_http_1_0=True)
    writing.start(200, (), DATE)
    written = writing.piece(b"a") + writing.end(b"b")
    assert written.endswith(b"\r\n\r\nab")
    assert b"connection: close" in written
    assert not writing.keep_alive


@pytest.mark.parametrize(
    "headers",
    [
        ((b"a", b"b\r\nset-cookie: x"),),
        ((b"a", b"b\nc: d"),),
        ((b"a", b"b\r"),),
        ((b"a\r\nb", b"c"),),
        ((b"connection", b"keep-alive"),),
        ((b"Transfer-Encoding", b"chunked"),),
        ((b"date", b"today"),),
    ],
)
def test_a_header_that_could_split_an_answer_is_never_written(headers: Headers) -> None:
    writing = response()
    with pytest.raises(ResponseFault):
        writing.start(200, headers, DATE)
    with pytest.raises(ResponseFault):
        writing.end(b"body")


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 600])
def test_a_status_that_ends_no_exchange_is_never_written(status: int) -> None:
    with pytest.raises(ResponseFault):
        response().start(status, (), DATE)


def test_more_or_less_than_declared_is_a_fault() -> None:
    for write in (Response.end, Response.piece):
        writing = response()
        writing.start(200, LENGTH_5, DATE)
        with pytest.raises(ResponseFault):
            write(writing, b"four" if write is Response.end else b"sixsix")
        assert not writing.complete


def test_nothing_is_written_out_of_order() -> None:
    with pytest.raises(ResponseFault):
        response().piece(b"a body without a head")
    writing = response()
    writing.start(200, (), DATE)
    with pytest.raises(ResponseFault):
        writing.start(200, (), DATE)
    writing.end()
    with pytest.raises(ResponseFault):
        writing.end()
