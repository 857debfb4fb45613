"""The ledger task: takes calls one turn at a time, decides, and answers when it may.

It owns the accounts while it runs; nobody else changes them. Refusals, settlements and questions
are answered in the turn that takes them; a reservation, and a settlement of more than was reserved,
when the disk has them (`committing.py`). It knows nothing of requests, neurons or HTTP.
"""

import contextlib
from typing import assert_never

import trio

from cortexd.ledger.calls import (
    AnyCall,
    Held,
    LearnCall,
    ReserveCall,
    SettleCall,
    StandingsCall,
    TotalsCall,
)
from cortexd.ledger.charging import Charge
from cortexd.ledger.committing import Committer, LedgerObserver
from cortexd.ledger.entries import Entry, Refused, Unknown
from cortexd.ledger.journal import Journal, JournalFailed
from cortexd.ledger.sync_thread import Syncer, SyncThread

__all__ = ["CALLS_PER_TURN", "LedgerObserver", "run_ledger"]

CALLS_PER_TURN = 512
"""Most calls that are decided before other tasks get their turn."""

LOOK_FOR_ROOM_SECONDS = 5.0
"""How often the free space is looked at while nobody calls, so that /health tells the truth."""

LOOK_AGAIN_SECONDS = 1.0
"""The same while there is too little of it."""


