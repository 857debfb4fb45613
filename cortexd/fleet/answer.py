"""A neuron's answer while it comes: its head, then its body piece by piece, under its clocks.

Owns what can go wrong once a request has been sent, and when the connection is done with. Refuses
to know where connections come from and what is in a body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from cortexd.fleet.http_answer import AnswerReader
from cortexd.fleet.link import Link, LinkBroken

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from cortexd.deadlines import Deadlines

_IN_A_ROW_MAX = 16

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
    """A neuron's answer, first its head. Leave it with `aclose`, or better use `async with`."""

    __slots__ = (
        "_deadlines",
        "_in_a_row",
        "_is_silent",
        "_keep",
        "_left_unread",
        "_link",
        "_reader",
        "between_bytes_seconds",
    )

    def __init__(
        self,
        link: Link,
        keep: Callable[[Link], None],
        deadlines: Deadlines,
        between_bytes_seconds: float,
        *,
        left_unread: Callable[[], None],
        head_only: bool,
    ) -> None:
        """For the pool only, which reads the head; `keep` takes the connection back. `left_unread`:
        see `Pool.send`.
        """
        self._link: Link | None = link
        self._reader = AnswerReader(head_only=head_only)
        self._keep = keep
        self._left_unread = left_unread
        self._deadlines = deadlines
        self._is_silent = False
        self._in_a_row = 0
        self.between_bytes_seconds = between_bytes_seconds

    @property
    def status(self) -> int:
        """200 to 599."""
        return self._reader.status

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Names in lower case, in the order they came."""
        return self._reader.headers

    @property
    def descriptor(self) -> int | None:
        """Where the kernel can tell of bytes by itself; None once there is nothing to wait for, and
        where one has to read to know.
        """
        link = self._link
        return None if link is None or self._reader.failure is not None else link.descriptor

    async def receive_head(self, seconds: float) -> None:
        """Read until the head is complete.

        Raises NeuronBroke, or NeuronSilent after `seconds`; the connection is then closed, as it is
        when cancelled. Checkpoints.
        """
        reader, link = self._reader, self._link
        assert link is not None, "the head comes first"
        self._deadlines.start(self, seconds)
        try:
            while not reader.head_complete:
                _feed(reader, await link.receive())
                if reader.failure is not None and not reader.head_complete:
                    raise NeuronBroke(reader.failure)
        except BaseException as error:
            self._deadlines.stop(self)
            self._look_back(error)
            self._break_off()
            if isinstance(error, LinkBroken):
                raise self._why(error, "first_byte") from error
            raise
        self._deadlines.stop(self)
        if reader.complete:
            self.close()

    def whole(self) -> bytes | None:
        """All of the body where it has come with its head, as nearly every plain one does; None: it
        has to be read.
        """
        return self._reader.take() if self._reader.complete else None

    async def read(self) -> bytes:
        """The next bytes of the body, as soon as there are any; b"" after the last.

        Raises NeuronBroke, or NeuronSilent after `between_bytes_seconds`. What came before a
        failure is given first. Checkpoints when it has to wait and at least every seventeenth time;
        a cancel closes the connection.
        """
        others_wait = self._in_a_row >= _IN_A_ROW_MAX and self.descriptor is not None
        body = None if others_wait else self.read_now()
        self._in_a_row += 1
        while body is None:
            self._in_a_row = 0
            await self._wait()
            body = self.read_now()
        return body

    def read_now(self) -> bytes | None:
        """The same where it has come already; None when one has to wait. Does not checkpoint."""
        reader = self._reader
        while not (body := reader.take()):
            if reader.complete:
                self.close()
                return b""
            link = self._link
            if reader.failure is not None or link is None:
                self.close()
                raise NeuronBroke(reader.failure or "the answer was left before its end")
            try:
                data = link.receive_now()
            except LinkBroken as broken:
                self.close()
                raise self._why(broken, "between_bytes") from broken
            if data is None:
                return None
            self._take(data)
        return body

    def _take(self, data: bytes) -> None:
        _feed(self._reader, data)
        if self._reader.complete:
            self.close()  # early: the next request can have the connection already

    async def _wait(self) -> None:
        """Wait for bytes, and take them in."""
        assert self._link is not None, "there is nothing to wait for"
        self._deadlines.start(self, self.between_bytes_seconds)
        try:
            data = await self._link.receive()
        except BaseException as error:
            self._look_back(error)
            self.close()
            if isinstance(error, LinkBroken):
                raise self._why(error, "between_bytes") from error
            raise
        finally:
            self._deadlines.stop(self)
        self._take(data)

    def expired(self) -> None:
        """For the clock: to close the connection wakes who waits for it."""
        self._is_silent = True
        self._look_back()
        if self._link is not None:
            self._link.close()

    def _look_back(self, error: BaseException | None = None) -> None:
        """Tell of bytes that are left behind. Those of a connection that failed are not there."""
        if isinstance(error, Exception) or self._link is None:
            return
        if self._link.has_unread():
            self._left_unread()

    def _why(self, broken: LinkBroken, clock: Clock) -> NeuronBroke | NeuronSilent:
        return NeuronSilent(clock) if self._is_silent else NeuronBroke(broken.reason)

    def forget_headers(self) -> None:
        """They have been read, and its body may take long."""
        self._reader.headers = ()

    def close(self) -> None:
        """Done with it: keep the connection if the answer ended as it should, else close it now."""
        link, self._link = self._link, None
        if link is None:
            return
        reader = self._reader
        if not reader.complete and reader.failure is None:
            _read_the_rest(link, reader)
        if reader.reusable and not self._is_silent:
            self._keep(link)
        else:
            link.close()

    def _break_off(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    async def aclose(self) -> None:
        """The same as `close`. Does not checkpoint."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


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
