"""Making room in good time: whoever is in the way of a model that others wait for admits no more.

Owns the drains. Refuses to know who is in the way (placement.py), and when it has to give way
(swaps.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortexd.fleet.residents import hot
from cortexd.fleet.swaps import Step, next_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Set

    from cortexd.fleet.board import Board
    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.residents import Resident, Residents
    from cortexd.fleet.situation import Residency
    from cortexd.fleet.swaps import Decision, SwapRules


class Drains:
    """The drains of a fleet, each in favour of one model."""

    def __init__(self, board: Board, residents: Residents, rules: SwapRules) -> None:
        """Drain `residents` by these rules."""
        self._board = board
        self._residents = residents
        self._rules = rules

    @property
    def rules(self) -> SwapRules:
        """What the operator allows."""
        return self._rules

    def due(
        self, model: ModelId, since_ms: int, waiting: Mapping[ModelId, int], now_ms: int
    ) -> frozenset[Residency]:
        """Who gives its place to `model` now, if it is in the way: nothing of it is in flight."""
        return frozenset(
            stay.residency
            for stay in self._residents
            if self._may_yield(stay, model)
            and self._decide(stay, model, since_ms, waiting, now_ms).step is Step.DISPLACE
        )

    def of(self, model: ModelId) -> frozenset[Residency]:
        """Who drains for `model`."""
        return frozenset(stay.residency for stay in self._residents if stay.draining_for == model)

    def able(self, model: ModelId) -> frozenset[Residency]:
        """Who could be asked to: nobody who gives way to somebody else."""
        return frozenset(stay.residency for stay in self._residents if self._may_yield(stay, model))

    def ask(
        self,
        model: ModelId,
        in_the_way: Iterable[Residency],
        since_ms: int,
        waiting: Mapping[ModelId, int],
        now_ms: int,
    ) -> tuple[bool, int | None]:
        """Take the next step with each that is in the way, and let go of whoever is not any more.

        Returns whether the requests of some did not end in time, so that all are let go on, and
        when to ask again if nothing changes.
        """
        chosen = set(in_the_way)
        ask_again_ms: list[int] = []
        too_slow = False
        for stay in self._residents:
            if stay.residency not in chosen:
                if stay.draining_for == model:
                    self._residents.end_drain(stay)
                continue
            decision = self._decide(stay, model, since_ms, waiting, now_ms)
            if decision.step in (Step.DRAIN, Step.DISPLACE):
                stay.drain(model, _oldest_ms(stay, model, since_ms), now_ms)
                if stay.in_flight == 0 and decision.step is Step.DRAIN:
                    self._board.doubt(stay.residency[0])  # what it reports may have ended by now
            elif decision.step is Step.SERVE:
                self._residents.end_drain(stay)
            elif decision.step is Step.RESUME:
                stay.resumed_ms = now_ms
                too_slow = True
            if decision.ask_again_ms is not None:
                ask_again_ms.append(decision.ask_again_ms)
        if too_slow:
            self.release(model)
        return too_slow, min(ask_again_ms, default=None)

    def release(self, model: ModelId) -> None:
        """Nobody drains for `model` any more."""
        for stay in self._residents:
            if stay.draining_for == model:
                self._residents.end_drain(stay)

    def keep(self, wanted: Set[ModelId]) -> None:
        """Only for these does anybody drain."""
        for stay in self._residents:
            if stay.draining_for is not None and stay.draining_for not in wanted:
                self._residents.end_drain(stay)

    def _may_yield(self, stay: Resident, model: ModelId) -> bool:
        if stay.leaving or stay.unload_until_ms is not None:
            return False
        return stay.draining_for in (None, model) and stay.residency[1] != model

    def _decide(
        self,
        stay: Resident,
        model: ModelId,
        since_ms: int,
        waiting: Mapping[ModelId, int],
        now_ms: int,
    ) -> Decision:
        there = hot(stay, self._board.view, waiting.get(stay.residency[1], 0))
        return next_step(there, _oldest_ms(stay, model, since_ms), self._rules, now_ms)


def _oldest_ms(stay: Resident, model: ModelId, since_ms: int) -> int:
    """Since when a model is waited for. Several may want it, an operator and clients for example: a
    drain for the one that has waited longest is not ended for one that came later.
    """
    if stay.draining_for != model or stay.cold_since_ms is None:
        return since_ms
    return min(since_ms, stay.cold_since_ms)
