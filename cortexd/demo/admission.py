"""Who may generate on a model now, who waits in line, and who is turned away.

One `Admission` per resident model: `max_in_flight` requests generate, `max_queue_depth` more wait
in order of arrival, at most `max_wait_seconds`; one principal has at most `max_per_principal` of
both.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio

from cortexd.demo.errors import NeuronError, inference_error


class AdmissionLimits(msgspec.Struct, frozen=True):
    """A real neuron has 1, 8, 30 s and 2; these are wide: only who asks for a line gets one."""

    max_in_flight: int = 1024
    max_queue_depth: int = 1024
    max_wait_seconds: float = 30.0
    max_per_principal: int | None = None


class Admission:
    """The line in front of one model, and its counters since the model was loaded."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self.limits = limits
        self.in_flight = 0
        self.queue_depth = 0
        self.rejected: Counter[str] = Counter()
        self._free = trio.Semaphore(limits.max_in_flight)
        self._principals: Counter[str] = Counter()

    @asynccontextmanager
    async def admitted(self, principal: str | None) -> AsyncIterator[None]:
        """Holds one place while inside; raises NeuronError (503 or 429) when there is none."""
        self._check_share(principal)
        if principal is not None:
            self._principals[principal] += 1
        try:
            await self._wait_for_place()
            self.in_flight += 1
            try:
                yield
            finally:
                self.in_flight -= 1
                self._free.release()
        finally:
            if principal is not None:
                self._principals[principal] -= 1
                self._principals += Counter()  # forget principals at zero

    def _check_share(self, principal: str | None) -> None:
        share = self.limits.max_per_principal
        if principal is not None and share is not None and self._principals[principal] >= share:
            self.rejected["per_principal"] += 1
            raise NeuronError(inference_error("principal_cap", f"{share} requests at once"))

    async def _wait_for_place(self) -> None:
        try:
            self._free.acquire_nowait()
            return
        except trio.WouldBlock:
            pass
        if self.queue_depth >= self.limits.max_queue_depth:
            self.rejected["queue_full"] += 1
            raise NeuronError(inference_error("queue_full", "the queue is full"))
        self.queue_depth += 1
        try:
            with trio.fail_after(self.limits.max_wait_seconds):
                await self._free.acquire()
        except trio.TooSlowError:
            self.rejected["timeout"] += 1
            raise NeuronError(inference_error("queue_timeout", "waited too long")) from None
        finally:
            self.queue_depth -= 1
