"""One core, two faces: whatever a client may send, both give the same requests and answers.

Over real sockets, plain and TLS. `stock` is the ASGI face under Hypercorn as it comes. Where that
differs legitimately, the case says so; where it has a fault of its own, the case is held against
the fast face alone and says which fault. What is no request at all is in
test_malformed_requests.py.
"""

import contextlib
from pathlib import Path

import msgspec
import pytest
import trio

from cortexd.daemon.http_server import ServerLimits
from tests.support.faces import (
    BODY_LIMITS,
    LIMITS,
    PIECES,
    FaceName,
    Transport,
    served,
)

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nhost: x\r\n"
SIZED = POST + b"content-length: 5\r\n\r\nhello"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"

HEAD_END = b"\r\n\r\n"

both = pytest.mark.parametrize("face", ["http1", "stock"])
transports = pytest.mark.parametrize("transport", ["plain", "tls"])


def fast_only(fault_of_stock: str) -> pytest.MarkDecorator:
    """For what stock Hypercorn gets wrong, in words; nobody would want it to agree."""
    assert fault_of_stock
    return pytest.mark.parametrize("face", ["http1"])


class Good(msgspec.Struct, frozen=True):
    """A request and what the core must make of it.

    `stock_path`: what stock Hypercorn makes of its target, where that differs legitimately.
    `stock_refuses`: it takes no such request, which RFC 9112 only asks it to.
    """

    data: bytes
    path: str = "/echo"
    body: bytes = b"hello"
    method: str = "POST"
    stock_path: str | None = None
    stock_refuses: bool = False


