"""The real ledger task and desk under a virtual clock, with clients that are cut off anywhere.

Syncs take their time, clients are cancelled while they wait for them, in the very tick in which one
comes back, or mid-answer, and some disks fail. At random operations of the disk the process or the
machine ends, and the next process must find everything that neurons have really consumed. When all
clients are gone, no reservation is left.
"""

import random
from collections import Counter

import trio
import trio.testing

from cortexd.ledger.cap_windows import HELD, rolling
from cortexd.ledger.desk import Desk, LedgerDown, Reservation
from cortexd.ledger.entries import Cap, Refused, Scope, account_scope, key_scope
from cortexd.ledger.journal import Journal, JournalFailed, JournalSettings
from tests.ledger.simulated_disk import Fault, SimulatedDisk
from tests.ledger.workbench import Count, LateSyncer, pass_time, running, trio_clock
from tests.sim.checks import check_books, check_idle
from tests.sim.fleet import Work
from tests.sim.host import salts
from tests.sim.image import WAYS, after_crash
from tests.sim.judge import Consumption, judge

CLIENTS = 60
KEY, OTHER_KEY, ACCOUNT = key_scope("ci"), key_scope("other"), account_scope("acme")
FAULTS: tuple[Fault, ...] = ("EIO", "EIO", "ENOSPC", "short")


def run(seed: int) -> Counter[str]:
    """One run of the ledger task, from the first client to the last. Counts what happened."""
    _make_scheduling_repeat(seed)
    storm = _Storm(seed)
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(storm.run, clock=clock)
    return storm.tally


def _make_scheduling_repeat(seed: int) -> None:
    """Let Trio shuffle its tasks by the seed: its own way, meant for Hypothesis, not public."""
    scheduler = vars(trio._core._run)
    scheduler["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
    scheduler["_r"].seed(seed)


class _Storm:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"tasks {seed}")
        self.tally: Counter[str] = Counter()
        self.disk = SimulatedDisk(seed)
        self.settings = JournalSettings(
            segment_bytes_max=self.random.choice((2_000, 20_000, 1 << 20)),
            new_salt=salts(self.random),
        )
        self.caps = [
            Cap(KEY, self.random.choice((600, 2_000)), rolling(2_000)),
            Cap(OTHER_KEY, 4_000),
            Cap(ACCOUNT, 100_000, rolling(5_000)),
            Cap(OTHER_KEY, 3, HELD, "con"),
            Cap(KEY, 12, rolling(1_000), "req"),
        ]
        self.consumed: list[Consumption] = []
        self.waiting: dict[int, trio.CancelScope] = {}
        self.crash_share = 0.0
        self.slow = self.random.choice((0.0001, 0.01, 0.2))

    async def run(self) -> None:
        journal = self.open(self.disk)
        self.disk.on_operation = self.crash_here
        self.crash_share = 0.15
        if self.random.random() < 0.3:
            at = self.disk.operations + self.random.randrange(1, 90)
            self.disk.faults = {at: self.random.choice(FAULTS)}
        try:
            await self.storm(journal)
        except* JournalFailed:
            self.tally["failed disks"] += 1
            self.check_image(self.disk.after_kill(seed=1))
        else:
            assert journal.durable == journal.written
            check_idle(journal.accounts)
        check_books(journal.accounts)
        judge(self.consumed)
        self.tally["dispatched"] += len(self.consumed)

    def open(self, disk: SimulatedDisk) -> Journal:
        return Journal.recover(disk, self.caps, trio_clock(), self.settings)

    async def storm(self, journal: Journal) -> None:
        async with trio.open_nursery() as disks:
            syncer = LateSyncer(disks, lambda: self.random.random() * self.slow)
            syncer.on_done = self.cancel_one
            async with running(journal, syncer, Count()) as desk, trio.open_nursery() as clients:
                for number in range(CLIENTS):
                    clients.start_soon(self.client, desk, number)

    def cancel_one(self) -> None:
        """Called in the tick in which a sync comes back."""
        if self.waiting and self.random.random() < 0.5:
            next(iter(self.waiting.values())).cancel()

    async def client(self, desk: Desk, number: int) -> None:
        await pass_time(self.random.random() * 5)
        with trio.CancelScope() as scope:
            if self.random.random() < 0.3:
                patience = self.random.random() * self.random.choice((0.001, 0.1, 2))
                scope.deadline = trio.current_time() + patience
            self.waiting[number] = scope
            try:
                await self.request(desk, number)
            except LedgerDown:
                self.tally["ledger down"] += 1
            finally:
                self.waiting.pop(number, None)
        self.tally["cancelled"] += scope.cancelled_caught

    async def request(self, desk: Desk, number: int) -> None:
        work = Work(self.random, 300)
        scopes = self.random.choice(((KEY, ACCOUNT), (OTHER_KEY, ACCOUNT)))
        self.tally["requests"] += 1
        answer = await desk.reserve(scopes, work.bound, request_id=f"r{number}")
        if isinstance(answer, Refused):
            self.tally["refused"] += 1
            return
        async with answer as reservation:
            if self.random.random() < 0.5:
                await trio.lowlevel.checkpoint()
            self.waiting.pop(number, None)
            if work.dispatched:
                await self.serve(reservation, scopes, work)

    async def serve(self, reservation: Reservation, scopes: tuple[Scope, ...], work: Work) -> None:
        """Dispatch, and consume until the answer or until this is cancelled."""
        self.check_durable(reservation)
        reservation.dispatched = True
        consumption = Consumption(scopes, self.caps, now_ms(), work.tokens)
        self.consumed.append(consumption)
        try:
            await pass_time(self.random.random() * 2)
            reservation.ending = work.ending
        finally:
            consumption.end_ms = now_ms()

    def check_durable(self, reservation: Reservation) -> None:
        """The one promise before a neuron hears of it: no power loss takes it back."""
        if self.random.random() < 0.3:
            number = reservation._reservation_id
            journal = self.open(self.disk.after_power_loss("nothing", seed=0))
            found = {each.reservation_id for each in journal.accounts.reservations()}
            assert number in found, "dispatched before its reservation was durable"

    # crashes

    def crash_here(self, operation: str) -> None:
        if self.random.random() < self.crash_share:
            way = self.random.choice(WAYS)
            self.check_image(after_crash(self.disk, way, self.random.getrandbits(32)))

    def check_image(self, image: SimulatedDisk) -> None:
        """The next process counts at least what was consumed, cap by cap."""
        self.tally["points"] += 1
        accounts = self.open(image).accounts
        check_books(accounts)
        for scope in (KEY, OTHER_KEY, ACCOUNT):
            totals = accounts.totals(scope)
            consumed = sum(each.tokens for each in self.consumed if scope in each.scopes)
            counted = totals.spent + totals.reserved
            assert counted >= consumed, f"{scope}: {consumed} consumed, {counted} in the books"


def now_ms() -> int:
    """True time, which is Trio's here."""
    return trio_clock().boottime_ms()
