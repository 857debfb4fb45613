"""What is no HTTP/1.1 request is refused, and ends the connection: nothing behind it is served.

Each case is sent with a whole request behind it. Had the two ends of the connection different ideas
of where the first one ends, that second one would be served: a smuggled request. Both faces are
held to it; where stock Hypercorn legitimately does something else, the case says what and why.
"""

import re
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from tests.support.faces import Transport, served

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /first HTTP/1.1\r\nhost: x\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"


SERVES: Literal["serves"] = "serves"
"""Stock Hypercorn takes it for a request and reads on behind it."""
WAITS: Literal["waits"] = "waits"
"""It waits for more."""

DIES: Literal["dies"] = "dies"
"""It is not asked: bytes behind a request after which it closes can end the whole server."""

ONE_READING = "h11 reads it in the one way that RFC 9112 allows to those who do not refuse"
LENIENT = "h11 is lenient where RFC 9112 lets a receiver be"
BLIND = "h11 does not look at it; nothing in it says where the request ends"
CLOSES = "it serves the first request and closes; the fault is in how"
OTHER_WORDS = "refused with another status that RFC 9110 allows"


class Bad(msgspec.Struct, frozen=True):
    """Bytes that are no request. `status`: what the fast face answers.

    `stock`: what stock Hypercorn does where that differs; `because`: why that is legitimate.
    """

    data: bytes
    status: int = 400
    stock: int | Literal["serves", "waits", "dies"] | None = None
    because: str = ""