GOOD = {
    "no body": Good(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n", "/x", b"", "GET"),
    "a body of a length": Good(SIZED),
    "a body of length 0": Good(POST + b"content-length: 0\r\n\r\n", body=b""),
    "a length with leading zeros": Good(POST + b"content-length: 0005\r\n\r\nhello"),
    "white space around a length": Good(POST + b"content-length: \t 5 \t\r\n\r\nhello"),
    "chunks": Good(CHUNKED),
    "chunks in upper case": Good(
        POST + b"Transfer-Encoding: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", body=b"0123456789"
    ),
    "a chunk size with zeros": Good(
        POST + b"transfer-encoding: chunked\r\n\r\n005\r\nhello\r\n000\r\n\r\n"
    ),
    "no chunks at all": Good(POST + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n", body=b""),
    "chunk extensions": Good(
        POST + b'transfer-encoding: chunked\r\n\r\n5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n'
    ),
    "trailers": Good(
        POST + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nhost: evil\r\na: b\r\n\r\n"
    ),
    "a body that looks like a request": Good(
        POST + b"content-length: %d\r\n\r\n%b" % (len(GET), GET), body=GET
    ),
    "chunks that look like the end": Good(
        POST + b"transfer-encoding: chunked\r\n\r\n9\r\n\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n",
        body=b"\r\n0\r\n\r\n\r\n",
    ),
    "an empty line before it": Good(b"\r\n" + SIZED, stock_refuses=True),
    "a body with GET": Good(
        b"GET /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello", method="GET"
    ),
    "a query": Good(b"GET /x?y=/z HTTP/1.1\r\nhost: x\r\n\r\n", "/x", b"", "GET"),
    "percent-encoding": Good(
        b"GET /a%2Fb%20%C3%A9 HTTP/1.1\r\nhost: x\r\n\r\n", "/a/b é", b"", "GET"
    ),
    "two slashes": Good(b"GET //x/y HTTP/1.1\r\nhost: x\r\n\r\n", "//x/y", b"", "GET"),
    "an absolute target": Good(
        b"GET http://y:80/x?z HTTP/1.1\r\nhost: x\r\n\r\n", "/x", b"", "GET", "http://y:80/x"
    ),
    "an absolute target without a path": Good(
        b"GET HTTPS://y HTTP/1.1\r\nhost: x\r\n\r\n", "/", b"", "GET", "HTTPS://y"
    ),
    "a star": Good(b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", "*", b"", "OPTIONS"),
    "an empty host": Good(b"GET /x HTTP/1.1\r\nhost:\r\n\r\n", "/x", b"", "GET"),
    "a host of IPv6": Good(b"GET /x HTTP/1.1\r\nhost: [::1]:80\r\n\r\n", "/x", b"", "GET"),
    "HTTP/1.0 without a host": Good(b"GET /x HTTP/1.0\r\n\r\n", "/x", b"", "GET"),
    "an offer to upgrade": Good(
        POST + b"connection: upgrade\r\nupgrade: tea\r\ncontent-length: 5\r\n\r\nhello"
    ),
    "an offer to upgrade, with chunks": Good(
        POST + b"connection: upgrade\r\nupgrade: tea\r\ntransfer-encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n"
    ),
    "a header with high bytes": Good(
        b"GET /x HTTP/1.1\r\nhost: x\r\na: \xc3\xa9\r\n\r\n", "/x", b"", "GET"
    ),
    "an empty header": Good(b"GET /x HTTP/1.1\r\nhost: x\r\na:\r\n\r\n", "/x", b"", "GET"),
}


@transports
@both
@pytest.mark.parametrize("name", GOOD)
async def test_a_request_means_the_same_to_both(
    face: FaceName, transport: Transport, name: str, tmp_path: Path
) -> None:
    good = GOOD[name]
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(good.data)
        answer = await peer.answer(good.method)
        if face == "stock" and good.stock_refuses:
            assert answer.status == 400
            return
        [asked] = server.core.asked
    wanted = good.stock_path if face == "stock" and good.stock_path else good.path
    assert (asked.head.method, asked.head.path, asked.body) == (good.method, wanted, good.body)
    assert (answer.status, answer.body) == (200, good.body)


@both
@pytest.mark.parametrize("name", ["no body", "a body of a length", "chunks", "trailers"])
async def test_a_request_means_the_same_byte_by_byte(
    face: FaceName, name: str, tmp_path: Path
) -> None:
    good = GOOD[name]
    async with served(face, "plain", tmp_path) as server, server.peer() as peer:
        await peer.send_bytewise(good.data + good.data)
        answers = [await peer.answer(good.method) for _ in range(2)]
    assert [answer.body for answer in answers] == [good.body] * 2
    assert [asked.body for asked in server.core.asked] == [good.body] * 2


@transports
@both
async def test_header_names_are_lower_case_and_values_stripped(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(b"GET / HTTP/1.1\r\nHOST: x\r\nX-Two:  a b \t\r\nx-two: last\r\n\r\n")
        await peer.answer()
    assert server.core.asked[0].head.headers == {b"host": b"x", b"x-two": b"last"}


@transports
@both
async def test_pipelined_requests_are_answered_in_order(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(b"".join([SIZED, CHUNKED, GET, b"GET /pieces HTTP/1.1\r\nhost: x\r\n\r\n"]))
        bodies = [(await peer.answer()).body for _ in range(4)]
    assert bodies == [b"hello", b"hello", b"", b"".join(PIECES)]


@transports
@both
async def test_a_connection_is_kept_for_the_next_request(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        for _ in range(5):
            await peer.send(SIZED)
            answer = await peer.answer()
            assert answer.body == b"hello"
            assert "connection" not in answer.headers


@transports
@both
@pytest.mark.parametrize(
    "header",
    [
        b"close",
        b"Close",
        b"x, close",
        b"keep-alive\r\nconnection: close",
        b"close\r\nconnection: keep-alive",
    ],
)
async def test_a_client_that_wants_to_close_is_told_so_and_closed(
    face: FaceName, transport: Transport, header: bytes, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: " + header + b"\r\n\r\n")
        assert (await peer.answer()).headers["connection"] == "close"
        assert await peer.is_closed()


@fast_only("serves nothing more either, but an exception in the connection ends the whole server")
@transports
async def test_what_comes_after_a_request_that_closes_is_never_served(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" + GET * 3)
        await peer.answer()
        assert await peer.is_closed()
    assert server.core.paths == ["/"]


@transports
@both
async def test_http_1_0_gets_no_chunks_and_is_closed(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(b"GET /pieces HTTP/1.0\r\n\r\n")
        head, _, body = (await peer.rest()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"transfer-encoding" not in head.lower()
    assert body == b"".join(PIECES)


@transports
@both
@pytest.mark.parametrize("header", [b"", b"connection: keep-alive\r\n"])
async def test_http_1_0_is_closed_after_an_answer_of_known_length_too(
    face: FaceName, transport: Transport, header: bytes, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(b"GET / HTTP/1.0\r\n" + header + b"\r\n")
        assert (await peer.answer()).headers["connection"] == "close"
        assert await peer.is_closed()


@transports
@both
async def test_an_answer_of_unknown_length_comes_in_chunks(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(b"GET /pieces HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = await peer.answer()
    assert answer.body == b"".join(PIECES)
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in answer.headers


@transports
@both
async def test_every_answer_has_a_date(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(GET)
        date = (await peer.answer()).headers["date"]
    assert len(date) == len("Sun, 06 Nov 1994 08:49:37 GMT")
    assert date.endswith(" GMT")


@transports
@both
@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"HEAD /echo", 200),
        (b"HEAD /pieces", 200),
        (b"HEAD /no", 401),
        (b"GET /empty", 204),
        (b"GET /unchanged", 304),
    ],
)
async def test_an_answer_that_has_no_body_leaves_the_connection_in_step(
    face: FaceName, transport: Transport, request_line: bytes, status: int, tmp_path: Path
) -> None:
    method = request_line.partition(b" ")[0].decode()
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(request_line + b" HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
        answer = await peer.answer(method)
        assert (answer.status, answer.body) == (status, b"")
        assert (await peer.answer()).status == 200


@transports
@both
async def test_a_body_that_is_awaited_is_asked_for(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(POST + b"content-length: 5\r\nexpect: 100-continue\r\n\r\n")
        with trio.fail_after(5):
            interim = bytes(await peer.stream.receive_some())
        assert interim.startswith(b"HTTP/1.1 100")
        await peer.send(b"hello" + GET)
        assert (await peer.answer()).body == b"hello"
        assert (await peer.answer()).status == 200


@fast_only("asks for a body that it will throw away")
@transports
@pytest.mark.parametrize(
    ("request_line", "length", "status"),
    [(b"POST /no", 5, 401), (b"POST /echo", 200_000, 413)],
)
async def test_a_body_is_not_asked_for_when_the_head_is_refused(
    face: FaceName,
    transport: Transport,
    request_line: bytes,
    length: int,
    status: int,
    tmp_path: Path,
) -> None:
    head = b"%b HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(head % (request_line, length))
        answer = await peer.answer()
        assert (answer.status, answer.interim) == (status, ())
        assert answer.headers["connection"] == "close"
        assert await peer.is_closed()


@transports
@both
async def test_a_refused_caller_is_answered_and_may_ask_again(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(b"POST /no HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello" + GET)
        assert (await peer.answer()).status == 401
        assert (await peer.answer()).status == 200


@transports
@both
@pytest.mark.parametrize("size", [100_001, 150_000])
async def test_a_body_over_the_limit_is_a_413_after_it_was_read(
    face: FaceName, transport: Transport, size: int, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(POST + b"content-length: %d\r\n\r\n" % size + b"x" * size + GET)
        assert (await peer.answer()).status == 413
        assert (await peer.answer()).status == 200
    assert server.core.paths == ["/"]


@fast_only("closes with bytes unread, which can reset the connection before the answer is read")
@transports
async def test_an_endless_body_gets_its_413_and_is_cut_off(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(POST + b"transfer-encoding: chunked\r\n\r\n")
        await peer.send(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        for _ in range(30):
            await peer.send(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        answer = await peer.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert await peer.is_closed()


@transports
@both
async def test_a_body_that_stops_coming_is_a_408(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    hasty = msgspec.structs.replace(BODY_LIMITS, body_seconds=0.2)
    async with served(face, transport, tmp_path, body_limits=hasty) as server:
        async with server.peer() as peer:
            await peer.send(POST + b"content-length: 5\r\n\r\nhel")
            assert (await peer.answer()).status == 408
            assert await peer.is_closed()
        assert server.core.asked == []


@transports
@both
async def test_all_bodies_together_are_bounded_and_the_room_comes_back(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with (
        served(face, transport, tmp_path) as server,
        server.peer() as first,
        server.peer() as second,
    ):
        await first.send(
            b"POST /silent HTTP/1.1\r\nhost: x\r\ncontent-length: 90000\r\n\r\n" + b"x" * 90_000
        )
        with trio.fail_after(5):
            await server.core.began.wait()
        whole = POST + b"content-length: 90000\r\n\r\n" + b"x" * 90_000
        await second.send(whole)
        assert (await second.answer()).status == 503
        first.leave()
        with trio.fail_after(5):
            await server.core.ended.wait()
        await second.send(whole)
        assert (await second.answer()).status == 200


LEAVING: dict[str, bytes] = {
    "before the first byte": b"",
    "in its request line": b"POST /ec",
    "in a header": POST + b"content-le",
    "before the empty line": POST,
    "before its body": POST + b"content-length: 5\r\n\r\n",
    "in its body": POST + b"content-length: 5\r\n\r\nhe",
    "in a chunk size": POST + b"transfer-encoding: chunked\r\n\r\n5",
    "in a chunk": POST + b"transfer-encoding: chunked\r\n\r\n5\r\nhe",
    "in a trailer": POST + b"transfer-encoding: chunked\r\n\r\n0\r\na",
    "while it is asked for its body": POST + b"expect: 100-continue\r\ncontent-length: 5\r\n\r\n",
}


@transports
@both
@pytest.mark.parametrize("stage", LEAVING)
async def test_a_client_that_leaves_in_its_request_is_not_served(
    face: FaceName, transport: Transport, stage: str, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server:
        async with server.peer() as peer:
            await peer.send(LEAVING[stage] or b"\r\n")
        assert await server.is_alive()
        assert server.core.paths == ["/"]
        assert server.contained == 0


@transports
@both
@pytest.mark.parametrize("path", [b"/silent", b"/watched", b"/flood"])
async def test_a_client_that_leaves_ends_its_request_at_once(
    face: FaceName, transport: Transport, path: bytes, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server:
        async with server.peer() as peer:
            await peer.send(b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n")
            with trio.fail_after(5):
                await server.core.began.wait()
            if path == b"/flood":
                await peer.stream.receive_some(1)
        with trio.fail_after(5):
            await server.core.ended.wait()
        assert await server.is_alive()


@fast_only("stops reading while bytes wait behind a request, and misses the hang-up")
@transports
@pytest.mark.parametrize("path", [b"/silent", b"/watched"])
@pytest.mark.parametrize("after", [b"\r\n", GET, b"x" * 70_000])
async def test_a_hang_up_is_seen_whatever_was_sent_after_the_request(
    face: FaceName, transport: Transport, after: bytes, path: bytes, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server:
        async with server.peer() as peer:
            await peer.send(b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n" + after)
            with trio.fail_after(5):
                await server.core.began.wait()
        with trio.fail_after(5):
            await server.core.ended.wait()
    assert server.core.paths == [path.decode()]


@transports
@both
async def test_a_request_that_was_watched_leaves_the_connection_in_step(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        for _ in range(3):
            await peer.send(b"GET /looked HTTP/1.1\r\nhost: x\r\n\r\n" + SIZED)
            assert (await peer.answer()).body == b"there"
            assert (await peer.answer()).body == b"hello"


@fast_only("stops reading, and the sender waits")
@transports
@pytest.mark.slow
@pytest.mark.parametrize("path", [b"/silent", b"/watched"])
async def test_too_much_sent_ahead_of_an_answer_ends_the_connection(
    face: FaceName, transport: Transport, path: bytes, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError):
            while True:
                await peer.send(b"x" * 65_536)
        with trio.fail_after(5):
            await server.core.ended.wait()
        assert server.core.hang_ups == (path == b"/watched"), "it counts as a client that left"


@pytest.mark.slow
@fast_only("a client that never reads pins its request, and the shutdown, for ever")
@transports
async def test_a_client_that_never_reads_is_cut_off_and_its_request_ends(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    hasty = msgspec.structs.replace(LIMITS, send_stall_seconds=0.3)
    async with served(face, transport, tmp_path, limits=hasty) as server, server.peer() as peer:
        await peer.send(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
        with trio.fail_after(5):
            await server.core.ended.wait()
        assert await server.is_alive()


@fast_only("a client that never reads pins its request, and the shutdown, for ever")
@transports
async def test_a_client_that_never_reads_cannot_hold_up_the_shutdown(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        server.closing.grace_seconds = 0.2
        await peer.send(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
        await peer.stream.receive_some(1)
        server.closing.drain.set()
        with trio.fail_after(3):
            await server.core.ended.wait()


@both
async def test_a_client_that_reads_slowly_gets_everything(face: FaceName, tmp_path: Path) -> None:
    large = msgspec.structs.replace(BODY_LIMITS, body_bytes_max=2**24, bodies_bytes_max=2**25)
    body = bytes(range(256)) * 32_768
    async with (
        served(face, "plain", tmp_path, body_limits=large) as server,
        server.peer() as peer,
        trio.open_nursery() as nursery,
    ):
        received = bytearray()

        async def read() -> None:
            with trio.fail_after(20):
                while len(received) < len(body) or len(received.partition(HEAD_END)[2]) < len(body):
                    received.extend(await peer.stream.receive_some(20_000))
                    await trio.lowlevel.checkpoint()

        nursery.start_soon(read)
        await peer.send(POST + b"content-length: %d\r\n\r\n" % len(body) + body)
    assert bytes(received).partition(HEAD_END)[2] == body


@pytest.mark.slow
@fast_only("has no clock for heads")
@transports
@pytest.mark.parametrize("first", [b"", GET])
async def test_a_head_that_dribbles_in_is_cut_off(
    face: FaceName, transport: Transport, first: bytes, tmp_path: Path
) -> None:
    hasty = ServerLimits(50, 16_384, 0.3, 60, 5)
    async with served(face, transport, tmp_path, limits=hasty) as server, server.peer() as peer:
        if first:
            await peer.send(first)
            await peer.answer()
        await peer.send(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ")
        assert await peer.is_closed()


@pytest.mark.slow
@transports
@both
async def test_an_idle_connection_is_closed(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    hasty = ServerLimits(50, 16_384, 5, 0.3, 5)
    async with served(face, transport, tmp_path, limits=hasty) as server, server.peer() as peer:
        await peer.send(GET)
        await peer.answer()
        assert await peer.is_closed()


@fast_only("its HTTP/1.1 keeps an idle connection until its own clock")
@transports
async def test_a_drain_ends_idle_connections_now_and_busy_ones_after_their_answer(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with (
        served(face, transport, tmp_path) as server,
        server.peer() as idle,
        server.peer() as busy,
        server.peer() as fresh,
    ):
        await idle.send(GET)
        await idle.answer()
        await busy.send(POST + b"content-length: 5\r\nexpect: 100-continue\r\n\r\n")
        await busy.stream.receive_some()
        server.closing.drain.set()
        assert await idle.is_closed()
        assert await fresh.is_closed()
        await busy.send(b"hello" + GET)
        answer = await busy.answer()
        assert (answer.body, answer.headers["connection"]) == (b"hello", "close")
        assert await busy.is_closed()
    assert server.core.paths == ["/", "/echo"]


@fast_only("does the same, but bytes behind where it closes can end the whole server")
@transports
async def test_nothing_follows_an_answer_that_its_core_left_unfinished(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(b"GET /unfinished HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
        received = await peer.rest()
    assert received.endswith(b"4\r\nhalf\r\n")
    assert server.core.paths == ["/unfinished"]


@fast_only("does not count what it contains")
@transports
async def test_an_answer_that_breaks_is_not_taken_for_a_whole_one(
    face: FaceName, transport: Transport, tmp_path: Path
) -> None:
    async with served(face, transport, tmp_path) as server, server.peer() as peer:
        await peer.send(b"GET /broken HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
        received = await peer.rest()
        assert b"content-length: 10" in received
        assert received.endswith(b"half")
        assert server.contained == 1
        assert await server.is_alive()
