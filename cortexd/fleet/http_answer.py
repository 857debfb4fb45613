"""One HTTP/1.1 response, read from bytes as they come; llhttp does the parsing.

Owns where the response begins and ends: interim (1xx) heads, the three framings, the limit on
heads, whether the connection can carry another request. Refuses to know sockets, clocks and what a
body says.

Theory of operation. A reader is in one of four states and only moves down:

    head       bytes so far are interim heads or an unfinished head
    body       `head_complete`; `take` gives what has come
    complete   `complete`; the rest of what is fed only proves that the connection is out of step
    failed     `failure` says why, in words without the neuron's own; what came before can be taken

Bytes that belong together always give the same head, body and verdict, however they are cut.
"""

from __future__ import annotations

import httptools

HEAD_BYTES_MAX = 65_536


class AnswerReader:
    """The reader of one response. `head_only`: the answer to a HEAD request, which has no body.

    The `on_*` methods are llhttp's way of calling back and are not for others.
    """

    __slots__ = (
        "_body",
        "_coding",
        "_ends_with_connection",
        "_has_length",
        "_head_bytes",
        "_head_bytes_max",
        "_head_only",
        "_in_step",
        "_lines",
        "_parser",
        "_silent_bytes",
        "complete",
        "failure",
        "head_complete",
        "headers",
        "status",
    )

    def __init__(self, *, head_only: bool = False, head_bytes_max: int = HEAD_BYTES_MAX) -> None:
        """Nothing read yet. `head_bytes_max` bounds all heads together, and trailers."""
        self._head_only = head_only
        self._head_bytes_max = head_bytes_max
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._lines: list[tuple[bytes, bytes]] = []
        self._has_length = False
        self._coding = b""
        self._body: list[bytes] = []
        self._head_bytes = 0
        self._silent_bytes = 0
        self._ends_with_connection = False
        self._in_step = False
        self.status = 0
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.head_complete = False
        self.complete = False
        self.failure: str | None = None

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on the connection; only meaningful once `complete`."""
        return self.complete and self._in_step

    def feed(self, data: bytes) -> None:
        """Read bytes. Never raises; `head_complete`, `complete` and `failure` tell the outcome."""
        parser = self._parser
        if parser is None:
            self._in_step = False
            return
        self._silent_bytes += len(data)
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self.complete:
                self._in_step = False
            else:
                self._fail("it does not speak HTTP/1.1")
        if not self.complete and self._silent_bytes > self._head_bytes_max:
            # llhttp keeps an unfinished header, and skips chunk extensions, without an end.
            self._fail(
                "it sends no body, only framing" if self.head_complete else "its head is too large"
            )
        if self.complete or self.failure:
            self._parser = None  # reader and parser point at each other: no work for the collector

    def feed_eof(self) -> None:
        """The connection was closed by the neuron."""
        if self.complete or self.failure:
            self._in_step = False
        elif self.head_complete and self._ends_with_connection:
            self.complete = True
        elif self.head_complete:
            self._fail("it closed the connection in the middle of an answer")
        else:
            self._fail("it closed the connection without an answer")
        self._parser = None

    def take(self) -> bytes:
        """The body that has come since the last call; b"" when there is none."""
        body = self._body
        if not body:
            return b""
        taken = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return taken

    def on_message_begin(self) -> None:
        """A first byte of a head: of ours, or already of one that nobody asked for."""
        if self.complete:
            self._in_step = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header or trailer line."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._head_bytes_max:
            self._fail("its head is too large")
        elif not self.head_complete:
            name, value = name.lower(), value.strip(b" \t")
            self._lines.append((name, value))
            if name == b"content-length":
                self._has_length = True
            elif name == b"transfer-encoding":
                before = self._coding + b"," if self._coding else b""
                self._coding = before + value.lower()

    def on_headers_complete(self) -> None:
        """The empty line after a head."""
        if self.head_complete or self.failure:
            return
        assert self._parser is not None, "llhttp only calls back while it is fed"
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            if status == 101:
                self._fail("it switched protocols without being asked to")
            return
        if self._parser.get_http_version() not in ("1.1", "1.0") or not 200 <= status <= 599:
            self._fail("it does not speak HTTP/1.1")
            return
        if self._coding not in (b"", b"chunked"):
            self._fail("it uses a transfer coding that was not asked for")
            return
        self.status, self.headers = status, tuple(self._lines)
        self._lines = []
        self.head_complete = True
        self._silent_bytes = 0
        self._in_step = self._parser.should_keep_alive()
        self._ends_with_connection = not self._has_length and not self._coding
        self.complete = self._head_only

    def on_body(self, data: bytes) -> None:
        """A piece of the body, without its framing."""
        if self.complete:
            self._in_step = False
        elif self.failure is None:
            self._silent_bytes = 0
            self._body.append(data)

    def on_message_complete(self) -> None:
        """The end of an interim head, or of the answer."""
        if self.failure:
            return
        if self.head_complete:
            self.complete = True
        else:
            self._lines.clear()
            self._has_length, self._coding = False, b""

    def _fail(self, reason: str) -> None:
        if self.failure is None:
            self.failure = reason
