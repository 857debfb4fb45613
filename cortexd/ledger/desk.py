"""Where everybody else meets the ledger: reserve before work is sent out, settle when it is over.

It owns no books: it asks the ledger task by way of its inbox, where a call is either still the
caller's or already the ledger's, so that no reservation is ever granted to nobody.
"""

import contextlib
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import trio

from cortexd.dialects.upper_bound import Bound
from cortexd.ledger.calls import (
    Call,
    Held,
    LearnCall,
    LedgerBusy,
    LedgerDown,
    ReserveCall,
    SettleCall,
    StandingsCall,
    TotalsCall,
)
from cortexd.ledger.charging import Charge, charge
from cortexd.ledger.entries import Refused, ReservationId, Scope, Standing, Totals
from cortexd.ledger.inbox import Inbox
from cortexd.ledger.journal import Condition

if TYPE_CHECKING:
    from cortexd.dialects.usage import Ending

__all__ = ["CALLS_MAX", "Desk", "LedgerBusy", "LedgerDown", "Reservation"]

CALLS_MAX = 10_000
"""Most calls that wait for the ledger at a time; more are told to come back later. Settling and
learning are not counted: they are few, and settling has to come through."""


Answer = TypeVar("Answer")


class Desk:
    """The ledger as the rest of the daemon sees it. Every async method checkpoints.

    `inbox` is the ledger task's; closing it ends that task. `template_tokens` reads what the ledger
    has learned, as `Accounts.template_tokens` does; `condition` is `Journal.condition`,
    `clock_skew_ms` the skew of its clock.
    """

    def __init__(
        self,
        inbox: Inbox,
        template_tokens: Callable[[str], int],
        condition: Callable[[], Condition] = lambda: "ok",
        clock_skew_ms: Callable[[], int] = lambda: 0,
        *,
        calls_max: int = CALLS_MAX,
    ) -> None:
        self._inbox = inbox
        self._template_tokens = template_tokens
        self._condition = condition
        self._clock_skew_ms = clock_skew_ms
        self._calls_max = calls_max
        self._calls = 0

    @property
    def condition(self) -> Condition:
        """Whether the ledger takes reservations, and if not, why."""
        return self._condition()

    @property
    def clock_skew_ms(self) -> int:
        """How far the wall clock is ahead of the ledger's, whose time `fixed` windows follow."""
        return self._clock_skew_ms()

    async def reserve(
        self,
        scopes: tuple[Scope, ...],
        bound: Bound,
        *,
        request_id: str,
        least: Bound | None = None,
    ) -> "Reservation | Refused":
        """Reserve `bound.total` tokens on all scopes or on none; durable when this returns.

        `least`: where that does not fit, reserve what is left, but not less than this (which any
        refusal is then about); the reservation's `bound` says how much output is paid for.

        Enter the reservation at once: `async with granted as reservation:`, nothing awaited in
        between. Raises `LedgerDown`. A cancellation that comes before the ledger has taken the call
        leaves nothing behind; one that comes later is felt at the first checkpoint inside the
        reservation, which then gives it back.
        """
        least_tokens = None if least is None else least.total
        held = await self._ask(
            ReserveCall(scopes, bound.total, request_id, least=least_tokens, step=bound.choices)
        )
        if isinstance(held, Refused):
            return held
        return Reservation(self._inbox, held, _afforded(bound, held.tokens))

    async def standings(self, scopes: tuple[Scope, ...]) -> tuple[Standing, ...]:
        """How the caps on these scopes stand now; scopes without a cap are left out.

        Counts every reservation that was left before. Raises `LedgerDown`.
        """
        return await self._ask(StandingsCall(scopes))

    async def totals(self, scope: Scope) -> Totals:
        """What a scope has spent in all and what it has reserved, cap or no cap.

        Counts every reservation that was left before. Raises `LedgerDown`.
        """
        return await self._ask(TotalsCall(scope))

    def template_tokens(self, model: str) -> int:
        """The most tokens that this model's template was seen to add; 0 when nothing is known."""
        return self._template_tokens(model)

    async def learn(self, model: str, tokens: int) -> None:
        """Remember what a model's template adds; only ever grows.

        Silent when the ledger is down: it only makes later bounds better.
        """
        call = LearnCall(model, tokens)
        await trio.lowlevel.checkpoint_if_cancelled()
        with contextlib.suppress(LedgerDown):
            self._inbox.put(call)
            await call.answered(self._inbox.take_back)

    async def aclose(self) -> None:
        """No more calls. Reservations that are still open stay so, and are charged at recovery."""
        self._inbox.close()
        await trio.lowlevel.checkpoint()

    async def _ask(self, call: Call[Answer]) -> Answer:
        if self._calls >= self._calls_max:
            raise LedgerBusy("the ledger is busy: too many calls are waiting for it")
        await trio.lowlevel.checkpoint_if_cancelled()
        self._inbox.put(call)
        self._calls += 1
        try:
            return await call.answered(self._inbox.take_back)
        finally:
            self._calls -= 1


