"""A request to a neuron as data, and the bytes of its head.

Owns what may be written on a connection to a neuron: every name and value is checked, so that no
client's text can add a header or a second request. Refuses to know sockets and what the body says.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, NewType

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cortexd.fleet.addresses import Address

# RFC 9110: 5.6.2 (token), 5.5 (value: no control characters but the tab); RFC 9112: 3 (target).
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_METHOD = re.compile(r"[A-Z]{1,16}")
_TARGET = re.compile(r"/[!-\"$-~]*")

CONNECTION_HEADERS = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Names that belong to the connection: the pool writes what it needs, a caller none of them."""

_REMEMBERED_MAX = 1024
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})


HeaderLines = NewType("HeaderLines", bytes)
"""Headers as they go out; made by `header_lines`. Most are the same for every request of a key, or
to a neuron, and so are checked and written once.
"""

NO_LINES = HeaderLines(b"")


class Outgoing(msgspec.Struct, frozen=True):
    """One request: `path` (with its query, percent-encoded) is appended to `base_url`.

    `lines`: its headers. `request_id`: goes out as `x-request-id`, if there is one.
    """

    base_url: str
    method: str
    path: str
    lines: HeaderLines = NO_LINES
    body: bytes = b""
    request_id: bytes = b""


def head_bytes(outgoing: Outgoing, address: Address) -> bytes:
    """The request line and headers, up to and including the empty line.

    Raises ValueError for a method or path that must not be sent: a bug of the caller.
    """
    target = address.prefix + outgoing.path
    head = _beginning(outgoing.method, target, address.host_header) + outgoing.lines
    if outgoing.request_id:
        head += header_lines(((b"x-request-id", outgoing.request_id),))
    if outgoing.body or outgoing.method in _BODY_METHODS:
        return b"%bcontent-length: %d\r\n\r\n" % (head, len(outgoing.body))
    return head + b"\r\n"


@functools.lru_cache(_REMEMBERED_MAX)
def _beginning(method: str, target: str, host_header: str) -> bytes:
    if not _METHOD.fullmatch(method):
        raise ValueError("a method is 1 to 16 capital letters")
    if not _TARGET.fullmatch(target):
        raise ValueError("a path begins with a slash and is percent-encoded")
    return f"{method} {target} HTTP/1.1\r\nhost: {host_header}\r\n".encode("ascii")


def may_be_sent(value: bytes) -> bool:
    """Whether a header can have this value; HTTP/2 lets clients send some that HTTP/1.1 forbids."""
    return _VALUE.fullmatch(value) is not None


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> HeaderLines:
    """Headers, checked and written. Raises ValueError for what must not be sent."""
    lines = b""
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError("a header name or value with characters that HTTP forbids")
        if name.lower() in CONNECTION_HEADERS:
            raise ValueError(f"the header {name.decode('ascii')} belongs to the connection")
        lines += b"%b: %b\r\n" % (name, value)
    return HeaderLines(lines)
