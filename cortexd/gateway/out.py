"""The client of one relay, while its answer is a stream: the head once, pieces, and heartbeats.

Owns what is sent when: a heartbeat goes out only between two pieces, each of which is made of whole
events. Refuses to know what the pieces say.
"""

import trio

from cortexd.dialects.surface import Watcher
from cortexd.gateway.exchange import Client, Headers
from cortexd.gateway.progress import Progress


class Out:
    """Where the pieces of a stream go."""

    def __init__(
        self, client: Client, headers: Headers, progress: Progress, watcher: Watcher | None
    ) -> None:
        """Nothing is sent yet; `headers` go out with the head. `watcher` None: no stream is asked
        for.
        """
        self._watcher = watcher
        self._client = client
        self._headers = headers
        self._progress = progress
        self._written_at = 0.0
        self._beat: trio.Event | None = None

    async def start(self) -> None:
        """Send the head, once."""
        await self.quiet()
        await self._start()

    async def quiet(self) -> None:
        """Wait until no heartbeat is half sent."""
        if self._beat is not None:
            await self._beat.wait()

    async def write(self, data: bytes) -> None:
        """Send a piece, with the head before the first one."""
        if self._beat is not None or not self._progress.started:
            await self.start()
        if not data:
            return
        self._progress.first_byte()
        # A client that takes nothing leaves the neuron's further tokens unread, and unseen.
        self._progress.is_writing = True
        await self._client.write(data)
        self._progress.is_writing = False
        self._written_at = trio.current_time()

    async def heartbeat(self) -> None:
        """Send a sign of life, unless something is being sent anyway."""
        if self._watcher is None or self._beat is not None or self._progress.is_writing:
            return
        self._beat = trio.Event()
        try:
            await self._start()
            await self._client.write(self._watcher.heartbeat())
        finally:
            self._written_at = trio.current_time()
            self._beat.set()
            self._beat = None

    async def keep_alive(self, every_seconds: float) -> None:
        """Send a heartbeat whenever nothing else was sent for so long, until cancelled."""
        self._written_at = trio.current_time()
        while True:
            await trio.sleep_until(self._written_at + every_seconds)
            if trio.current_time() < self._written_at + every_seconds:
                continue
            if self._progress.is_writing:
                self._written_at = trio.current_time()
            else:
                await self.heartbeat()

    async def _start(self) -> None:
        if not self._progress.started:
            self._progress.started = True
            await self._client.start(200, self._headers)
            head = b"" if self._watcher is None else self._watcher.head()
            if head:
                await self._client.write(head)
