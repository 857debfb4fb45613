"""Streams that are kept alive: one task looks at whichever has been silent for longest.

Owns the line of streams that run, and the one task that wakes for them; a stream that is never
silent for long costs an entry in that line. Refuses to know what a heartbeat says, and when one may
be sent (out.py).

Theory of operation. Nothing ever comes into the line with a due time before one that is in it
already, as all streams are granted the same silence; so the task sleeps until the first due time,
and is woken only when the line was empty. What is written to a stream does not touch the line: its
entry falls due, and is put off by what was written since. A stream whose heartbeat is being written
is not in the line, so there are never two for one stream, and a client that does not read holds up
nobody else.
"""

import heapq
import itertools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

_DEAD_MAX = 64


class Stream(Protocol):
    """What is kept alive."""

    @property
    def written_at(self) -> float:
        """When something was last sent."""

    async def heartbeat(self) -> None:
        """Send a sign of life, if this is a moment for one."""

    async def end(self) -> None:
        """Let no heartbeat begin from now on, and return once none is half sent."""


class Heartbeats:
    """All streams of a gateway. `run` it as long as any of them may run."""

    def __init__(self, every_seconds: float) -> None:
        """No stream is silent for longer than `every_seconds`, if its client reads."""
        self._every_seconds = every_seconds
        self._line: list[tuple[float, int, _Kept]] = []
        self._numbers = itertools.count()
        self._filled = trio.Event()
        self.running = 0

    @property
    def waiting(self) -> int:
        """How many entries are in the line; some may be of streams that have ended."""
        return len(self._line)

    def beside(
        self, stream: Stream, end: Callable[[str], None]
    ) -> AbstractAsyncContextManager[None, None]:
        """Keep `stream` alive while this is entered; it has ended when this is left.

        Leaving waits for a heartbeat that is half sent, a cancel cuts it off. What a heartbeat
        raises has `end` called, and is raised when this is left.
        """
        return _Kept(self, stream, end)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send heartbeats until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                while not self._line:
                    self._filled = trio.Event()
                    await self._filled.wait()
                await trio.sleep_until(self._line[0][0])
                for kept in self._due(trio.current_time()):
                    nursery.start_soon(self._beat, kept, name="heartbeat")

    def _due(self, now: float) -> list["_Kept"]:
        """Take out of the line who has been silent for too long, and put off who has not."""
        due: list[_Kept] = []
        while self._line and self._line[0][0] <= now:
            kept = heapq.heappop(self._line)[2]
            if kept.stream is None:
                continue
            due_at = kept.stream.written_at + self._every_seconds
            if due_at > now:
                self._put(kept, due_at)
            else:
                due.append(kept)
        return due

    async def _beat(self, kept: "_Kept") -> None:
        if kept.stream is None:
            return
        try:
            await kept.stream.heartbeat()
        except Exception as bug:
            kept.fail(bug)
        else:
            self._put(kept, trio.current_time() + self._every_seconds)

    def add(self, kept: "_Kept") -> None:
        """For `_Kept` only."""
        self.running += 1
        self._put(kept, trio.current_time() + self._every_seconds)

    def forget(self) -> None:
        """For `_Kept` only. The entry stays until it is due, or there are too many like it."""
        self.running -= 1
        if len(self._line) > 2 * self.running + _DEAD_MAX:
            self._line = [entry for entry in self._line if entry[2].stream is not None]
            heapq.heapify(self._line)

    def _put(self, kept: "_Kept", due_at: float) -> None:
        heapq.heappush(self._line, (due_at, next(self._numbers), kept))
        if len(self._line) == 1:
            self._filled.set()


class _Kept:
    """One stream. `stream` is None once it has ended."""

    __slots__ = ("_bug", "_end", "_heartbeats", "stream")

    def __init__(self, heartbeats: Heartbeats, stream: Stream, end: Callable[[str], None]) -> None:
        self._heartbeats = heartbeats
        self._end = end
        self._bug: Exception | None = None
        self.stream: Stream | None = stream

    def fail(self, bug: Exception) -> None:
        """A heartbeat has raised: it is this stream's end, and no other's."""
        self._bug = bug
        self._end("a heartbeat failed")

    async def __aenter__(self) -> None:
        self._heartbeats.add(self)

    async def __aexit__(self, *_: object) -> None:
        stream, self.stream = self.stream, None
        assert stream is not None, "left twice"
        self._heartbeats.forget()
        try:
            await stream.end()
        finally:
            if self._bug is not None:
                raise self._bug
