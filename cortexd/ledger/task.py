"""The ledger task: takes calls one turn at a time, decides, and answers when it may.

It owns the accounts while it runs; nobody else changes them. Refusals and questions are answered in
the turn that takes them; a reservation, and a settlement of more than was reserved, when the disk
has them (`committing.py`); any other settlement is not waited for, and need not be taken before
somebody asks. It knows nothing of requests, neurons or HTTP.
"""

import contextlib
import math
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
from cortexd.ledger.committing import Committer, LedgerObserver
from cortexd.ledger.entries import Entry, Refused, Unknown
from cortexd.ledger.inbox import Inbox
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
    inbox: Inbox,
    observe: LedgerObserver,
    syncer: Syncer | None = None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve calls until the inbox is closed, then make everything durable and return.

    Started as soon as it is called: the journal is open. Shielded from its caller's cancellation,
    as a settlement that nobody takes any more would be lost; so close the inbox (`Desk.aclose`)
    to end it. Raises `JournalFailed` when the disk fails, and anything else for a bug, in both
    cases after everybody who waits got a `LedgerDown`. `journal` stays the caller's to close.

    `syncer` None: a dedicated thread.
    """
    with trio.CancelScope(shield=True), contextlib.ExitStack() as open_things:
        if syncer is None:
            syncer = open_things.enter_context(SyncThread())
        ledger = _LedgerTask(journal, inbox, observe, syncer)
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
        self, journal: Journal, inbox: Inbox, observe: LedgerObserver, syncer: Syncer
    ) -> None:
        self._journal = journal
        self._inbox = inbox
        self._observe = observe
        self._committer = Committer(journal, syncer, observe, inbox.wake)
        self._calls: list[AnyCall] = []
        self._look_at = -math.inf
        self._has_room = True

    async def run(self) -> None:
        self._observe_reservations()
        while not self._is_over:
            # One alarm for many turns: to set it anew costs more than a turn, so it is only ever
            # set to an earlier time, and a turn too many is taken when it rings.
            with trio.CancelScope() as alarm:
                await self._take_turns(alarm)

    async def _take_turns(self, alarm: trio.CancelScope) -> None:
        """Take turns until all is over; cancelled by `alarm`, between two of them."""
        rings_at = math.inf
        while True:
            self._take_turn()
            if self._is_over:
                return
            wake = min(self._look_at, self._committer.next_wake())
            if wake < rings_at:
                rings_at = alarm.deadline = wake
            if self._inbox.is_empty and not self._committer.has_landed:
                self._inbox.comes_back_soon = self._committer.syncs_soon
                await self._inbox.sleep()
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()  # streams have their turn too

    async def give_up(self, reason: str) -> None:
        """Answer everybody with `LedgerDown`.

        Waits for a sync under way first: its thread still works on the journal.
        """
        self._inbox.refuse(reason)
        for call in self._calls:
            call.fail(reason)
        await self._committer.wait_landed()
        self._committer.abandon(reason)

    @property
    def _is_over(self) -> bool:
        inbox = self._inbox
        return inbox.is_closed and inbox.is_empty and self._committer.is_at_rest

    def _take_turn(self) -> None:
        journal, committer = self._journal, self._committer
        now, now_ms, civil_ms = (
            trio.current_time(),
            journal.clock.now_ms(),
            journal.clock.civil_ms(),
        )
        committer.land(now)
        # The period first: what is charged now belongs to the one that has begun.
        journal.accounts.foresee(wall_ahead_ms=civil_ms - now_ms)
        self._commit(journal.accounts.roll(now_ms, civil_ms))
        self._charge_ghosts(now_ms)
        has_room = journal.has_room()
        if now >= self._look_at or has_room != self._has_room:
            self._has_room = has_room
            self._look_around(now, now_ms)
        open_before = journal.accounts.open_reservations
        self._calls = self._inbox.take(CALLS_PER_TURN)
        committer.count(len(self._calls))
        for call in self._calls:
            self._decide(call, now_ms)
        if journal.accounts.open_reservations != open_before:
            self._observe.open_reservations(journal.accounts.open_reservations)
        committer.flush(now, closing=self._inbox.is_closed)

    def _look_around(self, now: float, now_ms: int) -> None:
        """What has to be done from time to time, whether or not anybody calls."""
        self._observe.disk(self._journal.disk_use())
        seconds = LOOK_FOR_ROOM_SECONDS if self._has_room else LOOK_AGAIN_SECONDS
        deadline_ms = self._journal.accounts.next_deadline()
        if deadline_ms is not None:
            seconds = min(seconds, max(1, deadline_ms - now_ms) / 1000)
        self._look_at = now + seconds

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

    def _charge_ghosts(self, now_ms: int) -> None:
        accounts = self._journal.accounts
        closing = accounts.tick(now_ms)
        if not closing:
            return
        scopes = {found.reservation_id: found.scopes for found in accounts.reservations()}
        self._commit(closing)
        for entry in closing:
            self._observe.ghost_charged(scopes[entry.i], entry.a)
        self._observe_reservations()

    def _commit(self, entries: tuple[Entry, ...], *, waiting: AnyCall | None = None) -> None:
        for entry in entries:
            self._journal.accounts.apply(entry)
        if entries:
            self._committer.add(entries, waiting=waiting)

    def _observe_reservations(self) -> None:
        self._observe.open_reservations(self._journal.accounts.open_reservations)
        self._observe.unresolved(self._journal.accounts.unresolved_tokens)
