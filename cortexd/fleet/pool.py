"""Kept-alive HTTP/1.1 connections to neurons, one request at a time on each.

Owns connections, their idle life and how a request is handed over. Refuses to know what is asked
and answered, and which neuron should be. A request that may have reached a neuron is never sent a
second time: idle connections are given up before a neuron would close them, and looked at before
they are used.

Every way out other than the end of the answer closes the connection at once, without waiting:
error, clock, cancellation, or leaving an answer half read. So a neuron hears of it immediately.
"""

from __future__ import annotations

import math
import ssl
from functools import partial
from typing import TYPE_CHECKING

import httpx
import trio

from cortexd.fleet.addresses import Address, address_of
from cortexd.fleet.answer import Answer, NeuronBroke, NeuronSilent, NeuronUnreachable
from cortexd.fleet.link import Link, LinkBroken, connect
from cortexd.fleet.outgoing import CONNECTION_HEADERS, Outgoing, head_bytes, header_lines
from cortexd.fleet.pump import Pump

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cortexd.deadlines import Deadlines

__all__ = [
    "Answer",
    "NeuronBroke",
    "NeuronSilent",
    "NeuronUnreachable",
    "Outgoing",
    "Pool",
    "PoolTransport",
]

IDLE_LINKS_MAX = 256
"""Idle connections kept per origin. With more requests at once than that, some connect anew."""

_AT_ONCE_BYTES_MAX = 8192  # an idle connection takes that, and a head, without a wait
_JOINED_BYTES_MAX = 65_536  # up to here one copy is cheaper than a second write
_SHUTDOWN_REASON = "the pool is closed"


