"""The ledger task: what is answered when, what a failing disk does, and that nothing is leaked."""

import random
from collections import Counter
from functools import partial

import msgspec
import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from cortexd.ledger.calls import LedgerDown
from cortexd.ledger.cap_windows import rolling
from cortexd.ledger.desk import Desk
from cortexd.ledger.entries import Cap, CloseEntry, Refused
from cortexd.ledger.inbox import Inbox
from cortexd.ledger.journal import Journal, JournalFailed
from cortexd.ledger.sync_thread import Syncer
from cortexd.ledger.task import LOOK_AGAIN_SECONDS, LOOK_FOR_ROOM_SECONDS, run_ledger
from tests.ledger.simulated_disk import SimulatedDisk
from tests.ledger.workbench import (
    ACCOUNT,
    CAPS,
    KEY,
    SCOPES,
    Collected,
    Count,
    HandClock,
    HeldSyncer,
    InlineSyncer,
    LateSyncer,
    bound,
    completed,
    granted,
    newest,
    open_journal,
    pass_time,
    read_segment,
    running,
    settings,
    standing_of,
    trio_clock,
)


async def test_two_hundred_at_once_never_get_more_than_the_cap() -> None:
    collected = Collected()
    journal = open_journal(SimulatedDisk(), [Cap(KEY, 100)])
    async with running(journal) as desk, trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(collected.reserve, desk, 15)
    assert len(collected.reservations) == 6
    assert len(collected.refused) == 194


async def test_a_ghost_is_charged_in_full_when_its_grace_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk, count = SimulatedDisk(), Count()
    async with running(open_journal(disk, times=trio_clock()), InlineSyncer()) as desk:
        await granted(desk, 70)
    journal = open_journal(disk, times=trio_clock(), chosen=settings(grace_ms=3_000))
    async with running(journal, InlineSyncer(), count) as desk:
        assert (count.open, count.unresolved_tokens) == (1, 70)
        await pass_time(2.9)
        assert (await desk.standings((KEY,)))[0].reserved == 70
        await pass_time(0.2)
        assert (count.open, count.unresolved_tokens) == (0, 0)
        (standing,) = await desk.standings((KEY,))
        assert (standing.spent, standing.reserved) == (70, 0)
    assert count.ghosts == [(SCOPES, 70)]
    assert [(e.a, e.y) for _, e in read_segment(newest(disk))[2] if isinstance(e, CloseEntry)] == [
        (70, "crash")
    ]
    assert journal.durable == journal.written


async def test_the_end_is_a_final_sync_and_a_clean_restart_has_no_ghosts() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    async with running(journal) as desk, await granted(desk) as reservation:
        reservation.dispatched = True
        reservation.ending = completed(4, 2)
    assert journal.durable == journal.written
    again = open_journal(disk.after_power_loss("nothing", seed=1))
    assert again.accounts.open_reservations == 0
    standing = standing_of(again.accounts, KEY, again.clock.now_ms())
    assert standing is not None
    assert standing.spent == 6


async def test_the_end_answers_calls_that_were_taken_before_it() -> None:
    syncer, collected = HeldSyncer(), Collected()
    async with (
        trio.open_nursery() as nursery,
        running(open_journal(SimulatedDisk()), syncer) as desk,
    ):
        nursery.start_soon(collected.reserve, desk)
        await syncer.wait_held()
        await desk.aclose()
        await wait_all_tasks_blocked()
        assert collected.reservations == []
        syncer.release()
    assert len(collected.reservations) == 1


async def test_cancelling_the_daemon_does_not_end_the_ledger_before_its_senders() -> None:
    journal = open_journal(SimulatedDisk())
    inbox = Inbox()
    desk = Desk(inbox, journal.accounts.template_tokens)
    async with trio.open_nursery() as nursery:
        await nursery.start(run_ledger, journal, inbox, Count(), InlineSyncer())
        async with await granted(desk) as reservation:
            nursery.cancel_scope.cancel()
            reservation.dispatched = True
        assert reservation.charge is not None
        assert reservation.charge.why == "unknown"
        await desk.aclose()
    assert journal.durable == journal.written
    assert journal.accounts.open_reservations == 0


@pytest.mark.parametrize("kind", ["write", "sync"])
async def test_a_failing_disk_answers_everybody_and_ends_the_task(kind: str) -> None:
    disk, syncer, collected = SimulatedDisk(), HeldSyncer(), Collected()
    journal = open_journal(disk)
    with pytest.RaisesGroup(JournalFailed, flatten_subgroups=True):
        async with running(journal, syncer) as desk, trio.open_nursery() as nursery:
            nursery.start_soon(collected.reserve, desk)
            await syncer.wait_held()
            for _ in range(5):
                nursery.start_soon(collected.reserve, desk)
            await wait_all_tasks_blocked()
            disk.faults = {disk.operations + (1 if kind == "sync" else 3): "EIO"}
            syncer.release()
    first = 0 if kind == "sync" else 1
    assert len(collected.reservations) == first
    assert len(collected.down) == 6 - first
    assert all("failed: simulated" in reason for reason in collected.down)


