"""Pages in a browser: what a browser asks before it lets one of them call, and reads in an answer.

Owns the headers of the Fetch standard (https://fetch.spec.whatwg.org/#http-cors-protocol). Refuses
to know keys: a preflight carries none, and cookies are never accepted, so that a page can only
spend with a key that it was given.
"""

import re
from collections.abc import Awaitable, Callable, Set
from contextlib import AbstractAsyncContextManager

from cortexd.gateway.exchange import Client, End, Head, Headers

ANY_ORIGIN = "*"

MAX_AGE_SECONDS = 600
"""How long a browser may remember a preflight."""

READABLE = (
    b"x-request-id, request-id, retry-after, x-should-retry, "
    b"x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, "
    b"x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    b"anthropic-ratelimit-tokens-limit, anthropic-ratelimit-tokens-remaining, "
    b"anthropic-ratelimit-tokens-reset, anthropic-ratelimit-requests-limit, "
    b"anthropic-ratelimit-requests-remaining, anthropic-ratelimit-requests-reset"
)
"""Headers of an answer that a page may read beside the few that it always may."""

_ALLOWED_BY_DEFAULT = b"authorization, content-type, x-api-key"
_NAMES = re.compile(rb"[A-Za-z0-9_,\- ]{1,2048}")


def is_preflight(head: Head) -> bool:
    """Whether a browser asks if a page may make a request."""
    if head.method != "OPTIONS":
        return False
    return b"origin" in head.headers and b"access-control-request-method" in head.headers


def preflight_headers(head: Head) -> Headers:
    """What a page may send; whether it may at all is told by `origin_headers`."""
    names = head.headers.get(b"access-control-request-headers", b"")
    return (
        (b"access-control-allow-methods", b"GET, HEAD, POST, OPTIONS"),
        # A star would leave out `authorization`, so the names that were asked for are repeated.
        (
            b"access-control-allow-headers",
            names if _NAMES.fullmatch(names) else _ALLOWED_BY_DEFAULT,
        ),
        (b"access-control-max-age", b"%d" % MAX_AGE_SECONDS),
    )


def origin_headers(head: Head, allowed: Set[str]) -> Headers:
    """What lets a page read an answer; nothing for an origin that is not `allowed`, or for none."""
    origin = head.headers.get(b"origin")
    if origin is None:
        return ()
    readable = (b"access-control-expose-headers", READABLE)
    if ANY_ORIGIN in allowed:
        return ((b"access-control-allow-origin", b"*"), readable)
    vary = (b"vary", b"origin")
    if origin.decode("latin-1").lower() not in allowed:
        return (vary,)
    return ((b"access-control-allow-origin", origin), readable, vary)


class ReadableByPages:
    """A client whose answers carry further headers."""

    def __init__(self, client: Client, headers: Headers) -> None:
        """Send `headers` with the head of every answer."""
        self._client = client
        self._headers = headers

    async def start(self, status: int, headers: Headers) -> None:
        """Send the response head."""
        await self._client.start(status, (*headers, *self._headers))

    async def write(self, data: bytes) -> None:
        """Send a piece of the body now."""
        await self._client.write(data)

    def write_now(self, data: bytes) -> Awaitable[None] | None:
        """Send a piece of the body, as far as that takes no waiting."""
        return self._client.write_now(data)

    async def finish(self, data: bytes = b"") -> None:
        """Send the last piece of the body and the end of the message."""
        await self._client.finish(data)

    async def gone(self) -> None:
        """Return once the client has hung up."""
        await self._client.gone()

    def watching(self, hung_up: Callable[[], None]) -> AbstractAsyncContextManager[End]:
        """While this is entered, `hung_up` is called as soon as the client has hung up."""
        return self._client.watching(hung_up)
