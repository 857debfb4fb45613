"""Where calls wait for the ledger task, and where it waits for them.

It owns the order of the calls and the one rule of their way: a call is either still its caller's,
who may take it back, or already the ledger's, which answers it. It knows nothing of what they say.

Calls travel through a memory channel, a letter at a time: whoever waits for an answer sends one,
and in front of its call lie the settlements that were left here since the last letter. So what is
asked after a settlement is decided after it, and a settlement, for which nobody waits, is no letter
of its own.
"""

import math
from typing import Any, cast

import trio

from cortexd.ledger.calls import AnyCall, Call, LedgerBusy, LedgerDown

_CLOSED = "the ledger is closed"


LETTERS_MAX = 20_000
"""Most letters that lie here; the desk lets fewer callers wait at a time."""


class Inbox:
    """Calls in the order in which they came: the desk's to fill, the ledger task's to empty.

    `comes_back_soon` is for the ledger task to set before it sleeps: it will look in here by itself
    before long.
    """

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[list[Call[Any]]](LETTERS_MAX)
        self._letters = 0
        self._left: list[Call[Any]] = []
        self._sleeper: trio.lowlevel.Task | None = None
        self.is_closed = False
        self.comes_back_soon = False

    def put(self, call: Call[Any]) -> None:
        """Hand a call over that somebody waits for. Raises `LedgerDown` when nobody takes it."""
        if self.is_closed:
            raise LedgerDown(_CLOSED)
        try:
            self._send.send_nowait([*self._left, call])
        except trio.WouldBlock:
            raise LedgerBusy("the ledger is busy: too many calls are waiting for it") from None
        self._letters += 1
        self._left.clear()
        self.wake()

    def leave(self, call: Call[Any]) -> None:
        """Hand a call over that nobody waits for: it is taken with the next, or before long.

        Until then it is in front of everything that is asked later. Raises `LedgerDown`.
        """
        if self.is_closed:
            raise LedgerDown(_CLOSED)
        self._left.append(call)
        if not self.comes_back_soon:
            self.wake()

    def take_back(self, call: Call[Any]) -> bool:
        """Whether a call was still its caller's; then it never was."""
        if call.is_taken:
            return False
        call.was_taken_back = True
        return True

    def close(self) -> None:
        """No more calls; those that are here will be taken."""
        self.is_closed = True
        self._send.close()
        self.wake()

    # What follows is the ledger task's.

    def take(self, at_most: float) -> list[AnyCall]:
        """The oldest calls, about so many of them; from now on they are the ledger's."""
        taken: list[Call[Any]] = []
        while self._letters and len(taken) < at_most:
            self._letters -= 1
            taken += self._receive.receive_nowait()
        if not self._letters:
            taken += self._left
            self._left.clear()
        for call in taken:
            call.is_taken = True
        return cast("list[AnyCall]", [call for call in taken if not call.was_taken_back])

    @property
    def is_empty(self) -> bool:
        """Whether every call was taken."""
        return not (self._letters or self._left)

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
        self._send.close()
        for call in self.take(math.inf):
            call.fail(reason)

    def _stop_sleeping(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED
