"""The way of a call to the ledger task: who may take it back, and what is taken before what."""

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from cortexd.ledger.calls import StandingsCall
from cortexd.ledger.desk import Desk, LedgerDown, Reservation
from cortexd.ledger.entries import Cap
from cortexd.ledger.inbox import Inbox
from cortexd.ledger.journal import JournalFailed
from cortexd.ledger.task import CALLS_PER_TURN
from tests.ledger.simulated_disk import SimulatedDisk
from tests.ledger.workbench import (
    KEY,
    Collected,
    HeldSyncer,
    InlineSyncer,
    bound,
    completed,
    granted,
    open_journal,
    pass_time,
    running,
    trio_clock,
)


async def first_granted(syncer: HeldSyncer, collected: Collected) -> Reservation:
    await syncer.wait_held()
    syncer.release()
    await wait_all_tasks_blocked()
    return collected.reservations[0]


async def test_what_was_left_is_counted_by_whatever_is_asked_next() -> None:
    """No checkpoint lies between the two: the ledger task had no moment to look."""
    async with running(open_journal(SimulatedDisk(), [Cap(KEY, 100)]), InlineSyncer()) as desk:
        reservation = await granted(desk, 100)
        assert reservation.settle() is None
        async with await granted(desk, 100) as another:
            another.dispatched = True
            another.ending = completed(60, 39)
        assert another.charge is not None
        assert (await desk.totals(KEY)).spent == another.charge.tokens == 99


async def test_what_is_left_while_a_sync_hangs_is_counted_and_durable_soon_after_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk, syncer, collected = SimulatedDisk(), HeldSyncer(), Collected()
    journal = open_journal(disk, times=trio_clock())
    async with running(journal, syncer) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(collected.reserve, desk, 40)
        reservation = await first_granted(syncer, collected)
        nursery.start_soon(collected.reserve, desk, 30)
        await syncer.wait_held()
        assert reservation.settle() is None
        await pass_time(0.04)
        assert (await desk.standings((KEY,)))[0].reserved == 30
        syncer.release()
        await pass_time(0.011)
        syncer.release()
        left = open_journal(disk.after_power_loss("nothing", seed=1)).accounts.reservations()
        assert [found.tokens for found in left] == [30]


async def test_settlements_that_come_together_are_written_together(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = SimulatedDisk()
    async with running(open_journal(disk, times=trio_clock()), InlineSyncer()) as desk:
        reservations = [await granted(desk) for _ in range(9)]
        await pass_time(100)
        operations = disk.operations
        for reservation in reservations:
            async with reservation:
                pass
            await trio.lowlevel.checkpoint()
        await pass_time(0.051)
        assert disk.log[operations:] == ["write", "write", "sync", "hint"]


async def test_calls_are_taken_in_the_order_in_which_they_came_and_no_more_than_one_turn() -> None:
    """So that what is asked after a settlement counts it."""
    inbox = Inbox()
    calls = [StandingsCall((KEY,)) for _ in range(5)]
    for call in calls:
        inbox.put(call)
    assert [inbox.take(3), inbox.take(3), inbox.take(3)] == [calls[:3], calls[3:], []]


async def test_a_ledger_that_sleeps_ends_as_soon_as_its_desk_is_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    began = trio.current_time()
    async with running(open_journal(SimulatedDisk()), InlineSyncer()):
        await wait_all_tasks_blocked()
    assert trio.current_time() == began


async def test_settling_twice_is_settling_once() -> None:
    async with running(open_journal(SimulatedDisk()), InlineSyncer()) as desk:
        reservation = await granted(desk, 30)
        reservation.dispatched = True
        assert reservation.settle() is None
        charge = reservation.charge
        reservation.ending = completed(1, 1)
        assert reservation.settle() is None
        assert reservation.charge is charge
        assert (await desk.totals(KEY)).spent == 30


async def test_an_overrun_that_the_disk_does_not_get_is_never_told() -> None:
    disk, syncer, collected = SimulatedDisk(), HeldSyncer(), Collected()
    with pytest.RaisesGroup(JournalFailed, flatten_subgroups=True):
        async with running(open_journal(disk), syncer) as desk, trio.open_nursery() as nursery:
            nursery.start_soon(collected.reserve, desk)
            reservation = await first_granted(syncer, collected)
            reservation.dispatched = True
            reservation.ending = completed(10, 5)
            overrun = reservation.settle()
            assert overrun is not None
            disk.faults = {disk.operations + 2: "EIO"}  # it is written, but not synced
            nursery.start_soon(first_granted, syncer, collected)
            await overrun
    assert reservation.charge is None


async def test_who_asks_in_the_moment_in_which_the_disk_fails_is_told() -> None:
    disk, syncer, collected = SimulatedDisk(), HeldSyncer(), Collected()
    with pytest.RaisesGroup(JournalFailed, flatten_subgroups=True):
        async with running(open_journal(disk), syncer) as desk, trio.open_nursery() as nursery:
            nursery.start_soon(collected.reserve, desk)
            await syncer.wait_held()
            disk.faults = {disk.operations + 1: "EIO"}
            syncer.release()
            await collected.reserve(desk)  # is put before the ledger task has heard of the failure
    assert len(collected.down) == 2
    assert all("failed: simulated" in reason for reason in collected.down)


async def test_a_ledger_that_ends_by_a_bug_answers_those_too_whose_turn_had_not_come() -> None:
    """Nobody waits for ever: neither who was in the turn that broke, nor who was to be in later."""
    collected, asking = Collected(), 3 * CALLS_PER_TURN
    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        async with (
            running(open_journal(SimulatedDisk(), []), InlineSyncer()) as desk,
            trio.open_nursery() as nursery,
        ):
            for _ in range(asking):
                nursery.start_soon(collected.reserve, desk)
            nursery.start_soon(ask_nonsense, desk)
    assert len(collected.down) + len(collected.reservations) == asking


async def ask_nonsense(desk: Desk) -> None:
    with pytest.raises(LedgerDown, match="internal error"):
        await desk.reserve((KEY, KEY), bound(1), request_id="twice the same scope")


async def test_who_is_cancelled_after_the_ledger_has_decided_still_hears_of_the_grant() -> None:
    """It is durable by then; only who knows of it can give it back."""
    syncer = HeldSyncer()
    async with running(open_journal(SimulatedDisk()), syncer) as desk:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(release_after_a_cancellation, syncer, nursery.cancel_scope)
            async with await granted(desk) as reservation:
                with pytest.raises(trio.Cancelled):
                    await trio.lowlevel.checkpoint()
        assert reservation.charge is not None
        assert (await desk.totals(KEY)).reserved == 0


async def release_after_a_cancellation(syncer: HeldSyncer, scope: trio.CancelScope) -> None:
    await syncer.wait_held()
    scope.cancel()
    with trio.CancelScope(shield=True):
        await wait_all_tasks_blocked()
    syncer.release()
