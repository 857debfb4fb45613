"""What is said between the desk and the ledger task, and how the answer gets back.

A call is made by the desk, taken once by the ledger task, and answered exactly once: with a value,
or with `LedgerDown`. It owns no state of the ledger and knows neither disk nor journal.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec
import trio

from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import Refused, ReservationId, Scope, Standing, Totals

Answer = TypeVar("Answer")


class LedgerDown(Exception):
    """The ledger cannot answer: no budget was changed by this call, or nobody can know it was.

    `reason` is one sentence for people. Answer 503; a reservation that was made earlier stays.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LedgerBusy(LedgerDown):
    """Too many calls wait for the ledger already; this one was not taken, and nothing is wrong."""


class Held(msgspec.Struct, frozen=True):
    """A reservation was made and is durable; the capped scopes' standings, with it counted.

    `tokens`: how many are reserved. `would_refuse`: what a shadow cap would have answered.
    """

    reservation_id: ReservationId
    standings: tuple[Standing, ...]
    tokens: int
    would_refuse: Refused | None


class Call(Generic[Answer]):
    """One question to the ledger task and the way back to the one task that asked.

    `is_taken` and `was_taken_back` are the inbox's: whose it is.
    """

    # Defaults in the class: one call in a hundred needs all four, and each request makes two calls.
    is_taken = False
    was_taken_back = False
    _is_answered = False
    _waiter: trio.lowlevel.Task | None = None
    _answer: Answer | None = None
    _down: LedgerDown | None = None

    def prepare(self, value: Answer) -> None:
        """Keep the answer for `deliver`. This and the next three are the ledger task's to call."""
        self._answer = value

    def deliver(self) -> None:
        """Wake who asked with the answer that was prepared."""
        assert not self._is_answered, "a call is answered once"
        self._is_answered = True
        if self._waiter is not None:
            trio.lowlevel.reschedule(self._waiter)

    def answer(self, value: Answer) -> None:
        """Wake who asked, now."""
        self._answer = value
        self.deliver()

    def fail(self, reason: str) -> None:
        """Wake who asked with a `LedgerDown`; without effect once an answer was delivered."""
        if not self._is_answered:
            self._down = LedgerDown(reason)
            self.deliver()

    async def answered(self, take_back: Callable[["Call[Answer]"], bool] | None = None) -> Answer:
        """Wait for the answer. Raises `LedgerDown`.

        `take_back`: whether it could be taken back from where it waits to be taken; only then, and
        never without this, a cancellation is felt here, as the ledger may have granted what only
        the answer names. Short: the ledger task answers every call that it took, at the latest when
        a sync is back. (A shielded scope and an event would do the same for several times the CPU.)
        """
        if not self._is_answered:
            self._waiter = trio.lowlevel.current_task()

            def give_up(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
                may_go = take_back is not None and take_back(self)
                return trio.lowlevel.Abort.SUCCEEDED if may_go else trio.lowlevel.Abort.FAILED

            await trio.lowlevel.wait_task_rescheduled(give_up)
        if self._down is not None:
            raise self._down
        return self._answer  # type: ignore[return-value]  # None only where Answer is None


class ReserveCall(Call[Held | Refused]):
    """Reserve `tokens` on all scopes or none; answered once it is durable (a refusal at once).

    `least`: where they do not fit, reserve what is left, but not fewer than these, and more only in
    steps of `step`.
    """

    def __init__(
        self,
        scopes: tuple[Scope, ...],
        tokens: int,
        request_id: str,
        *,
        least: int | None = None,
        step: int = 1,
    ) -> None:
        self.scopes = scopes
        self.tokens = tokens
        self.least = least
        self.step = step
        self.request_id = request_id


class SettleCall(Call[None]):
    """Close a reservation with this charge; answered once applied, an overrun once durable."""

    def __init__(self, reservation_id: ReservationId, charge: Charge) -> None:
        self.reservation_id = reservation_id
        self.charge = charge


class StandingsCall(Call[tuple[Standing, ...]]):
    """How the caps on these scopes stand, after everything that was answered before."""

    def __init__(self, scopes: tuple[Scope, ...]) -> None:
        self.scopes = scopes


class TotalsCall(Call[Totals]):
    """What this scope has spent and reserved, after everything that was answered before."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope


class LearnCall(Call[None]):
    """Remember that a model's template was seen to add so many tokens."""

    def __init__(self, model: str, tokens: int) -> None:
        self.model = model
        self.tokens = tokens


AnyCall = ReserveCall | SettleCall | StandingsCall | TotalsCall | LearnCall
