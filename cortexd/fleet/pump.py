"""Streams that come a little at a time: one task listens to all of them.

Owns an epoll set of the connections to neurons whose answers are being passed on. Refuses to know
what comes and where it goes: whoever has an answer passed on says what is done with a piece.

Theory of operation. A task that waits for the next event of its own stream costs more than the
event: every time it is entered among those that the kernel watches, is switched to, and is resumed
through a dozen of coroutines. Here the kernel watches a connection for as long as its answer is
passed on, the task of the answer sleeps, and one task for all of them gives each piece to who takes
it, with nothing to wait for in between. An answer's own task is woken when there is something that
it has to wait for, when the answer has ended or failed, and when its neuron was silent for too
long. Every round takes one read from each of so many connections, so a neuron that never stops
holds up nobody. What the kernel cannot watch, TLS, is read by its own task.
"""

from __future__ import annotations

import contextlib
import select
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from cortexd.deadlines import Deadlines
    from cortexd.fleet.answer import Answer

_AT_ONCE_MAX = 16
_ROUND_MAX = 64


class Pump:
    """All answers that are being passed on. `run` it beside them, or each is read by its task."""

    def __init__(self, deadlines: Deadlines) -> None:
        """Nobody is listened to before `run`. `deadlines` are told of every wait."""
        self._deadlines = deadlines
        self._epoll: select.epoll | None = None
        self._rides: dict[int, _Ride] = {}

    async def pass_on(self, answer: Answer, take: Callable[[bytes], bool]) -> bool:
        """Give `take` each piece of a body as it comes, until it returns False.

        Returns False instead when the body has ended. Raises what `Answer.read` raises, and what
        `take` does. Checkpoints when it has to wait and at least every seventeenth time; a cancel
        between two pieces loses nothing.
        """
        for _ in range(_AT_ONCE_MAX):  # a fast stream is all there
            data = answer.read_now()
            if data is None:
                break
            if not data:
                return False
            if not take(data):
                return True
        descriptor, epoll = answer.descriptor, self._epoll
        if descriptor is not None and epoll is not None:
            ride = _Ride(self, answer, take, descriptor)
            epoll.register(descriptor, select.EPOLLIN)
            self._rides[descriptor] = ride
            self.heard(ride)
            await trio.lowlevel.wait_task_rescheduled(ride.abort)
            if ride.fault is not None:
                raise ride.fault
            if ride.has_ended or not ride.wants_more:
                return not ride.has_ended
        while data := await answer.read():
            if not take(data):
                return True
        return False

    def heard(self, ride: _Ride) -> None:
        """For rides only: its neuron has said something, and may be silent again."""
        self._deadlines.start(ride, ride.answer.between_bytes_seconds)

    def let_off(self, ride: _Ride) -> None:
        """For rides only: listen to it no longer."""
        self._deadlines.stop(ride)
        if self._rides.pop(ride.descriptor, None) is not None and self._epoll is not None:
            with contextlib.suppress(OSError):  # closed: the kernel has forgotten it
                self._epoll.unregister(ride.descriptor)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Pass on whatever comes, until cancelled; who rides then goes on by itself."""
        with select.epoll() as self._epoll:
            try:
                task_status.started()
                while True:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                    for descriptor, _ in self._epoll.poll(0, _ROUND_MAX):
                        ride = self._rides.get(descriptor)
                        if ride is not None:
                            ride.come()
            finally:
                for ride in tuple(self._rides.values()):
                    ride.end()
                self._epoll = None


class _Ride:
    """One answer on its way, while its task sleeps."""

    __slots__ = (
        "_pump",
        "_take",
        "_task",
        "answer",
        "descriptor",
        "fault",
        "has_ended",
        "wants_more",
    )

    def __init__(
        self, pump: Pump, answer: Answer, take: Callable[[bytes], bool], descriptor: int
    ) -> None:
        """Of the task that runs now."""
        self._pump = pump
        self._take = take
        self._task = trio.lowlevel.current_task()
        self.answer = answer
        self.descriptor = descriptor
        self.fault: Exception | None = None
        self.has_ended = False
        self.wants_more = True

    def come(self) -> None:
        """Something has come: take one piece. What fails fails in the task that sleeps."""
        try:
            data = self.answer.read_now()
            if data:
                self.wants_more = self._take(data)
            elif data is not None:
                self.has_ended = True
        except Exception as fault:
            self.fault = fault
            self.end()
            return
        # An answer that came to its end may have given its connection back already.
        if self.wants_more and not self.has_ended and self.answer.descriptor is not None:
            self._pump.heard(self)
        else:
            self.end()

    def expired(self) -> None:
        """For the clock: its next read fails."""
        self.end()
        self.answer.expired()

    def end(self) -> None:
        """Wake the task."""
        self._pump.let_off(self)
        trio.lowlevel.reschedule(self._task)

    def abort(self, _: object) -> trio.lowlevel.Abort:
        """For trio: the task is cancelled."""
        self._pump.let_off(self)
        return trio.lowlevel.Abort.SUCCEEDED
