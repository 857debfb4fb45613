"""Where everybody else meets the ledger: reserve before work is sent out, settle when it is over.

It owns no books: it asks the ledger task over a channel of capacity 0, so that a call is either
still the caller's or already the ledger's, and no reservation is ever granted to nobody.
"""

import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, cast

import trio

from cortexd.dialects.upper_bound import Bound
from cortexd.ledger.calls import (
    AnyCall,
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
from cortexd.ledger.journal import Condition

if TYPE_CHECKING:
    from cortexd.dialects.usage import Ending

__all__ = ["CALLS_MAX", "Desk", "LedgerBusy", "LedgerDown", "Reservation"]

CALLS_MAX = 10_000
"""Most calls that wait for the ledger at a time; more are told to come back later. Settling and
learning are not counted: they are few, and settling has to come through."""


Answer = TypeVar("Answer")

_CLOSED = "the ledger is closed"


class Desk:
    """The ledger as the rest of the daemon sees it. Every async method checkpoints.

    `send` is the desk's own end of the ledger task's channel (capacity 0); closing the last one
    ends that task. `template_tokens` reads what the ledger has learned, as
    `Accounts.template_tokens` does; `condition` is `Journal.condition`, `clock_skew_ms` the skew of
    its clock.
    """

    def __init__(
        self,
        send: trio.MemorySendChannel[AnyCall],
        template_tokens: Callable[[str], int],
        condition: Callable[[], Condition] = lambda: "ok",
        clock_skew_ms: Callable[[], int] = lambda: 0,
        *,
        calls_max: int = CALLS_MAX,
    ) -> None:
        self._send = send
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
        call = ReserveCall(
            scopes,
            bound.total,
            request_id,
            least=None if least is None else least.total,
            step=bound.choices,
        )
        held = await self._ask(call)
        if isinstance(held, Refused):
            return held
        return Reservation(self._settle, held, _afforded(bound, held.tokens))

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
        with contextlib.suppress(LedgerDown):
            await self._hand_over(call)
            await call.answered()

    async def aclose(self) -> None:
        """No more calls. Reservations that are still open stay so, and are charged at recovery."""
        await self._send.aclose()

    async def _settle(self, reservation_id: ReservationId, cost: Charge) -> None:
        call = SettleCall(reservation_id, cost)
        try:
            self._send.send_nowait(call)
        except trio.WouldBlock:
            # Shielded, as a settlement that is never told leaves the reservation open. Short, as
            # the ledger task takes calls even while it waits for the disk.
            with trio.CancelScope(shield=True):
                await self._hand_over(call)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise LedgerDown(_CLOSED) from None
        await call.answered()

    def _count_in(self) -> None:
        """Take a place among the calls that wait; to be given back however the call ends."""
        if self._calls >= self._calls_max:
            raise LedgerBusy("the ledger is busy: too many calls are waiting for it")
        self._calls += 1

    async def _ask(self, call: Call[Answer]) -> Answer:
        self._count_in()
        try:
            await self._hand_over(cast("AnyCall", call))
            return await call.answered()
        finally:
            self._calls -= 1

    async def _hand_over(self, call: AnyCall) -> None:
        try:
            await self._send.send(call)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise LedgerDown(_CLOSED) from None


class Reservation:
    """Tokens that are reserved until this is left; an async context manager, entered once.

    Leaving charges what `charging.charge` makes of the three facts that the caller leaves here:
    `bound`, `dispatched` (set it before the first byte goes to a neuron) and `ending` (set it as
    soon as it is known; left None after a dispatch, the whole bound is charged).

    `standings`: how all caps on the scopes stand, with this reservation counted. `would_refuse`:
    what a shadow cap would have answered. `charge`: None until
    this is left; and it stays None when the ledger could not take the settlement: the reservation
    is then charged in full when the ledger is opened again.
    """

    def __init__(
        self,
        settle: Callable[[ReservationId, Charge], Awaitable[None]],
        held: Held,
        bound: Bound,
    ) -> None:
        self._settle = settle
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
        """Settle or release: applied to the standings when this returns, durable soon after.

        Shielded; raises nothing of its own, a dead ledger included.
        """
        cost = charge(self.bound, self.ending, dispatched=self.dispatched)
        try:
            await self._settle(self._reservation_id, cost)
        except LedgerDown:
            return
        self.charge = cost


def unjournalled(bound: Bound) -> Reservation:
    """A reservation that no ledger knows of; its charge is only told and counted."""

    async def forget(reservation_id: ReservationId, charge: Charge) -> None:
        await trio.lowlevel.checkpoint()

    return Reservation(forget, Held(ReservationId(0), (), bound.total, None), bound)


def _afforded(bound: Bound, tokens: int) -> Bound:
    """`bound` with as much output as `tokens` pay for, which are no more than it asks for."""
    if tokens >= bound.total:
        return bound
    output_tokens = (tokens - bound.prompt_tokens) // bound.choices
    return Bound(bound.prompt_tokens, output_tokens, bound.choices)
