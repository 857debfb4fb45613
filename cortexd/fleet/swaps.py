"""When a model that others are waiting behind has to give up its place.

Owns the two promises to models that share graphics cards: who waits for a cold one gets a turn, and
who just got one keeps it for a while. Refuses to know cards and memory (placement.py says whom
somebody would have to displace), and how a model is drained, unloaded and loaded.

Every function is asked anew whenever something changes; nothing is remembered here.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cortexd.config.schema import Eviction
    from cortexd.fleet.reports import ModelId

# Theory of operation.
#
#   serving --(a cold model's wait is nearly over)--> draining --(nothing in flight)--> displaced
#      ^                                                  |
#      +----------(requests in flight do not end)---------+
#
# A cold model waits behind each hot one at most `max_swap_wait_ms`, from when its oldest request
# came or the hot one got its turn, whichever is later. Counted from the request alone, three models
# on one card would throw each other out before any of them had served: the third has waited for
# longer than the limit by the time the second is loaded.
#
# Requests in flight are never broken off, so that the hot model stops admitting `drain_ms` before
# the limit (but serves for half of it at least), and is displaced as soon as the last one has
# ended. If they take longer than `drain_ms`, the hot model is let go on: who waits for the cold one
# is told so, instead of both standing still for as long as somebody's stream lasts.
#
# `min_residency_ms` protects a model that has nothing to do from being displaced right after its
# load, as users of two models who take turns would bring about with each request. Where it is
# longer than the swap wait, the swap wait is kept: that one is a promise to somebody who waits, and
# as it starts with the hot model's turn it bounds the swaps by itself.


class SwapRules(msgspec.Struct, frozen=True):
    """What an operator allows. `max_swap_wait_ms` 0: a busy model gives way to nobody."""

    max_swap_wait_ms: int
    min_residency_ms: int
    drain_ms: int

    @property
    def longest_service_ms(self) -> int:
        """How long a hot model admits requests while a cold one waits."""
        return self.max_swap_wait_ms - min(self.drain_ms, self.max_swap_wait_ms // 2)


class Hot(msgspec.Struct, frozen=True):
    """A loaded model that is in the way.

    `loaded_ms`: when its load ended. `in_flight`: requests that it works on, and those that it is
    leased to. `waiting`: requests for it that are not admitted yet. `draining_since_ms` None: it
    admits. `resumed_ms`: when it was last let go on after a drain that took too long.
    """

    loaded_ms: int
    in_flight: int = 0
    waiting: int = 0
    draining_since_ms: int | None = None
    resumed_ms: int | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nobody wants anything of it."""
        return self.in_flight == 0 and self.waiting == 0


class Step(enum.Enum):
    """What a hot model is to do now; the values are words for a log."""

    SERVE = "serve"
    """Admit requests, also if it was draining: nobody is waiting long enough for its place."""
    DRAIN = "drain"
    """Admit no more requests, finish those in flight."""
    DISPLACE = "displace"
    """Nothing is in flight: unload it."""
    RESUME = "resume"
    """Draining took too long: admit again, and tell who waits for the cold model."""


class Decision(msgspec.Struct, frozen=True):
    """A step, and when to ask again if nothing changes until then; None: no need to."""

    step: Step
    ask_again_ms: int | None = None


def rules_of(settings: Eviction, *, drain_seconds: float) -> SwapRules:
    """The rules as configured. `drain_seconds`: how long requests in flight may take to end."""
    return SwapRules(
        max_swap_wait_ms=_milliseconds(settings.max_swap_wait_seconds),
        min_residency_ms=_milliseconds(settings.min_residency_seconds),
        drain_ms=_milliseconds(drain_seconds),
    )


def swap_due_ms(hot: Hot, cold_since_ms: int, rules: SwapRules) -> int | None:
    """From when on a busy hot model admits no more; None: it never has to.

    `cold_since_ms`: since when the oldest request waits that it is in the way of.
    """
    if rules.max_swap_wait_ms == 0:
        return None
    turn_ms = hot.loaded_ms if hot.resumed_ms is None else max(hot.loaded_ms, hot.resumed_ms)
    return max(turn_ms, cold_since_ms) + rules.longest_service_ms


def displaceable_ms(hot: Hot, cold_since_ms: int, rules: SwapRules) -> int:
    """From when on an idle hot model may be displaced: after its residency, or its swap is due."""
    resident_ms = hot.loaded_ms + rules.min_residency_ms
    due_ms = swap_due_ms(hot, cold_since_ms, rules)
    return resident_ms if due_ms is None else min(resident_ms, due_ms)


def next_step(hot: Hot, cold_since_ms: int | None, rules: SwapRules, now_ms: int) -> Decision:
    """What a hot model is to do about the cold one that it is in the way of.

    `cold_since_ms` None: nobody waits any more. After `Step.RESUME` the caller sets `resumed_ms`.
    """
    if cold_since_ms is None:
        return Decision(Step.SERVE)
    at_ms = _end_of_service_ms(hot, cold_since_ms, rules)
    if at_ms is None or now_ms < at_ms:
        return Decision(Step.SERVE, at_ms)
    if hot.in_flight == 0:
        return Decision(Step.DISPLACE)
    if hot.draining_since_ms is None:
        return Decision(Step.DRAIN, now_ms + rules.drain_ms)
    patience_ends_ms = hot.draining_since_ms + rules.drain_ms
    if now_ms >= patience_ends_ms:
        return Decision(Step.RESUME)
    return Decision(Step.DRAIN, patience_ends_ms)


def first_in_line(waiting: Mapping[ModelId, int]) -> ModelId | None:
    """Which cold model is next, of those that need the same place: the one that waits longest.

    `waiting`: since when each one's oldest request waits. Ties go by name; None: nobody waits.
    """
    return min(waiting, key=lambda model: (waiting[model], model), default=None)


def _end_of_service_ms(hot: Hot, cold_since_ms: int, rules: SwapRules) -> int | None:
    if hot.is_idle:
        return displaceable_ms(hot, cold_since_ms, rules)
    return swap_due_ms(hot, cold_since_ms, rules)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000)) if seconds else 0  # only 0 itself means off
