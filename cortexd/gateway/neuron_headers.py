"""The headers of a request to a neuron: a closed list, whatever the client sent."""

from collections.abc import Sequence

from cortexd.dialects.surface import Document
from cortexd.gateway.auth import PRINCIPAL_HEADERS, Principal
from cortexd.gateway.exchange import Head, Headers


def body_headers(written: Document, *, stream: bool) -> Headers:
    """What the body is, and what the answer is to be."""
    return (
        (b"content-type", written.content_type.encode("latin-1")),
        (b"accept", b"text/event-stream" if stream else b"*/*"),
    )


def neuron_headers(principal: Principal, head: Head) -> Headers:
    """Who asks, and under which id; a client's own principal headers never pass."""
    headers: list[tuple[bytes, bytes]] = [(b"x-request-id", head.request_id.encode())]
    thinking = head.headers.get(b"x-include-thinking")
    if thinking is not None:
        headers.append((b"x-include-thinking", thinking))
    ids: Sequence[str | None] = (principal.account_id, principal.key_id)
    headers += [
        (name, value.encode())
        for name, value in zip(PRINCIPAL_HEADERS, ids, strict=True)
        if value is not None
    ]
    return tuple(headers)