BAD = {
    "content-length and transfer-encoding": Bad(
        POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        stock=SERVES,
        because=ONE_READING,
    ),
    "transfer-encoding and content-length": Bad(
        POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        stock=SERVES,
        because=ONE_READING,
    ),
    "two different content-lengths": Bad(
        POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{} "
    ),
    "two equal content-lengths": Bad(
        POST + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
        stock=SERVES,
        because=ONE_READING,
    ),
    "a list of content-lengths": Bad(
        POST + b"content-length: 2, 2\r\n\r\n{}", stock=SERVES, because=ONE_READING
    ),
    "a signed content-length": Bad(POST + b"content-length: +2\r\n\r\n{}"),
    "a negative content-length": Bad(POST + b"content-length: -2\r\n\r\n{}"),
    "a hexadecimal content-length": Bad(POST + b"content-length: 0x2\r\n\r\n{}"),
    "an empty content-length": Bad(POST + b"content-length:\r\n\r\n{}"),
    "a content-length with an underscore": Bad(POST + b"content-length: 1_0\r\n\r\n{}"),
    "a content-length beyond 64 bits": Bad(
        POST + b"content-length: 99999999999999999999\r\n\r\n",
        stock=WAITS,
        because="twenty digits are a number to h11",
    ),
    "two transfer-encodings": Bad(
        POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        stock=501,
        because=OTHER_WORDS,
    ),
    "a coding that is not chunked": Bad(
        POST + b"transfer-encoding: gzip\r\n\r\n", 400, stock=501, because=OTHER_WORDS
    ),
    "a coding before chunked": Bad(
        POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501
    ),
    "a coding after chunked": Bad(
        POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        stock=501,
        because=OTHER_WORDS,
    ),
    "a coding that looks like chunked": Bad(
        POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n"
    ),
    "a transfer coding in HTTP/1.0": Bad(
        b"POST /first HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        stock=DIES,
        because=CLOSES,
    ),
    "a folded header": Bad(
        POST + b"x: one\r\n two\r\ncontent-length: 0\r\n\r\n", stock=SERVES, because=ONE_READING
    ),
    "a folded content-length": Bad(
        POST + b"content-length:\r\n 2\r\n\r\n{}", stock=SERVES, because=ONE_READING
    ),
    "white space before the first header": Bad(b"GET / HTTP/1.1\r\n host: x\r\n\r\n"),
    "white space before a colon": Bad(POST + b"content-length : 2\r\n\r\n{}"),
    "white space in a header name": Bad(POST + b"x y: z\r\n\r\n"),
    "a header without a colon": Bad(POST + b"nothing\r\n\r\n"),
    "a header without a name": Bad(POST + b": nothing\r\n\r\n"),
    "NUL in a header": Bad(POST + b"x: a\x00b\r\n\r\n"),
    "NUL in a header name": Bad(POST + b"x\x00: ab\r\n\r\n"),
    "NUL in the target": Bad(b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n"),
    "a control character in a header": Bad(
        POST + b"x: a\x01b\r\n\r\n", stock=SERVES, because=BLIND
    ),
    "a bare CR in a header": Bad(POST + b"x: a\rb: c\r\n\r\n"),
    "a bare CR before the empty line": Bad(POST + b"x: a\r\r\n\r\n"),
    "a bare CR in the request line": Bad(b"GET /\r HTTP/1.1\r\nhost: x\r\n\r\n"),
    "a bare LF between headers": Bad(
        b"GET / HTTP/1.1\r\nhost: x\nx: y\r\n\r\n", stock=SERVES, because=LENIENT
    ),
    "bare LFs throughout": Bad(b"GET / HTTP/1.1\nhost: x\n\n", stock=SERVES, because=LENIENT),
    "a high byte in a header name": Bad(POST + b"x\x80: y\r\n\r\n"),
    "no host": Bad(b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": Bad(b"GET / HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n"),
    "a host that is a list": Bad(
        b"GET / HTTP/1.1\r\nhost: x y\r\n\r\n", stock=SERVES, because=BLIND
    ),
    "a host with a path": Bad(b"GET / HTTP/1.1\r\nhost: x/y\r\n\r\n", stock=SERVES, because=BLIND),
    "no target": Bad(b"GET HTTP/1.1\r\nhost: x\r\n\r\n"),
    "a relative target": Bad(b"GET first HTTP/1.1\r\nhost: x\r\n\r\n", stock=SERVES, because=BLIND),
    "a target with a space": Bad(b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n"),
    "a target with a fragment": Bad(
        b"GET /a#b HTTP/1.1\r\nhost: x\r\n\r\n", stock=SERVES, because=BLIND
    ),
    "a target with a high byte": Bad(b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n"),
    "a star that is not for OPTIONS": Bad(
        b"GET * HTTP/1.1\r\nhost: x\r\n\r\n", stock=SERVES, because=BLIND
    ),
    "a target of another scheme": Bad(
        b"GET ftp://x/y HTTP/1.1\r\nhost: x\r\n\r\n", stock=SERVES, because=BLIND
    ),
    "an absolute target without a host": Bad(
        b"GET http:///y HTTP/1.1\r\nhost: x\r\n\r\n", stock=SERVES, because=BLIND
    ),
    "a tunnel": Bad(
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
        stock=DIES,
        because=CLOSES,
    ),
    "two spaces after the method": Bad(b"GET  / HTTP/1.1\r\nhost: x\r\n\r\n"),
    "a tab after the method": Bad(b"GET\t/ HTTP/1.1\r\nhost: x\r\n\r\n"),
    "a space after the version": Bad(b"GET / HTTP/1.1 \r\nhost: x\r\n\r\n"),
    "a method in lower case": Bad(
        b"get / HTTP/1.1\r\nhost: x\r\n\r\n", stock=SERVES, because=BLIND
    ),
    "an unknown method": Bad(
        b"BREW / HTTP/1.1\r\nhost: x\r\n\r\n",
        501,
        stock=SERVES,
        because="the application refuses it there",
    ),
    "no version": Bad(b"GET /\r\n\r\n"),
    "an old version": Bad(b"GET / HTTP/0.9\r\nhost: x\r\n\r\n", 505, stock=DIES, because=CLOSES),
    "a version of the future": Bad(
        b"GET / HTTP/1.2\r\nhost: x\r\n\r\n", 505, stock=SERVES, because=LENIENT
    ),
    "HTTP/2.0 in the way of HTTP/1": Bad(
        b"GET / HTTP/2.0\r\nhost: x\r\n\r\n", 505, stock=SERVES, because=LENIENT
    ),
    "another protocol": Bad(b"GET / RTSP/1.0\r\nhost: x\r\n\r\n"),
    "two empty lines first": Bad(b"\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n"),
    "TLS on a plain connection": Bad(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "an unknown expectation": Bad(
        POST + b"content-length: 2\r\nexpect: tea\r\n\r\n{}",
        417,
        stock=SERVES,
        because="RFC 9110 lets a server ignore it",
    ),
    "too large a head": Bad(
        POST + b"x: " + b"y" * 20_000 + b"\r\n\r\n",
        431,
        stock=SERVES,
        because="its limit is on what has come without an end",
    ),
    "a head without an end": Bad(POST + b"x: " + b"y" * 70_000, 431),
    "too many headers": Bad(
        POST + b"a: b\r\n" * 200 + b"\r\n", 431, stock=SERVES, because="it counts bytes only"
    ),
    "a chunk size that is no number": Bad(CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n"),
    "a chunk size with 0x": Bad(CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n"),
    "a signed chunk size": Bad(CHUNKED + b"+2\r\n{}\r\n0\r\n\r\n"),
    "a negative chunk size": Bad(CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n"),
    "a chunk size with a space": Bad(
        CHUNKED + b"2 \r\n{}\r\n0\r\n\r\n", stock=SERVES, because=LENIENT
    ),
    "a chunk size with an underscore": Bad(CHUNKED + b"0_2\r\n{}\r\n0\r\n\r\n"),
    "an empty chunk size": Bad(CHUNKED + b"\r\n{}\r\n0\r\n\r\n"),
    "a chunk size beyond 64 bits": Bad(
        CHUNKED + b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        stock=WAITS,
        because="seventeen digits are a number to h11",
    ),
    "a chunk size that ends in a bare LF": Bad(CHUNKED + b"2\n{}\r\n0\r\n\r\n"),
    "a chunk size that ends in a bare CR": Bad(CHUNKED + b"2\r{}\r\n0\r\n\r\n"),
    "a chunk longer than its size": Bad(CHUNKED + b"1\r\n{}\r\n0\r\n\r\n"),
    "a chunk that ends in a bare LF": Bad(CHUNKED + b"2\r\n{}\n0\r\n\r\n"),
    "a chunk without an end": Bad(CHUNKED + b"2\r\n{}0\r\n\r\n"),
    "a chunk extension with NUL": Bad(
        CHUNKED + b"2;\x00\r\n{}\r\n0\r\n\r\n", stock=SERVES, because=BLIND
    ),
    "a chunk extension with a bare LF": Bad(CHUNKED + b"2;a\nb\r\n{}\r\n0\r\n\r\n"),
    "a chunk extension without an end": Bad(CHUNKED + b"2;" + b"a" * 20_000),
    "a folded trailer": Bad(
        CHUNKED + b"2\r\n{}\r\n0\r\na: b\r\n c\r\n\r\n", stock=SERVES, because=ONE_READING
    ),
    "a trailer that is no header": Bad(CHUNKED + b"2\r\n{}\r\n0\r\nnothing\r\n\r\n"),
    "trailers without an end": Bad(CHUNKED + b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 5000),
}


@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_request_is_refused_and_ends_the_connection(
    transport: Transport, name: str, tmp_path: Path
) -> None:
    bad = BAD[name]
    async with served("http1", transport, tmp_path) as server:
        async with server.peer() as peer:
            await peer.send(bad.data + SMUGGLED)
            received = await peer.rest()
        assert statuses(received) == [bad.status]
        assert b"connection: close\r\n" in received
        assert server.core.asked == []
        assert server.contained == 0
        assert await server.is_alive()


@pytest.mark.parametrize("transport", ["plain", "tls"])
@pytest.mark.parametrize("name", [name for name, bad in BAD.items() if bad.stock != DIES])
async def test_stock_hypercorn_refuses_it_too_or_has_a_reason(
    transport: Transport, name: str, tmp_path: Path
) -> None:
    bad = BAD[name]
    assert bool(bad.because) == (bad.stock is not None)
    async with served("stock", transport, tmp_path) as server:
        async with server.peer() as peer:
            await peer.send(bad.data + SMUGGLED)
            if bad.stock == SERVES:
                assert [(await peer.answer()).status for _ in range(2)] == [200, 200]
            elif bad.stock != WAITS:
                assert statuses(await peer.rest()) == [bad.stock or bad.status]
        assert await server.is_alive()


def statuses(received: bytes) -> list[int]:
    """The statuses of all answers in what was received."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3})", received)]