class Reservation:
    """Tokens that are reserved until this is left; an async context manager, entered once.

    Leaving charges what `charging.charge` makes of the three facts that the caller leaves here:
    `bound`, `dispatched` (set it before the first byte goes to a neuron) and `ending` (set it as
    soon as it is known; left None after a dispatch, the whole bound is charged).

    `standings`: how all caps on the scopes stand, with this reservation counted. `would_refuse`:
    what a shadow cap would have answered. `charge`: None until this is left; and it stays None when
    the ledger was down by then: the reservation is charged in full when it is opened again.
    """

    def __init__(self, inbox: Inbox | None, held: Held, bound: Bound) -> None:
        """`inbox` None: no ledger knows of it, its charge is only told and counted."""
        self._inbox = inbox
        self._reservation_id = held.reservation_id
        self.bound = bound
        self.standings = held.standings
        self.would_refuse = held.would_refuse
        self.dispatched = False
        self.ending: Ending | None = None
        self.charge: Charge | None = None

    async def __aenter__(self) -> Self:
        """No checkpoint: between the grant and the body nothing can get lost."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """`settle`, and wait where it says so. Cannot be cancelled; raises nothing of its own, a
        dead ledger included; no checkpoint but for that wait.
        """
        overrun = self.settle()
        if overrun is not None:
            await overrun

    def settle(self) -> Coroutine[Any, Any, None] | None:
        """Settle or release, for those who leave otherwise than by `async with`.

        Done when this returns, which it does at once: the ledger counts it before anything that it
        is asked later, and has it on disk soon after. Where more is charged than was reserved, what
        is returned must be awaited before anybody is told: then it is on disk. That wait is short
        and cannot be cancelled. A second time it changes nothing.
        """
        if self.charge is not None:
            return None
        cost = charge(self.bound, self.ending, dispatched=self.dispatched)
        if self._inbox is not None:
            call = SettleCall(self._reservation_id, cost)
            try:
                if cost.overrun:
                    with contextlib.suppress(LedgerBusy):  # then it is told before it is durable
                        self._inbox.put(call)
                        return self._durable(call)
                self._inbox.leave(call)
            except LedgerDown:
                return None
        self.charge = cost
        return None

    async def _durable(self, call: SettleCall) -> None:
        with contextlib.suppress(LedgerDown):
            await call.answered()
            self.charge = call.charge


def unjournalled(bound: Bound) -> Reservation:
    """A reservation that no ledger knows of; its charge is only told and counted."""
    return Reservation(None, Held(ReservationId(0), (), bound.total, None), bound)


def _afforded(bound: Bound, tokens: int) -> Bound:
    """`bound` with as much output as `tokens` pay for, which are no more than it asks for."""
    if tokens >= bound.total:
        return bound
    output_tokens = (tokens - bound.prompt_tokens) // bound.choices
    return Bound(bound.prompt_tokens, output_tokens, bound.choices)
