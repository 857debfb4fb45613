"""Many clocks, watched by one task: what a wait costs is an entry in a table.

Owns who waits until when, and the one task that wakes for it. Refuses to know what is waited for:
whoever waits says itself what happens when its time is up.

Theory of operation. Nearly every wait ends long before its time is up, so all that matters is that
beginning and ending one costs next to nothing; a cancel scope of its own, or moving the deadline of
one, costs ten times as much. The task sleeps until the first time that it saw at its last look.
Who came later and is due earlier wakes it, which is rare: waits of one kind are granted the same
time, so the newest is due last. Who has gone meanwhile is simply not there when it looks.
"""

import contextlib
import math
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import trio

LATE_SECONDS_EACH = 1e-5
"""How much later, for each entry, the next look may be: all looks together stay a tenth of a core,
even if a different one of many entries is due at every moment."""


class Timed(Protocol):
    """Who waits."""

    def expired(self) -> None:
        """The time is up. Called once, by the watching task; must not raise."""


class Deadlines:
    """Everybody who waits. `run` it as long as anybody may wait."""

    def __init__(self) -> None:
        """Nobody waits yet, and nobody may before `run`."""
        self._due: dict[Timed, float] = {}
        self._look_at = math.inf
        self._sooner: trio.Event | None = None
        self._now: Callable[[], float] = trio.current_time

    def start(self, timed: Timed, seconds: float) -> None:
        """`timed` waits from now on; in place of the time that it was granted before, if any."""
        assert self._sooner is not None, "nobody watches the clocks"
        at = self._due[timed] = self._now() + seconds
        if at < self._look_at:
            self._sooner.set()

    def stop(self, timed: Timed) -> None:
        """`timed` waits no longer. May be called of somebody who does not."""
        self._due.pop(timed, None)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell everybody whose time is up, until cancelled."""
        self._sooner = trio.Event()
        self._now = trio.lowlevel.current_clock().current_time  # without the way to the clock
        task_status.started()
        while True:
            with trio.move_on_at(self._look_at):
                await self._sooner.wait()
            self._sooner = trio.Event()
            now = trio.current_time()
            for timed in [timed for timed, at in self._due.items() if at <= now]:
                if self._due.pop(timed, None) is not None:  # one's end can be the end of others
                    timed.expired()
            first = min(self._due.values(), default=math.inf)
            self._look_at = max(first, now + len(self._due) * LATE_SECONDS_EACH)


@contextlib.asynccontextmanager
async def watched_deadlines() -> AsyncIterator[Deadlines]:
    """Deadlines that are watched while this is entered, where no daemon does it."""
    deadlines = Deadlines()
    async with trio.open_nursery() as nursery:
        await nursery.start(deadlines.run, name="deadlines")
        yield deadlines
        nursery.cancel_scope.cancel(reason="nobody waits any more")