async def test_after_a_failure_the_desk_says_so_and_leaving_a_reservation_raises_nothing() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    inbox = Inbox()
    desk = Desk(inbox, journal.accounts.template_tokens)
    with pytest.RaisesGroup(JournalFailed, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await nursery.start(run_ledger, journal, inbox, Count(), InlineSyncer())
            reservation = await granted(desk)
            disk.faults = {disk.operations + 1: "EIO"}
            with pytest.raises(LedgerDown):
                await desk.reserve(SCOPES, bound(1), request_id="r")
    async with reservation:
        reservation.dispatched = True
    assert reservation.charge is None
    with pytest.raises(LedgerDown, match="closed"):
        await desk.standings(SCOPES)
    again = open_journal(disk)
    assert again.accounts.open_reservations >= 1


async def test_a_bug_in_the_ledger_answers_everybody_too() -> None:
    syncer, collected = HeldSyncer(), Collected()
    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        async with (
            running(open_journal(SimulatedDisk()), syncer) as desk,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(collected.reserve, desk)
            await syncer.wait_held()
            nursery.start_soon(release_when_blocked, syncer)
            with pytest.raises(LedgerDown, match="internal error"):
                await desk.reserve((KEY, KEY), bound(1), request_id="twice the same scope")
    assert collected.down == ["the ledger stopped after an internal error"]


async def test_the_task_does_not_end_while_the_sync_thread_uses_the_journal() -> None:
    """Its caller closes the files next; their numbers would then belong to somebody else."""
    journal, syncer, collected = open_journal(SimulatedDisk()), HeldSyncer(), Collected()
    inbox = Inbox()
    desk = Desk(inbox, journal.accounts.template_tokens)
    ended = trio.Event()

    async def run_until_it_breaks() -> None:
        with pytest.raises(ValueError, match="scopes"):
            await run_ledger(journal, inbox, Count(), syncer)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_until_it_breaks)
        nursery.start_soon(collected.reserve, desk)
        await syncer.wait_held()
        with pytest.raises(LedgerDown):
            await desk.reserve((KEY, KEY), bound(1), request_id="twice the same scope")
        await wait_all_tasks_blocked()
        assert not ended.is_set()
        syncer.release()
        await ended.wait()


async def release_when_blocked(syncer: HeldSyncer) -> None:
    await wait_all_tasks_blocked()
    syncer.release()


async def test_a_nearly_full_disk_takes_settlements_but_no_reservations() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    async with running(open_journal(disk, times=clock.sources()), InlineSyncer()) as desk:
        reservation = await granted(desk)
        disk.free = 1_000
        clock.now_ms += 1_000
        with pytest.raises(LedgerDown, match="nearly full"):
            await desk.reserve(SCOPES, bound(1), request_id="r")
        async with reservation:
            pass
        assert (await desk.standings((KEY,)))[0].reserved == 0


async def test_a_disk_that_fills_up_while_nobody_calls_is_noticed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """So that /health tells the truth, and the first request is refused, not the last straw."""
    disk, count = SimulatedDisk(), Count()
    journal = open_journal(disk, times=trio_clock())
    async with running(journal, InlineSyncer(), count):
        disk.free = 1_000
        await pass_time(LOOK_FOR_ROOM_SECONDS + 0.1)
        assert [journal.condition] == ["low_on_room"]
        assert count.use is not None
        assert count.use.free_bytes == 1_000
        disk.free = 1 << 40
        await pass_time(LOOK_AGAIN_SECONDS + 0.1)
        assert [journal.condition] == ["ok"]


async def test_a_clock_that_is_set_right_while_nobody_calls_makes_no_window_forget_at_a_reboot(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The machine's own clock was five hours behind until a time server was found."""
    disk, ahead_ms, hour_ms = SimulatedDisk(), -5 * 3_600_000, 3_600_000
    usual = trio_clock()
    behind = msgspec.structs.replace(usual, wall_ms=lambda: usual.wall_ms() + ahead_ms)
    caps = [Cap(KEY, 1000, rolling(hour_ms))]
    async with running(open_journal(disk, caps, times=behind), InlineSyncer()) as desk:
        async with await granted(desk) as held:
            held.dispatched = True
        spent = (await desk.standings((KEY,)))[0].spent
        await pass_time(2)
        ahead_ms = 0
        await pass_time(LOOK_FOR_ROOM_SECONDS + 0.1)
    rebooted = msgspec.structs.replace(usual, boot_id="another boot")
    again = open_journal(disk, caps, times=rebooted)
    assert again.clock.downtime_ms < 10_000
    standing = standing_of(again.accounts, KEY, again.clock.now_ms())
    assert standing is not None
    assert standing.spent == spent > 0


async def test_what_was_learned_is_known_at_once_and_after_a_restart() -> None:
    disk = SimulatedDisk()
    async with running(open_journal(disk), InlineSyncer()) as desk:
        assert desk.template_tokens("Qwen/Qwen3-8B") == 0
        await desk.learn("Qwen/Qwen3-8B", 9)
        await desk.learn("Qwen/Qwen3-8B", 4)
        assert desk.template_tokens("Qwen/Qwen3-8B") == 9
    async with running(open_journal(disk), InlineSyncer()) as desk:
        assert desk.template_tokens("Qwen/Qwen3-8B") == 9


class Storm:
    """Clients that come, are cancelled at any moment, or stay; on a virtual clock."""

    def __init__(self, seed: int, journal: Journal) -> None:
        self.random = random.Random(seed)
        self.journal = journal
        self.waiting: dict[int, trio.CancelScope] = {}
        self.outcomes: Counter[str] = Counter()

    def sync_seconds(self) -> float:
        return self.random.choice((0.0001, 0.001, 0.02, 0.2))

    def cancel_one(self) -> None:
        """Called in the tick in which a sync comes back."""
        if self.waiting and self.random.random() < 0.5:
            next(iter(self.waiting.values())).cancel()

    async def client(self, desk: Desk, number: int) -> None:
        await pass_time(self.random.random() * 20)
        with trio.CancelScope() as scope:
            if self.random.random() < 0.3:
                scope.deadline = trio.current_time() + self.random.random() * self.random.choice(
                    (0.001, 0.1, 3)
                )
            self.waiting[number] = scope
            try:
                await self.request(desk, number)
            finally:
                self.waiting.pop(number, None)
        self.outcomes["cancelled" if scope.cancelled_caught else "done"] += 1

    async def request(self, desk: Desk, number: int) -> None:
        tokens = self.random.randrange(1, 60)
        answer = await desk.reserve(SCOPES, bound(0, tokens), request_id=f"r{number}")
        if isinstance(answer, Refused):
            self.outcomes["refused"] += 1
            return
        async with answer as reservation:
            self.waiting.pop(number)
            mine = [
                r for r in self.journal.accounts.reservations() if r.request_label == f"r{number}"
            ]
            assert len(mine) == 1, "granted, but not in the books"
            reservation.dispatched = True
            self.outcomes["granted"] += 1
            await pass_time(self.random.random() * 2)
            reservation.ending = completed(1, max(1, tokens - 1))


@pytest.mark.parametrize("seed", range(4))
async def test_no_reservation_is_left_behind_however_its_client_ends(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    caps = [Cap(KEY, 2_000, rolling(2_000)), Cap(ACCOUNT, 1_000_000)]
    journal = open_journal(SimulatedDisk(seed), caps, trio_clock())
    storm = Storm(seed, journal)
    async with trio.open_nursery() as disks:
        syncer = LateSyncer(disks, storm.sync_seconds)
        syncer.on_done = storm.cancel_one
        async with running(journal, syncer) as desk, trio.open_nursery() as clients:
            for number in range(400):
                clients.start_soon(storm.client, desk, number)
        assert journal.accounts.open_reservations == 0
    assert storm.outcomes["cancelled"] > 60
    assert storm.outcomes["granted"] > 60
    assert journal.durable == journal.written
    journal.accounts.check()


@pytest.mark.parametrize("steps", range(24))
async def test_a_client_cancelled_after_any_number_of_scheduler_steps_leaves_nothing(
    steps: int,
) -> None:
    """Cancellation is delivered at checkpoints; counting steps reaches every one of them."""
    journal = open_journal(SimulatedDisk())
    async with running(journal, InlineSyncer()) as desk:

        async def client(scope: trio.CancelScope) -> None:
            with scope:
                async with await granted(desk) as reservation:
                    await trio.lowlevel.checkpoint()
                    reservation.dispatched = True
                    await trio.lowlevel.checkpoint()
                    reservation.ending = completed(1, 1)

        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(client, scope)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            scope.cancel()
        assert (await desk.totals(KEY)).reserved == 0
        assert journal.accounts.open_reservations == 0


async def test_a_client_whose_call_was_not_taken_yet_is_cancelled_at_once() -> None:
    inbox = Inbox()
    desk = Desk(inbox, lambda model: 0)
    with trio.move_on_after(0) as scope:
        await desk.reserve(SCOPES, bound(1), request_id="r")
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(desk.reserve, SCOPES, bound(1), request_id="r"))
        await wait_all_tasks_blocked()
        assert not inbox.is_empty
        nursery.cancel_scope.cancel()
    assert inbox.take(9) == []


@pytest.mark.parametrize("syncer", [None, InlineSyncer()])
async def test_a_refused_call_changes_nothing_on_the_disk(syncer: Syncer | None) -> None:
    disk = SimulatedDisk()
    async with running(open_journal(disk, CAPS), syncer) as desk:
        operations = disk.operations
        answer = await desk.reserve(SCOPES, bound(1_001), request_id="r")
        assert isinstance(answer, Refused)
        assert answer.standing.scope == KEY
        assert disk.operations == operations