class Pool:
    """Connections to all neurons. Needs no task of its own besides that of its `deadlines`.

    `pump`: passes answers on that come a little at a time; to be run beside it.
    """

    def __init__(
        self,
        deadlines: Deadlines,
        connect_seconds: float,
        idle_seconds: float = 4.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`connect_seconds` covers names, connecting and TLS. `ssl_context`: default, the system's.

        `idle_seconds` has to be below the keep-alive time of every neuron (5 s is the usual least).
        """
        self._deadlines = deadlines
        self.pump = Pump(deadlines)
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._ssl_context = ssl_context
        self._idle: dict[str, list[tuple[float, Link]]] = {}
        self._swept_at = -math.inf
        self._closed = False

    @property
    def idle_links(self) -> int:
        """Connections open and unused at the moment."""
        return sum(len(links) for links in self._idle.values())

    async def send(
        self,
        outgoing: Outgoing,
        *,
        first_byte_seconds: float,
        between_bytes_seconds: float,
        before_first_byte: Callable[[], None] = lambda: None,
        left_unread: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Send a request and wait for the head of its answer.

        `first_byte_seconds` runs once for handing the request over and again for the head;
        `between_bytes_seconds` is for the reads of the answer. Raises NeuronUnreachable when the
        neuron cannot have the whole request, NeuronBroke or NeuronSilent when it may have;
        ValueError for an `outgoing` that must not be sent. Checkpoints; a cancel closes the
        connection at once. `before_first_byte` is called when there is a connection, and the neuron
        is about to hear of the request; `left_unread` when a cancel or a clock ends the wait for
        the answer although bytes of it have come.
        """
        try:
            address = address_of(outgoing.base_url)
        except ValueError as error:
            raise NeuronUnreachable(f"its address is {error}") from error
        head = head_bytes(outgoing, address)
        now = trio.current_time()
        if now - self._swept_at >= self._idle_seconds:
            self._sweep(now)
        size, link = len(outgoing.body), None
        pieces = (head, outgoing.body) if size > _JOINED_BYTES_MAX else (head + outgoing.body,)
        if size <= _AT_ONCE_BYTES_MAX:
            link = self._at_once(address.origin, pieces[0], before_first_byte, now)
        if link is None:
            link = await self._hand_over(address, pieces, first_byte_seconds, before_first_byte)
        answer = Answer(
            link,
            partial(self._put_back, address.origin),
            self._deadlines,
            between_bytes_seconds,
            left_unread=left_unread,
            head_only=outgoing.method == "HEAD",
        )
        await answer.receive_head(first_byte_seconds)
        return answer

    def _at_once(
        self, origin: str, request: bytes, before_first_byte: Callable[[], None], now: float
    ) -> Link | None:
        """Send a small request on the connection used last, where that needs no waiting.

        None: it has to be handed over in the usual way; no neuron can have begun with it, and
        `before_first_byte` is called again.
        """
        links = self._idle.get(origin)
        if not links:
            return None
        since, link = links[-1]
        if now - since > self._idle_seconds or not link.is_quiet_now():
            return None
        before_first_byte()
        links.pop()
        try:
            if link.send_now(request) is None:
                return link
        except LinkBroken:
            self._close_all(self._idle.pop(origin, []))  # see `_hand_over`
        link.close()
        return None

    async def _hand_over(
        self,
        address: Address,
        pieces: tuple[bytes, ...],
        seconds: float,
        before_first_byte: Callable[[], None],
    ) -> Link:
        """Send on an idle connection, or on a new one if there is none or it is dead after all."""
        link = await self._take_idle(address.origin)
        if link is not None:
            before_first_byte()
            try:
                await _transmit(link, pieces, seconds)
            except LinkBroken:
                # Part of the request is still here, so the neuron cannot have begun with it. Its
                # other idle connections are no better: it has gone away and maybe come back.
                self._close_all(self._idle.pop(address.origin, []))
            else:
                return link
        link = await self._connect(address)
        before_first_byte()
        try:
            await _transmit(link, pieces, seconds)
        except LinkBroken as broken:
            raise NeuronUnreachable(f"it did not take the request: {broken.reason}") from broken
        return link

    async def _connect(self, address: Address) -> Link:
        if self._closed:
            raise NeuronUnreachable(_SHUTDOWN_REASON)
        if address.secure and self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
        try:
            with trio.fail_after(self._connect_seconds):
                return await connect(address, self._ssl_context)
        except trio.TooSlowError:
            seconds = self._connect_seconds
            raise NeuronUnreachable(f"no connection within {seconds:g} s") from None
        except LinkBroken as broken:
            raise NeuronUnreachable(broken.reason) from broken

    async def _take_idle(self, origin: str) -> Link | None:
        """The connection used last, if it is young and quiet; those that are not are closed."""
        now = trio.current_time()
        while links := self._idle.get(origin):  # looked up anew: a look at TLS lets others in
            since, link = links.pop()
            if now - since <= self._idle_seconds:
                quiet = link.is_quiet_now()
                if quiet is None:
                    try:
                        quiet = await link.is_quiet()
                    except BaseException:
                        link.close()
                        raise
                if quiet:
                    return link
            link.close()
        return None

    def _put_back(self, origin: str, link: Link) -> None:
        links = self._idle.setdefault(origin, [])
        if self._closed or len(links) >= IDLE_LINKS_MAX:
            link.close()
        else:
            links.append((trio.current_time(), link))

    def _sweep(self, now: float) -> None:
        """Close what has been idle for too long; to be done once per idle time."""
        self._swept_at = now
        for origin, links in tuple(self._idle.items()):
            old = [each for each in links if now - each[0] > self._idle_seconds]
            self._close_all(old)
            del links[: len(old)]  # the oldest are in front
            if not links:
                del self._idle[origin]

    @staticmethod
    def _close_all(links: list[tuple[float, Link]]) -> None:
        for _, link in links:
            link.close()

    async def aclose(self) -> None:
        """Close idle connections; those in use are closed when their answer is left.

        Further requests raise NeuronUnreachable. Does not checkpoint.
        """
        self._closed = True
        for links in self._idle.values():
            self._close_all(links)
        self._idle.clear()


async def _transmit(link: Link, pieces: tuple[bytes, ...], seconds: float) -> None:
    """Send all pieces; any failure closes the connection.

    Raises LinkBroken, or NeuronUnreachable when a piece is not taken within `seconds`.
    """
    try:
        for piece in pieces:
            rest = link.send_now(piece)
            if rest is None:
                continue
            with trio.move_on_after(seconds) as scope:
                await link.send(rest)
            if scope.cancelled_caught:
                raise NeuronUnreachable(f"it did not take the request within {seconds:g} s")
    except BaseException:
        link.close()
        raise


class PoolTransport(httpx.AsyncBaseTransport):
    """The pool under an httpx client, for control calls. The pool stays its owner's to close.

    Of httpx's four timeouts "read" counts, for the head and between bytes; connecting is bounded by
    the pool. Failures are httpx's: ConnectError, ReadTimeout, RemoteProtocolError.
    """

    def __init__(self, pool: Pool, *, reply_bytes_max: float = math.inf) -> None:
        """Use `pool`, which others may be using too. A body above the limit breaks the reply."""
        self._pool = pool
        self._reply_bytes_max = reply_bytes_max

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx. The body is read whole before it is sent."""
        body = await request.aread()
        timeouts = request.extensions.get("timeout", {})
        silence = timeouts.get("read")
        seconds = math.inf if silence is None else silence
        url = request.url
        outgoing = Outgoing(
            f"{url.scheme}://{url.netloc.decode('ascii')}",
            request.method,
            url.raw_path.decode("ascii"),
            header_lines(
                each for each in request.headers.raw if each[0].lower() not in CONNECTION_HEADERS
            ),
            body,
        )
        try:
            answer = await self._pool.send(
                outgoing, first_byte_seconds=seconds, between_bytes_seconds=seconds
            )
        except (NeuronUnreachable, NeuronBroke, NeuronSilent) as error:
            raise _as_httpx(error) from error
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_HttpxBody(answer, self._reply_bytes_max)
        )


class _HttpxBody(httpx.AsyncByteStream):
    """The body of an answer as httpx wants it."""

    def __init__(self, answer: Answer, bytes_max: float) -> None:
        self._answer = answer
        self._bytes_max = bytes_max
        self._bytes_left = bytes_max

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await self._answer.read()
        except (NeuronBroke, NeuronSilent) as error:
            raise _as_httpx(error) from error
        if not data:
            raise StopAsyncIteration
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise httpx.RemoteProtocolError(f"it answered with more than {self._bytes_max} bytes")
        return data

    async def aclose(self) -> None:
        self._answer.close()


def _as_httpx(error: NeuronUnreachable | NeuronBroke | NeuronSilent) -> httpx.TransportError:
    if isinstance(error, NeuronUnreachable):
        return httpx.ConnectError(error.reason)
    if isinstance(error, NeuronSilent):
        return httpx.ReadTimeout(str(error))
    return httpx.RemoteProtocolError(error.reason)
