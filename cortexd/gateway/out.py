"""The client of one relay, while its answer is a stream: the head once, pieces, and heartbeats.

Owns what is sent when: a heartbeat goes out only between two pieces, each of which is made of whole
events, and none after the end. Refuses to know what the pieces say, and when one is due
(heartbeats.py).
"""

import contextlib
from collections.abc import Awaitable

import trio

from cortexd.dialects.surface import Watcher
from cortexd.fleet.pool import Answer, NeuronBroke, NeuronSilent
from cortexd.fleet.pump import Pump
from cortexd.gateway.exchange import Client, Headers
from cortexd.gateway.progress import Progress

LAST_LOOK_BYTES_MAX = 32_768
"""What is looked through when a stream is cut off. Behind more, a full buffer may hide the rest."""


class _Beat:
    """A heartbeat that is being sent."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.over = trio.Event()


class Out:
    """Where the pieces of a stream go."""

    __slots__ = (
        "_beat",
        "_client",
        "_has_ended",
        "_headers",
        "_held",
        "_is_sending",
        "_progress",
        "_rest",
        "watcher",
        "written_at",
    )

    def __init__(
        self, client: Client, headers: Headers, progress: Progress, watcher: Watcher | None
    ) -> None:
        """Nothing is sent yet; `headers` go out with the head. `watcher` None: no stream is asked
        for.
        """
        self.watcher = watcher
        self._client = client
        self._headers = headers
        self._progress = progress
        self._is_sending = False  # stays so when a piece was cut off: nothing may follow it
        self._has_ended = False
        self._beat: _Beat | None = None
        self._held: bytes | None = None  # a piece that waits for the head, or for a heartbeat
        self._rest: Awaitable[None] | None = None  # of a piece that the client does not take yet
        self.written_at = 0.0

    async def go_on(self, watcher: Watcher) -> None:
        """Have another watcher write the stream from now on; what the client was told stays told.

        Only before the first piece.
        """
        await self._quiet()
        self.watcher = watcher
        if self._progress.started:
            watcher.head()  # the client has had one

    async def start(self) -> None:
        """Send the head, once."""
        await self._quiet()
        self._is_sending = True
        await self._start()
        self._is_sending = False

    def pass_on(self, data: bytes) -> bool:
        """Send what the client gets of a neuron's bytes, if nobody has to wait for that.

        False: it has to be flushed, or nothing more is wanted. Deliberately plain: every event of
        every stream comes this way.
        """
        watcher = self.watcher
        assert watcher is not None, "a client that reads no stream"
        piece = watcher.feed(data)
        if piece and not self.write_now(piece):
            return False
        return not (watcher.done or watcher.cut or watcher.failure)

    async def write(self, data: bytes) -> None:
        """Send a piece, with the head before the first one."""
        if not self.write_now(data):
            await self.flush()

    def write_now(self, data: bytes) -> bool:
        """Send a piece, if nobody has to wait for that; else `flush` it before anything else.

        Until then the neuron's further tokens are unread, and unseen.
        """
        progress = self._progress
        if self._beat is not None or not progress.started:
            self._held, progress.has_unseen = data, True
            return False
        if progress.first_byte_at is None and data:
            progress.first_byte()
        self._rest = self._client.write_now(data)
        if self._rest is not None:
            self._is_sending = progress.has_unseen = True
            return False
        self.written_at = trio.current_time()
        return True

    async def flush(self) -> None:
        """Send what `write_now` had to leave."""
        held, self._held = self._held, None
        if held is not None:
            await self.start()
            self.write_now(held)
        rest, self._rest = self._rest, None
        if rest is not None:
            await rest
            self._is_sending = False
            self.written_at = trio.current_time()
        self._progress.has_unseen = False

    async def pass_all_on(self, answer: Answer, pump: Pump) -> None:
        """Send what the client gets of an answer, until the end, a failure, or the reserved output
        is used up. Raises what `Answer.read` raises.
        """
        watcher = self.watcher
        assert watcher is not None, "a client that reads no stream"
        try:
            while await pump.pass_on(answer, self.pass_on):
                await self.flush()
                if watcher.done or watcher.cut or watcher.failure:
                    break
        except trio.Cancelled:
            self._look_once_more(answer, watcher)
            raise

    def _look_once_more(self, answer: Answer, watcher: Watcher) -> None:
        """Have counted what came while nobody looked: who stands still is late to hear of a client
        that hung up, and the neuron went on meanwhile.
        """
        with contextlib.suppress(NeuronBroke, NeuronSilent):
            looked_at = 0
            while looked_at < LAST_LOOK_BYTES_MAX:
                data = answer.read_now()
                if not data or watcher.done or watcher.cut or watcher.failure:
                    return
                watcher.feed(data)
                looked_at += len(data)
            self._progress.has_unseen = True

    async def heartbeat(self) -> None:
        """Send a sign of life, unless something is being sent anyway or the stream has ended."""
        if self.watcher is None or self._beat or self._is_sending or self._has_ended:
            return
        beat = self._beat = _Beat()
        try:
            with beat.scope:
                await self._start()
                await self._client.write(self.watcher.heartbeat())
        finally:
            self.written_at = trio.current_time()
            self._beat = None
            beat.over.set()

    async def end(self) -> None:
        """Let no heartbeat begin from now on. Waits for one that is half sent; a cancel cuts it
        off.
        """
        self._has_ended = True
        try:
            await self._quiet()
        finally:
            if self._beat is not None:
                self._beat.scope.cancel(reason="the stream ended")
                with trio.CancelScope(shield=True):
                    await self._beat.over.wait()

    async def _quiet(self) -> None:
        """Wait until no heartbeat is half sent."""
        while self._beat is not None:
            await self._beat.over.wait()

    async def _start(self) -> None:
        if not self._progress.started:
            self._progress.started = True
            headers, self._headers = self._headers, ()
            await self._client.start(200, headers)
            head = b"" if self.watcher is None else self.watcher.head()
            if head:
                await self._client.write(head)
