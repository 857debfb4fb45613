"""One exchange with a client, as the core sees it: what came in, and where the answer goes.

The core knows no server. A face (`asgi.py`, `http1.py`) turns its server's ways into these three
shapes: `Head` before the body is read, `Incoming` after it, and a `Client` to answer to.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

import msgspec

from cortexd.dialects.refusals import Refusal

Headers = tuple[tuple[bytes, bytes], ...]
End = Callable[[str], None]
"""Ends what is being done for a client; the argument says why."""

AdmittedT = TypeVar("AdmittedT")


class Head(msgspec.Struct, frozen=True):
    """A request before its body: enough to know the endpoint and who asks.

    `path` is percent-decoded, without the query. Header names are lower case; of a repeated header
    the last one counts, which is safe because only our own reading of it is ever acted upon.
    """

    method: str
    path: str
    headers: dict[bytes, bytes]
    request_id: str


class Incoming(msgspec.Struct):
    """A whole request: its head and its body, fully read and within the size limit.

    Whoever has understood the body takes it away, for it can be large.
    """

    head: Head
    body: bytes


class Client(Protocol):
    """The one who asked. Writing to a client that has gone does nothing; `gone` tells of it."""

    async def start(self, status: int, headers: Headers) -> None:
        """Send the response head."""

    async def write(self, data: bytes) -> None:
        """Send a piece of the body now."""

    def write_now(self, data: bytes) -> Awaitable[None] | None:
        """The same without waiting; returns what is left to be awaited, None when nothing is."""

    async def finish(self, data: bytes = b"") -> None:
        """Send the last piece of the body and the end of the message."""

    async def gone(self) -> None:
        """Return once the client has hung up; never otherwise."""

    def watching(self, hung_up: Callable[[], None]) -> AbstractAsyncContextManager[End]:
        """While this is entered: as soon as the client has hung up, `hung_up` is called, and what
        is being done is cancelled, maybe far beyond this block; so it is when what this gives is
        called.
        """


class Core(Protocol[AdmittedT]):
    """What a face needs of a core: judge a head, then answer the whole request."""

    def admit(self, head: Head) -> AdmittedT | Refusal:
        """Judge by the head alone."""

    async def refuse(self, refusal: Refusal, head: Head, client: Client) -> None:
        """Answer a request that is refused before its body was kept."""

    async def serve(self, admitted: AdmittedT, incoming: Incoming, client: Client) -> None:
        """Answer a whole request."""


def header_map(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Header pairs as a mapping with lower-case names; the last of a repeated name wins."""
    return {name.lower(): value for name, value in pairs}