async def run_ledger(
    journal: Journal,
    receive: trio.MemoryReceiveChannel[AnyCall],
    observe: LedgerObserver,
    syncer: Syncer | None = None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve calls until no sender is left, then make everything durable and return.

    Started as soon as it is called: the journal is open. Shielded from its caller's cancellation,
    as a settlement that nobody takes any more would be lost; so close the senders (`Desk.aclose`)
    to end it. Raises `JournalFailed` when the disk fails, and anything else for a bug, in both
    cases after everybody who waits got a `LedgerDown`. `journal` stays the caller's to close.

    `syncer` None: a dedicated thread.
    """
    with trio.CancelScope(shield=True), contextlib.ExitStack() as open_things:
        open_things.enter_context(receive)
        if syncer is None:
            syncer = open_things.enter_context(SyncThread())
        ledger = _LedgerTask(journal, receive, observe, syncer)
        task_status.started()
        try:
            await ledger.run()
        except JournalFailed as error:
            await ledger.give_up(error.what)
            raise
        except BaseException:
            await ledger.give_up("the ledger stopped after an internal error")
            raise


class _LedgerTask:
    def __init__(
        self,
        journal: Journal,
        receive: trio.MemoryReceiveChannel[AnyCall],
        observe: LedgerObserver,
        syncer: Syncer,
    ) -> None:
        self._journal = journal
        self._receive = receive
        self._observe = observe
        self._committer = Committer(journal, syncer, observe, self._wake)
        self._sleep = trio.CancelScope()
        self._calls: list[AnyCall] = []
        self._is_ending = False
        self._has_room = True

    async def run(self) -> None:
        self._observe_reservations()
        self._observe.disk(self._journal.disk_use())
        while not (self._is_ending and self._committer.is_at_rest):
            await self._wait()
            self._committer.land()
            self._take_turn()
            self._committer.flush(closing=self._is_ending)

    async def give_up(self, reason: str) -> None:
        """Answer everybody with `LedgerDown`; those whose call was not taken see a closed channel.

        Waits for a sync under way first: its thread still works on the journal.
        """
        self._receive.close()
        for call in self._calls:
            call.fail(reason)
        await self._committer.wait_landed()
        self._committer.abandon(reason)

    async def _wait(self) -> None:
        """Sleep until there is something to do; take at most one turn's calls."""
        self._calls = []
        if not self._committer.has_landed:
            with trio.CancelScope(deadline=self._next_wake()) as self._sleep:
                await self._receive_one()
        with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
            while len(self._calls) < CALLS_PER_TURN:
                self._calls.append(self._receive.receive_nowait())

    async def _receive_one(self) -> None:
        if self._is_ending:
            await trio.sleep_forever()  # until a sync is back
        try:
            self._calls.append(await self._receive.receive())
        except trio.EndOfChannel:
            self._is_ending = True

    def _wake(self) -> None:
        # A cancelled receive() has taken no call; one that has taken a call is not cancelled.
        self._sleep.cancel()

    def _next_wake(self) -> float:
        wake = self._committer.next_wake()
        deadline_ms = self._journal.accounts.next_deadline()
        if deadline_ms is not None:
            wait_ms = max(1, deadline_ms - self._journal.clock.now_ms())
            wake = min(wake, trio.current_time() + wait_ms / 1000)
        if self._is_ending:
            return wake
        look_seconds = LOOK_FOR_ROOM_SECONDS if self._has_room else LOOK_AGAIN_SECONDS
        return min(wake, trio.current_time() + look_seconds)

    def _take_turn(self) -> None:
        now_ms = self._journal.clock.now_ms()
        open_before = self._journal.accounts.open_reservations
        # The period first: what is charged now belongs to the one that has begun.
        civil_ms = self._journal.clock.civil_ms()
        self._journal.accounts.foresee(wall_ahead_ms=civil_ms - now_ms)
        self._commit(self._journal.accounts.roll(now_ms, civil_ms))
        self._charge_ghosts(now_ms)
        self._has_room = self._journal.has_room()
        self._observe.disk(self._journal.disk_use())
        self._committer.count(len(self._calls))
        for call in self._calls:
            self._decide(call, now_ms)
        if self._journal.accounts.open_reservations != open_before:
            self._observe_reservations()

    def _decide(self, call: AnyCall, now_ms: int) -> None:
        match call:
            case ReserveCall():
                self._reserve(call, now_ms)
            case SettleCall():
                self._settle(call, now_ms)
            case StandingsCall():
                call.answer(self._journal.accounts.standings(call.scopes, now_ms))
            case TotalsCall():
                call.answer(self._journal.accounts.totals(call.scope))
            case LearnCall():
                self._commit(self._journal.accounts.learn(now_ms, call.model, call.tokens))
                call.answer(None)
            case _:
                assert_never(call)

    def _reserve(self, call: ReserveCall, now_ms: int) -> None:
        if not self._has_room:
            call.fail(
                "the ledger's disk is nearly full: nothing more is reserved until it has room"
            )
            return
        accounts = self._journal.accounts
        entries, reply = accounts.reserve(
            now_ms,
            call.scopes,
            call.tokens,
            least=call.least,
            step=call.step,
            request_id=call.request_id,
        )
        if isinstance(reply, Refused):
            call.answer(reply)
            return
        self._commit(entries, waiting=call)
        standings = accounts.standings(call.scopes, now_ms)
        call.prepare(Held(reply.reservation_id, standings, reply.tokens, reply.would_refuse))

    def _settle(self, call: SettleCall, now_ms: int) -> None:
        accounts = self._journal.accounts
        entries, reply = accounts.settle(now_ms, call.reservation_id, call.charge)
        if isinstance(reply, Unknown):
            call.answer(None)
            return
        if reply.overrun:
            # More than was reserved: the one closing whose loss would charge too little, so it is
            # durable before anybody hears of it. The loss of any other charges the reservation.
            self._commit(entries, waiting=call)
            call.prepare(None)
        else:
            self._commit(entries)
            call.answer(None)
        self._observe.settled(reply.scopes, call.charge)

    def _charge_ghosts(self, now_ms: int) -> None:
        accounts = self._journal.accounts
        closing = accounts.tick(now_ms)
        if not closing:
            return
        scopes = {found.reservation_id: found.scopes for found in accounts.reservations()}
        self._commit(closing)
        for entry in closing:
            cost = Charge(entry.a, prompt_tokens=0, completion_tokens=0, why="crash", overrun=0)
            self._observe.settled(scopes[entry.i], cost)

    def _commit(self, entries: tuple[Entry, ...], *, waiting: AnyCall | None = None) -> None:
        for entry in entries:
            self._journal.accounts.apply(entry)
        if entries:
            self._committer.add(entries, waiting=waiting)

    def _observe_reservations(self) -> None:
        self._observe.open_reservations(self._journal.accounts.open_reservations)
        self._observe.unresolved(self._journal.accounts.unresolved_tokens)
