"""Where calls wait for the ledger task, and where it waits for them.

It owns the order of the calls and the one rule of their way: a call is either still its caller's,
who may take it back, or already the ledger's, which answers it. It knows nothing of what they say.

A memory channel of Trio could carry them too; but a call of one that is full waits twice, for the
ledger to take it and then for the answer, and one that is not knows no difference between a caller
who waits and a settlement for which nobody does.
"""

from typing import Any, cast

import trio

from cortexd.ledger.calls import AnyCall, Call, LedgerDown

_CLOSED = "the ledger is closed"


class Inbox:
    """Calls in the order in which they came: the desk's to fill, the ledger task's to empty.

    How many there can be is for those to bound who put them here. `comes_back_soon` is for the
    ledger task to set before it sleeps: it will look in here by itself before long.
    """

    def __init__(self) -> None:
        self._calls: list[Call[Any]] = []
        self._sleeper: trio.lowlevel.Task | None = None
        self.is_closed = False
        self.comes_back_soon = False

    def put(self, call: Call[Any]) -> None:
        """Hand a call over that somebody waits for. Raises `LedgerDown` when nobody takes it."""
        if self.is_closed:
            raise LedgerDown(_CLOSED)
        self._calls.append(call)
        self.wake()

    def leave(self, call: Call[Any]) -> None:
        """Hand a call over that nobody waits for: it is taken with the next, or before long.

        Until then it is in front of everything that is asked later. Raises `LedgerDown`.
        """
        if self.is_closed:
            raise LedgerDown(_CLOSED)
        self._calls.append(call)
        if not self.comes_back_soon:
            self.wake()

    def take_back(self, call: Call[Any]) -> bool:
        """Whether a call was still its caller's; then it never was."""
        try:
            self._calls.remove(call)
        except ValueError:
            return False
        return True

    def close(self) -> None:
        """No more calls; those that are here will be taken."""
        self.is_closed = True
        self.wake()

    # What follows is the ledger task's.

    def take(self, at_most: int) -> list[AnyCall]:
        """The oldest calls, so many of them; from now on they are the ledger's."""
        taken, self._calls = self._calls, []
        if len(taken) > at_most:
            taken, self._calls = taken[:at_most], taken[at_most:]
        return cast("list[AnyCall]", taken)

    @property
    def is_empty(self) -> bool:
        """Whether every call was taken."""
        return not self._calls

    async def sleep(self) -> None:
        """Sleep until somebody wakes us. With a call here there is no reason to."""
        self._sleeper = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._stop_sleeping)

    def wake(self) -> None:
        """End the sleep of the ledger task, if it sleeps."""
        sleeper = self._sleeper
        if sleeper is not None:
            self._sleeper = None
            trio.lowlevel.reschedule(sleeper)

    def refuse(self, reason: str) -> None:
        """Close, and answer every call that is here with `LedgerDown`."""
        self.is_closed = True
        for call in self._calls:
            call.fail(reason)
        self._calls = []

    def _stop_sleeping(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED
