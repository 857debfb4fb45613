"""Every disk operation of a workload is a crash point, in every way a process or a machine ends.

A workload is two lives of a journal with small segments, so that crashes fall into recovery, rolls
and snapshots too. Some disks fail or fill up on the way, and of some the history goes for
room. After each crash the next process either opens the ledger, or crashes or fails while it does
and leaves that to the one after it.
"""

import random
from collections import Counter

from cortexd.ledger.entries import ANONYMOUS, Granted
from cortexd.ledger.journal import Journal, LedgerProblem
from tests.ledger.simulated_disk import Crash, Fault, PowerLoss, SimulatedDisk
from tests.ledger.workbench import ACCOUNT, KEY
from tests.sim.checks import check_books
from tests.sim.image import (
    WAYS,
    States,
    after_crash,
    check_kind,
    check_prefix,
    newest,
    start_of_newest,
    states_in_newest,
)
from tests.sim.workload import Workload

TURNS = 10
FAULTS: tuple[Fault, ...] = ("EIO", "ENOSPC", "short")


def run(seed: int) -> Counter[str]:
    """One workload, crashed everywhere. Counts what was tried."""
    points = _Points(seed)
    points.run(TURNS)
    points.crash_here()
    return points.tally


class _Points(Workload):
    def __init__(self, seed: int) -> None:
        super().__init__(seed, "points", segment_bytes=(900, 3_000, 1 << 20))
        self.tally: Counter[str] = Counter()
        self.disk.on_operation = lambda _: self.crash_here()
        trouble = self.random.random()
        if trouble < 0.4:
            self.disk.faults = {self.random.randrange(4, 50): self.random.choice(FAULTS)}
        elif trouble < 0.5:
            self.disk.room_bytes = self.random.randrange(6_000)
        if random.Random(f"history for room {seed}").random() < 0.3:
            self.disk.free = self.settings.room_bytes_min - 1  # so that each sync takes history

    def crash_here(self) -> None:
        """Called before each operation takes effect: end here in every way."""
        for way in WAYS:
            seed = self.random.getrandbits(32)
            choice = self.random.random()
            if choice < 0.85:
                self.tally["points"] += 1
                self.check(after_crash(self.disk, way, seed), way)
            elif choice < 0.98:
                self.recovery_ends_early(after_crash(self.disk, way, seed), way)
            else:
                self.every_operation_of_recovery(way, seed)

    def check(self, image: SimulatedDisk, way: PowerLoss | None, *also: States) -> None:
        """The next process opens the ledger, finds a prefix, owns nothing, and serves."""
        self.host.boots += way is not None
        journal = self.open(image)
        n, recovered = start_of_newest(image)
        if n not in self.states:  # written by the journal itself, while it was being opened
            also = (*also, states_in_newest(self.disk))
        check_prefix(n, recovered, self.durable, self.states, *also)
        journal.accounts.check()
        deadlines = {each.reservation_id: each.ghost_until_ms for each in recovered.holds}
        for found in journal.accounts.reservations():
            before = deadlines[found.reservation_id]
            assert found.ghost_until_ms is not None, "a reservation that nobody owns"
            assert before in (None, found.ghost_until_ms), "a ghost got a second grace"
        assert {s.scope for s in journal.accounts.standings((KEY, ACCOUNT), 0)} == {KEY, ACCOUNT}
        if self.random.random() < 0.05:
            check_books(journal.accounts)
            self.serves(journal)

    def serves(self, journal: Journal) -> None:
        """After the faults there is a life: the ledger still takes and keeps a reservation."""
        entries, answer = journal.accounts.reserve(journal.clock.now_ms(), (ANONYMOUS,), 1)
        assert isinstance(answer, Granted)
        journal.accounts.apply(entries[0])
        journal.append(entries)
        journal.sync()
        journal.prepare_roll()()
        assert journal.durable == journal.written
        self.tally["lives after it"] += 1

    def recovery_ends_early(self, image: SimulatedDisk, way: PowerLoss | None) -> None:
        """The next process crashes, or its disk fails, while it opens the ledger."""
        at = image.operations + self.random.randrange(1, 11)
        match self.random.choice(("crash", "crash", "fault", "full", "read-only")):
            case "crash":
                image.crash_at = at
            case "fault":
                image.faults = {at: self.random.choice(FAULTS)}
            case "full":
                image.room_bytes = self.random.randrange(3_000)
            case _:
                image.is_read_only = True
        self.second_crash(image, way)

    def every_operation_of_recovery(self, way: PowerLoss | None, seed: int) -> None:
        """The same image, with a crash at one operation of its recovery after the other."""
        step = 0
        is_over = False
        while not is_over:
            step += 1
            image = after_crash(self.disk, way, seed)
            image.crash_at = image.operations + step
            is_over = self.second_crash(image, way)

    def second_crash(self, image: SimulatedDisk, way: PowerLoss | None) -> bool:
        """Open, which something prevents or not, and crash again; whether nothing prevented it."""
        self.tally["points"] += 1
        self.tally["crashes in recovery"] += 1
        self.host.boots += way is not None
        before = newest(image)
        is_open = False
        try:
            self.open(image)
            is_open = True
        except Crash:
            pass
        except LedgerProblem as problem:
            check_kind(problem, "unusable")
        if image.is_read_only:
            assert not is_open, "opened where nothing can be written"
            assert newest(image) == before
        image.is_read_only = False
        image.room_bytes = None
        first = states_in_newest(image)
        again: PowerLoss | None = self.random.choice(WAYS)
        second = after_crash(image, again, self.random.getrandbits(32))
        self.tally["points"] += 1
        self.check(second, again, first)
        return is_open
