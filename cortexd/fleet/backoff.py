"""When a load that failed may be tried again.

Owns the growing pause of every model on every neuron. Refuses to know what failed, and who waits.

The pause is not random. Chance is there to keep many clients from coming back at the same instant;
here one daemon does all the loads, one at a time per model, and only when somebody asks for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.view import NeuronName

FIRST_MS = 5_000
"""The pause after a first failure; it doubles with each further one."""

LONGEST_MS = 300_000
"""No pause is longer."""

FORGOTTEN_AFTER_MS = 3_600_000
"""Failures count no more when nothing failed for so long after a pause."""


class Backoff(msgspec.Struct, frozen=True):
    """How often in a row something failed, and when to try again; 0: nothing speaks against it."""

    failures: int = 0
    ready_at_ms: int = 0

    def failed(self, now_ms: int, *, permanent: bool = False) -> Backoff:
        """After one more failure. A `permanent` one (no such file) waits the longest at once."""
        before = 0 if self.is_forgotten(now_ms) else self.failures
        doublings = min(before, LONGEST_MS.bit_length())
        pause_ms = LONGEST_MS if permanent else min(FIRST_MS << doublings, LONGEST_MS)
        return Backoff(before + 1, now_ms + pause_ms)

    def succeeded(self) -> Backoff:
        """After a success: as if nothing had ever failed."""
        return Backoff()

    def wait_ms(self, now_ms: int) -> int:
        """How long until it may be tried again; 0: now."""
        return max(0, self.ready_at_ms - now_ms)

    def is_forgotten(self, now_ms: int) -> bool:
        """Whether the failures are so long ago that they say nothing any more."""
        return now_ms >= self.ready_at_ms + FORGOTTEN_AFTER_MS


class Backoffs:
    """The pauses of a fleet, by model and neuron. What is long over takes no memory."""

    __slots__ = ("_by_place",)

    def __init__(self) -> None:
        self._by_place: dict[tuple[ModelId, NeuronName], Backoff] = {}

    def __len__(self) -> int:
        return len(self._by_place)

    def of(self, model: ModelId, neuron: NeuronName) -> Backoff:
        """The pause of a model on a neuron."""
        return self._by_place.get((model, neuron), Backoff())

    def failed(
        self, model: ModelId, neuron: NeuronName, now_ms: int, *, permanent: bool = False
    ) -> Backoff:
        """Count a failed load; the pause that follows from it."""
        after = self.of(model, neuron).failed(now_ms, permanent=permanent)
        self._by_place = {
            place: each for place, each in self._by_place.items() if not each.is_forgotten(now_ms)
        }
        self._by_place[(model, neuron)] = after
        return after

    def succeeded(self, model: ModelId, neuron: NeuronName) -> None:
        """Count a load that went well: the next failure is a first one."""
        self._by_place.pop((model, neuron), None)
