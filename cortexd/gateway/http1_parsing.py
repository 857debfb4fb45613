"""HTTP/1.1 requests as bytes: llhttp parses them, and RFC 9112 is kept where llhttp is generous.

Owns what a head means, where a request ends, and what is refused. Refuses to know connections,
clocks and what is asked for. Whatever two readers could take for different requests is an error
here, and ends the connection: nobody may smuggle a request past whoever stands in front of us.

Theory of operation. A head is cut off at its empty line and given to llhttp alone, so that nothing
behind it is parsed before its time. A body of a known length is counted. A chunked one is cut at
its chunks by us and decoded by llhttp, and both have to see the end at the same byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol
from urllib.parse import unquote

import httptools
import msgspec

HEADERS_MAX = 128
"""Most header lines of one request."""

_END_OF_HEAD = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"([A-Z][A-Z-]*) ([!-~]+) HTTP/1\.([01])\r\n")
_OTHER_VERSION = re.compile(rb"[A-Z]+ [!-~]+ HTTP/[0-9]\.[0-9]\r\n")
_BEGINNING = re.compile(rb"[A-Z]|\r?\Z")
_HOST = re.compile(rb"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]*")
_ABSOLUTE = re.compile(rb"https?://[A-Za-z0-9\-._~%!$&'()*+;=:\[\]]+(/[^?]*)?(?:\?.*)?", re.I)
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~\x80-\xff]*)?\r\n")
_LENGTH_DIGITS_MAX = 18
_SIZE_LINE_BYTES_MAX = 256
_TRAILERS_BYTES_MAX = 8192
_CHUNKED_HEAD = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
_ABOUT_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})


class BadRequest(Exception):
    """Bytes that are no request we could serve; the connection ends with this `status`."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Framing(Protocol):
    """Where the body of one request ends, and what is in it."""

    complete: bool

    def take(self, buffer: bytearray) -> bytes:
        """Move what belongs to the body out of `buffer`; its content. Raises BadRequest."""


class RequestHead(msgspec.Struct, frozen=True):
    """What a request says before its body. `path` is percent-decoded, without the query.

    Header names are lower case; of a repeated header the last one counts, except that those which
    say where the request ends cannot be repeated. `body` is None when there is none.
    """

    method: str
    path: str
    headers: dict[bytes, bytes]
    body: Framing | None
    length: int
    is_http_1_0: bool
    keep_alive: bool
    expects_continue: bool


def end_of_head(buffer: bytearray, looked_at: int) -> int:
    """Where the head in `buffer` ends (its empty line included), 0 when it has not come whole.

    `looked_at`: how many bytes were in it at the last look.
    """
    found = buffer.find(_END_OF_HEAD, max(0, looked_at - 3))
    return found + 4 if found >= 0 else 0


def check_beginning(buffer: bytearray) -> None:
    """Refuse what can no longer become a head, so that its sender need not wait to hear it.

    Raises BadRequest: for TLS on a plain port, for lines that end in a mere line feed.
    """
    end = buffer.find(b"\n")
    if not _BEGINNING.match(buffer) or (end >= 0 and buffer[end - 1 : end] != b"\r"):
        raise BadRequest(400, "The request line is not one of HTTP/1.1.")


