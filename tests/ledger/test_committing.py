"""What waits for the disk, what does not, and what is synced when nobody waits."""

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from cortexd.ledger.entries import Cap
from cortexd.ledger.retention import DiskUse
from tests.ledger.simulated_disk import SimulatedDisk
from tests.ledger.workbench import (
    ACCOUNT,
    KEY,
    SCOPES,
    Collected,
    Count,
    HeldSyncer,
    InlineSyncer,
    completed,
    granted,
    newest,
    open_journal,
    pass_time,
    running,
    settings,
)


async def test_nothing_is_granted_before_the_sync_that_covers_it_is_back() -> None:
    syncer, collected = HeldSyncer(), Collected()
    async with running(open_journal(SimulatedDisk()), syncer) as desk:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collected.reserve, desk)
            await syncer.wait_held()
            await wait_all_tasks_blocked()
            assert collected.reservations == []
            syncer.release()
        assert len(collected.reservations) == 1


async def test_what_comes_during_a_sync_waits_for_the_next_one() -> None:
    """The sync under way was started before these entries were written: it says nothing of them."""
    syncer, collected = HeldSyncer(), Collected()
    async with running(open_journal(SimulatedDisk()), syncer) as desk:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collected.reserve, desk)
            await syncer.wait_held()
            nursery.start_soon(collected.reserve, desk)
            await wait_all_tasks_blocked()
            syncer.release()
            await syncer.wait_held()
            await wait_all_tasks_blocked()
            assert len(collected.reservations) == 1
            syncer.release()
        assert len(collected.reservations) == 2


async def test_refusals_settlements_and_questions_do_not_wait_for_a_hanging_disk() -> None:
    syncer, collected, disk = HeldSyncer(), Collected(), SimulatedDisk()
    async with running(open_journal(disk), syncer) as desk:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collected.reserve, desk, 500)
            await syncer.wait_held()
            syncer.release()
            await wait_all_tasks_blocked()
            nursery.start_soon(collected.reserve, desk, 100)
            await syncer.wait_held()
            with trio.fail_after(5):
                await collected.reserve(desk, 900)
                async with collected.reservations[0] as reservation:
                    reservation.dispatched = True
                    reservation.ending = completed(20, 1)
                standings = await desk.standings(SCOPES)
            assert len(collected.refused) == 1
            assert [(found.spent, found.reserved) for found in standings] == [(21, 100)] * 2
            written = disk.log.count("write")
            assert len(collected.reservations) == 1
            syncer.release()
        assert disk.log.count("write") == written + 1, "nothing was written during the sync"


async def test_many_reservations_at_once_share_a_few_syncs() -> None:
    count, collected = Count(), Collected()
    caps = [Cap(KEY, 10_000)]
    async with (
        running(open_journal(SimulatedDisk(), caps), None, count) as desk,
        trio.open_nursery() as nursery,
    ):
        for _ in range(600):
            nursery.start_soon(collected.reserve, desk)
    assert len(collected.reservations) == 600
    assert sum(count.batches) == count.commands == 600
    assert len(count.syncs) <= 20
    assert count.open == 600


async def test_a_settlement_nobody_waits_for_is_synced_soon(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whether the ledger has just been at work or has been asleep for long."""
    disk = SimulatedDisk()

    def survive_a_power_loss() -> int:
        return open_journal(disk.after_power_loss("nothing", seed=1)).accounts.open_reservations

    async with running(open_journal(disk), InlineSyncer()) as desk:
        for idle_seconds in (0, 0.03, 0.06, 100):
            async with await granted(desk):
                await pass_time(idle_seconds)
                syncs = disk.log.count("sync")
            assert disk.log.count("sync") == syncs
            assert survive_a_power_loss() == 1
            await pass_time(0.051)
            assert survive_a_power_loss() == 0


async def test_an_idle_ledger_marks_its_watermark_once_and_then_sleeps(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Without it the last entry has no witness in the file that it was durable."""
    disk = SimulatedDisk()
    journal = open_journal(disk)
    async with running(journal, InlineSyncer()) as desk:
        async with await granted(desk):
            pass
        await pass_time(1.2)
        assert b'"k":"mark"' in disk.read("seg-00000001.jsonl").splitlines()[-1]
        operations = disk.operations
        await pass_time(10_000)
        assert disk.operations == operations


async def test_a_settlement_above_the_reservation_is_durable_before_it_is_answered() -> None:
    """The only closing whose loss would charge too little."""
    syncer, collected = HeldSyncer(), Collected()
    journal = open_journal(SimulatedDisk())
    async with running(journal, syncer) as desk:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collected.reserve, desk)
            await syncer.wait_held()
            syncer.release()
            await wait_all_tasks_blocked()
            (reservation,) = collected.reservations

            async def settle() -> None:
                async with reservation:
                    reservation.dispatched = True
                    reservation.ending = completed(10, 5)

            nursery.start_soon(settle)
            await syncer.wait_held()
            await wait_all_tasks_blocked()
            assert reservation.charge is None
            assert journal.durable < journal.written
            syncer.release()
        assert reservation.charge is not None
        assert reservation.charge.overrun == 5


async def test_a_full_segment_is_replaced_while_calls_go_on() -> None:
    disk, count = SimulatedDisk(), Count()
    journal = open_journal(disk, [], chosen=settings(segment_bytes_max=4_000))
    async with running(journal, None, count) as desk:
        for _ in range(60):
            async with await granted(desk) as reservation:
                reservation.dispatched = True
                reservation.ending = completed(3, 1)
    names = [name for name in disk.names() if name.startswith("seg-")]
    assert len(names) >= 4
    assert count.use == journal.disk_use()
    assert count.use.segments == len(names)
    again = open_journal(disk.after_power_loss("nothing", seed=1))
    assert again.accounts.lifetime(ACCOUNT).tokens == 240
    assert again.accounts.open_reservations == 0


async def test_what_the_journal_takes_is_told_at_once_and_with_every_sync() -> None:
    disk, count = SimulatedDisk(), Count()
    disk.free = 5 << 30
    async with running(open_journal(disk), InlineSyncer(), count) as desk:
        assert count.use == DiskUse(1, len(newest(disk)), 5 << 30)
        async with await granted(desk):
            assert count.use == DiskUse(1, len(newest(disk)), 5 << 30)


async def test_a_slow_sync_is_reported_once_while_it_is_under_way(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    syncer, collected = HeldSyncer(), Collected()
    async with (
        running(open_journal(SimulatedDisk()), syncer) as desk,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(collected.reserve, desk)
        await pass_time(0.99)
        assert caplog.messages == []
        await pass_time(9)
        (line,) = caplog.messages
        assert line.startswith("event=ledger_slow_sync waiting_seconds=1.0 calls=1 ")
        syncer.release()
