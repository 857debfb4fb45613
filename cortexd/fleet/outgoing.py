"""A request to a neuron as data, and the bytes of its head.

Owns what may be written on a connection to a neuron: every name and value is checked, so that no
client's text can add a header or a second request. Refuses to know sockets and what the body says.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
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


class Outgoing(msgspec.Struct, frozen=True):
    """One request: `path` (with its query, percent-encoded) is appended to `base_url`."""

    base_url: str
    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""


def head_bytes(outgoing: Outgoing, address: Address) -> bytes:
    """The request line and headers, up to and including the empty line.

    Raises ValueError for a method, path or header that must not be sent: a bug of the caller.
    """
    beginning = _beginning(outgoing.method, address.prefix + outgoing.path, address.host_header)
    lines = [_header_line(name, value) for name, value in outgoing.headers]
    if outgoing.body or outgoing.method in _BODY_METHODS:
        lines.append(b"content-length: %d\r\n" % len(outgoing.body))
    return b"%b%b\r\n" % (beginning, b"".join(lines))


# What goes to neurons differs from request to request in little more than an id: the rest of it has
# been checked, and written, before.


@functools.lru_cache(_REMEMBERED_MAX)
def _beginning(method: str, target: str, host_header: str) -> bytes:
    if not _METHOD.fullmatch(method):
        raise ValueError("a method is 1 to 16 capital letters")
    if not _TARGET.fullmatch(target):
        raise ValueError("a path begins with a slash and is percent-encoded")
    return f"{method} {target} HTTP/1.1\r\nhost: {host_header}\r\n".encode("ascii")


@functools.lru_cache(_REMEMBERED_MAX)
def _header_line(name: bytes, value: bytes) -> bytes:
    if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError("a header name or value with characters that HTTP forbids")
    if name.lower() in CONNECTION_HEADERS:
        raise ValueError(f"the header {name.decode('ascii')} belongs to the connection")
    return b"%b: %b\r\n" % (name, value)
