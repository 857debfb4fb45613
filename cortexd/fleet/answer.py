"""A neuron's answer while it comes: its head, then its body piece by piece, under its clocks.

Owns what can go wrong once a request has been sent, and when the connection is done with. Refuses
to know where connections come from and what is in a body.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, Self

import trio

from cortexd.fleet.link import Link, LinkBroken

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from cortexd.fleet.http_answer import AnswerReader

Clock = Literal["first_byte", "between_bytes"]


class NeuronUnreachable(Exception):
    """The whole request cannot have reached the neuron: nothing can have started there."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NeuronBroke(Exception):
    """The neuron closed, or answered in a way that is not HTTP, after it had the request."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NeuronSilent(Exception):
    """The neuron, having the request, sent nothing for as long as the `clock` allows."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(f"silent for too long ({clock})")
        self.clock = clock


class Answer:
    """A neuron's answer whose head has come. Leave it with `aclose`, or better use `async with`.

    Inside `async with` the between-bytes clock is one cancel scope for the whole block. When it
    runs out, `read` raises NeuronSilent as it does outside, and whatever else in the block waits
    after that is cancelled until the block is left.
    """

    def __init__(
        self,
        link: Link,
        reader: AnswerReader,
        keep: Callable[[Link], None],
        between_bytes_seconds: float,
    ) -> None:
        """For the pool only, once the head has come; `keep` takes the connection back."""
        self._link: Link | None = link
        self._reader = reader
        self._keep = keep
        self._between_bytes_seconds = between_bytes_seconds
        self._scope: trio.CancelScope | None = None

    @property
    def status(self) -> int:
        """200 to 599."""
        return self._reader.status

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Names in lower case, in the order they came."""
        return self._reader.headers

    async def read(self) -> bytes:
        """The next bytes of the body, as soon as there are any; b"" after the last.

        Raises NeuronBroke, or NeuronSilent after `between_bytes_seconds`. What came before a
        failure is given first. Checkpoints when it has to wait and at least every seventeenth time;
        a cancel closes the connection.
        """
        reader = self._reader
        while True:
            body = reader.take()
            if body:
                return body
            if reader.complete:
                self.close()
                return b""
            if reader.failure is not None or self._link is None:
                self.close()
                raise NeuronBroke(reader.failure or "the answer was left before its end")
            try:
                await self._receive(self._link)
            except BaseException:
                self.close()
                raise

    async def _receive(self, link: Link) -> None:
        try:
            data = link.receive_now()
            if data is None:
                data = await self._wait(link)
        except LinkBroken as broken:
            raise NeuronBroke(broken.reason) from broken
        _feed(self._reader, data)
        if self._reader.complete:
            self.close()  # early: the next request can have the connection already

    async def _wait(self, link: Link) -> bytes:
        deadline = trio.current_time() + self._between_bytes_seconds
        scope = self._scope
        if scope is None:
            with trio.CancelScope(deadline=deadline) as own:
                data = await link.receive()
            if own.cancelled_caught:
                raise NeuronSilent("between_bytes")
            return data
        # Moving a deadline twice costs half of what a scope of its own would.
        scope.deadline = deadline
        try:
            return await link.receive()
        except trio.Cancelled:
            if scope.cancel_called:
                raise NeuronSilent("between_bytes") from None
            raise
        finally:
            scope.deadline = math.inf

    def close(self) -> None:
        """Done with it: keep the connection if the answer ended as it should, else close it now."""
        link, self._link = self._link, None
        if link is None:
            return
        reader = self._reader
        if not reader.complete and reader.failure is None:
            _read_the_rest(link, reader)
        if reader.reusable:
            self._keep(link)
        else:
            link.close()

    async def aclose(self) -> None:
        """The same as `close`. Does not checkpoint."""
        self.close()

    async def __aenter__(self) -> Self:
        if not self._reader.complete:
            self._scope = trio.CancelScope()
            self._scope.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        scope, self._scope = self._scope, None
        if scope is None:
            return
        scope.__exit__(kind, error, traceback)
        if scope.cancelled_caught:
            raise NeuronSilent("between_bytes")


async def receive_head(link: Link, reader: AnswerReader, seconds: float) -> None:
    """Read until the head of the answer is complete.

    Raises NeuronBroke, or NeuronSilent after `seconds`; the connection is then closed, as it is
    when cancelled. Checkpoints unless the head has come already.
    """
    try:
        with trio.CancelScope(deadline=trio.current_time() + seconds):
            while not reader.head_complete:
                data = link.receive_now()
                if data is None:
                    data = await link.receive()
                _feed(reader, data)
                if reader.failure is not None and not reader.head_complete:
                    raise NeuronBroke(reader.failure)
        if not reader.head_complete:
            raise NeuronSilent("first_byte")
    except LinkBroken as broken:
        raise NeuronBroke(broken.reason) from broken
    finally:
        if not reader.head_complete:
            link.close()


def _feed(reader: AnswerReader, data: bytes) -> None:
    if data:
        reader.feed(data)
    else:
        reader.feed_eof()


def _read_the_rest(link: Link, reader: AnswerReader) -> None:
    """Give an answer that is being left the one chance to end with what has come already.

    Whoever reads a stream of events leaves at the last event, often just before the empty chunk
    that ends the message; without this look every stream would cost a connection.
    """
    try:
        data = link.receive_now()
    except LinkBroken:
        return
    if data:
        reader.feed(data)
