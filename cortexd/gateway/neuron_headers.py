"""The headers of a request to a neuron: a closed list, whatever the client sent."""

from functools import lru_cache

from cortexd.dialects.surface import Document
from cortexd.fleet.outgoing import HeaderLines, header_lines, may_be_sent
from cortexd.gateway.auth import Principal
from cortexd.gateway.exchange import Head

_REMEMBERED_MAX = 64


def body_headers(written: Document, *, stream: bool) -> HeaderLines:
    """What the body is, and what the answer is to be."""
    lines = _body_lines(written.content_type, stream)
    return HeaderLines(lines + header_lines(written.headers)) if written.headers else lines


@lru_cache(_REMEMBERED_MAX)
def _body_lines(content_type: str, stream: bool) -> HeaderLines:
    return header_lines(
        (
            (b"content-type", content_type.encode("latin-1")),
            (b"accept", b"text/event-stream" if stream else b"*/*"),
        )
    )


@lru_cache(_REMEMBERED_MAX)
def credential(api_key: str) -> HeaderLines:
    """The key that a neuron asks for."""
    return header_lines(((b"authorization", b"Bearer " + api_key.encode()),))


def neuron_headers(principal: Principal, head: Head) -> HeaderLines:
    """Who asks; a client's own principal headers never pass."""
    thinking = head.headers.get(b"x-include-thinking")
    if thinking is None or not may_be_sent(thinking):
        return principal.neuron_headers
    lines = header_lines(((b"x-include-thinking", thinking),))
    return HeaderLines(lines + principal.neuron_headers)
