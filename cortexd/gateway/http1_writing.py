"""HTTP/1.1 responses as bytes: the head, and where the body ends.

Owns framing (a length, chunks, or the end of the connection) and what must not be sent: a body to
a HEAD request, more or less than was declared, a header that is not one line. Refuses to know
connections and clocks; the Date comes in.
"""

from __future__ import annotations

from http import HTTPStatus

from cortexd.gateway.exchange import Headers

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What tells a client that its body is awaited."""

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii")
    for status in HTTPStatus
}
_BODILESS = frozenset({204, 304})
_ABOUT_FRAMING = frozenset({b"connection", b"transfer-encoding", b"date", b"content-length"})


class ResponseFault(Exception):
    """The core answers in a way that no client could understand: a bug. Nothing of it is sent."""


class Response:
    """One response while it is written. `keep_alive`: whether another request may follow."""

    __slots__ = (
        "_chunked",
        "_drops_body",
        "_head",
        "_is_http_1_0",
        "_left",
        "_to_head",
        "complete",
        "keep_alive",
        "started",
    )

    def __init__(self, *, to_head: bool, is_http_1_0: bool, keep_alive: bool) -> None:
        """`to_head`: it answers a HEAD request. `is_http_1_0`: its client knows no chunks."""
        self._to_head = to_head
        self._is_http_1_0 = is_http_1_0
        self._head = b""
        self._left: int | None = None
        self._chunked = False
        self._drops_body = False
        self.keep_alive = keep_alive
        self.started = False
        self.complete = False

    def start(self, status: int, headers: Headers, date: bytes) -> None:
        """Compose the head; it goes out with the first piece. Names are in lower case, as ASGI has
        them. Raises ResponseFault.
        """
        if self.started:
            raise ResponseFault("a second head")
        if not 200 <= status <= 599:
            raise ResponseFault(f"a status that ends no exchange: {status}")
        self._drops_body = self._to_head or status in _BODILESS
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d Unnamed\r\n" % status]
        for name, value in headers:
            if name in _ABOUT_FRAMING or not name.islower():
                if name != b"content-length":
                    raise ResponseFault(
                        f"a header of the server's own, or not in lower case: {name!r}"
                    )
                self._left = int(value)
                if status == 204:
                    continue
            lines.append(b"%b: %b\r\n" % (name, value))
        if self._left is None and not self._drops_body:
            self._choose_framing(lines)
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"date: %b\r\n\r\n" % date)
        head = b"".join(lines)
        # Two line ends close it; a header that holds one of its own could end it early.
        if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1:
            raise ResponseFault("a header of several lines")
        self._head = head
        self.started = True

    def _choose_framing(self, lines: list[bytes]) -> None:
        """In chunks, or up to the end of the connection."""
        if self._is_http_1_0:
            self.keep_alive = False
        else:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")

    def piece(self, data: bytes) -> bytes:
        """The bytes that carry a piece of the body. Raises ResponseFault."""
        return self._framed(data)

    def end(self, data: bytes = b"") -> bytes:
        """The bytes that carry the last piece and the end. Raises ResponseFault."""
        framed = self._framed(data)
        if self._left and not self._drops_body:
            raise ResponseFault("less than was declared")
        self.complete = True
        return framed + b"0\r\n\r\n" if self._chunked else framed

    def _framed(self, data: bytes) -> bytes:
        if not self.started or self.complete:
            raise ResponseFault("a body before its head, or after its end")
        head, self._head = self._head, b""
        if self._drops_body or not data:
            return head
        if self._chunked:
            return b"%b%x\r\n%b\r\n" % (head, len(data), data)
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise ResponseFault("more than was declared")
        return head + data if head else data
