"""The headers of a request to a neuron: a closed list, whatever the client sent."""

from cortexd.dialects.surface import Document
from cortexd.gateway.auth import Principal
from cortexd.gateway.exchange import Head, Headers


def body_headers(written: Document, *, stream: bool) -> Headers:
    """What the body is, and what the answer is to be."""
    return (
        (b"content-type", written.content_type.encode("latin-1")),
        (b"accept", b"text/event-stream" if stream else b"*/*"),
    )


def neuron_headers(principal: Principal, head: Head) -> Headers:
    """Who asks; a client's own principal headers never pass."""
    thinking = head.headers.get(b"x-include-thinking")
    if thinking is None:
        return principal.neuron_headers
    return ((b"x-include-thinking", thinking), *principal.neuron_headers)