def parse_head(raw: bytes) -> RequestHead:
    """Understand a head, from its request line to its empty line. Raises BadRequest."""
    line = _REQUEST_LINE.match(raw)
    if line is None:
        if _OTHER_VERSION.match(raw):
            raise BadRequest(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        raise BadRequest(400, "The request line is not one of HTTP/1.1.")
    method, target, is_http_1_0 = line[1], line[2], line[3] == b"0"
    written: dict[bytes, bytes] = {}
    awaited = [raw]  # llhttp empties it at the end of the head: to be called, C is fastest
    _feed(raw, _Calls(written.__setitem__, awaited.clear))
    if awaited:  # pragma: no cover - no bytes are known on which we differ
        raise BadRequest(400, "The request head is malformed.")
    lines = raw.count(b"\r\n") - 2
    if lines > HEADERS_MAX:
        raise BadRequest(431, f"There are more than {HEADERS_MAX} header lines.")
    headers = {name.lower(): value.strip(b" \t") for name, value in written.items()}
    connection = headers.get(b"connection", b"")
    if len(headers) != lines:
        headers, connection = _repeated(raw)
    host = headers.get(b"host")
    if host is None and not is_http_1_0:
        raise BadRequest(400, "A Host header is required.")
    if host is not None and not _HOST.fullmatch(host):
        raise BadRequest(400, "The Host header is malformed.")
    length = _length(headers)
    return RequestHead(
        method=method.decode("ascii"),
        path=_path(target, method),
        headers=headers,
        body=_framing(headers, length, is_http_1_0=is_http_1_0),
        length=length,
        is_http_1_0=is_http_1_0,
        keep_alive=not is_http_1_0 and not (connection and b"close" in _tokens(connection)),
        expects_continue=not is_http_1_0 and _expects_continue(headers),
    )


class _Calls:
    """What llhttp calls while it reads one head."""

    __slots__ = ("on_header", "on_headers_complete")

    def __init__(
        self, on_header: Callable[[bytes, bytes], None], on_headers_complete: Callable[[], None]
    ) -> None:
        self.on_header = on_header
        self.on_headers_complete = on_headers_complete


def _feed(raw: bytes, calls: _Calls) -> None:
    """Have llhttp read a head. Raises BadRequest."""
    try:
        httptools.HttpRequestParser(calls).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # an offer, which is not taken up
    except httptools.HttpParserInvalidMethodError:
        raise BadRequest(501, "No such method is known here.") from None
    except httptools.HttpParserError:
        raise BadRequest(400, "The request head is malformed.") from None


def _repeated(raw: bytes) -> tuple[dict[bytes, bytes], bytes]:
    """All headers, of which the last of a name counts, and what all Connection headers say; of a
    head in which some header is there more than once.

    Raises BadRequest where it is one that says where the request ends.
    """
    headers: dict[bytes, bytes] = {}
    connection: list[bytes] = []
    repeated: list[bytes] = []

    def note(name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"connection":
            connection.append(value)
        elif name in headers and name in _ABOUT_FRAMING:
            repeated.append(name)
        headers[name] = value.strip(b" \t")

    _feed(raw, _Calls(note, bytearray().clear))
    if repeated:
        raise BadRequest(400, f"The header {repeated[0].decode()} may be given once.")
    return headers, b",".join(connection)


def _length(headers: dict[bytes, bytes]) -> int:
    """What Content-Length says, 0 without one."""
    length = headers.get(b"content-length")
    if length is None:
        return 0
    if not length.isdigit() or len(length) > _LENGTH_DIGITS_MAX:
        raise BadRequest(400, "The Content-Length is malformed.")
    return int(length)


def _framing(headers: dict[bytes, bytes], length: int, *, is_http_1_0: bool) -> Framing | None:
    coding = headers.get(b"transfer-encoding")
    if coding is None:
        return Sized(length) if length else None
    if b"content-length" in headers or is_http_1_0:
        raise BadRequest(400, "Transfer-Encoding does not go with this request.")
    if coding.lower() != b"chunked":
        raise BadRequest(501, "The only transfer coding taken here is chunked.")
    return Chunked()


def _expects_continue(headers: dict[bytes, bytes]) -> bool:
    expected = headers.get(b"expect")
    if expected is None:
        return False
    if expected.lower() != b"100-continue":
        raise BadRequest(417, "The only expectation that can be met is 100-continue.")
    return True


def _path(target: bytes, method: bytes) -> str:
    """The path of a request target in any of its forms, percent-decoded and without the query."""
    if b"#" in target:
        raise BadRequest(400, "A request target has no fragment.")
    if target.startswith(b"/"):
        path = target.partition(b"?")[0]
    elif (absolute := _ABSOLUTE.fullmatch(target)) is not None:
        path = absolute[1] or b"/"
    elif target == b"*" and method == b"OPTIONS":
        path = target
    else:
        raise BadRequest(400, "The request target is malformed.")
    text = path.decode("ascii")
    return unquote(text) if "%" in text else text


def _tokens(value: bytes) -> set[bytes]:
    return {token.strip(b" \t") for token in value.lower().split(b",")}


class Sized:
    """A body of a declared length."""

    __slots__ = ("_left", "complete")

    def __init__(self, length: int) -> None:
        """`length` is at least 1."""
        self._left = length
        self.complete = False

    def take(self, buffer: bytearray) -> bytes:
        """See `Framing`."""
        if len(buffer) <= self._left:
            taken = bytes(buffer)
            buffer.clear()
        else:
            taken = bytes(buffer[: self._left])
            del buffer[: self._left]
        self._left -= len(taken)
        self.complete = not self._left
        return taken


class Chunked:
    """A body in chunks. Extensions and trailers are bounded, and left unread."""

    __slots__ = (
        "_data_left",
        "_ended",
        "_in_trailers",
        "_parser",
        "_pieces",
        "_trailer",
        "complete",
    )

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._pieces: list[bytes] = []
        self._data_left = 0
        self._in_trailers = False
        self._trailer = 0
        self._ended = False
        self.complete = False
        self._parser.feed_data(_CHUNKED_HEAD)

    def take(self, buffer: bytearray) -> bytes:
        """See `Framing`."""
        while buffer and not self.complete:
            if self._data_left:
                cut = min(self._data_left, len(buffer))
                self._data_left -= cut
            else:
                cut = self._line(buffer)
                if not cut:
                    break
            self._decode(bytes(buffer[:cut]))
            del buffer[:cut]
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken

    def _line(self, buffer: bytearray) -> int:
        """The length of the line at the front of `buffer`; 0 when it has not come whole."""
        bytes_max = _TRAILERS_BYTES_MAX if self._in_trailers else _SIZE_LINE_BYTES_MAX
        end = buffer.find(b"\r\n", 0, bytes_max) + 2
        if end == 1:
            if len(buffer) >= bytes_max:
                raise BadRequest(400, "The framing of the chunked body is too large.")
            return 0
        if self._in_trailers:
            self._trailer += end
            if self._trailer > _TRAILERS_BYTES_MAX:
                raise BadRequest(400, "The trailers of the chunked body are too large.")
            self.complete = end == 2
            return end
        size = _SIZE_LINE.fullmatch(buffer, 0, end)
        if size is None:
            raise BadRequest(400, "The size of a chunk is malformed.")
        length = int(size[1], 16)
        self._in_trailers = length == 0
        self._data_left = length + 2 if length else 0
        return end

    def _decode(self, piece: bytes) -> None:
        """Have llhttp read what we have cut off; it must agree on where the body ends."""
        assert self._parser is not None, "nothing is read past the end"
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserError:
            raise BadRequest(400, "The chunked body is malformed.") from None
        if self._ended != self.complete:  # pragma: no cover - no bytes are known that do this
            raise BadRequest(400, "The chunked body is malformed.")
        if self.complete:
            self._parser = None  # they point at each other: no work for the collector

    def on_body(self, data: bytes) -> None:
        """For llhttp: a piece of content."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """For llhttp: the end."""
        self._ended = True
