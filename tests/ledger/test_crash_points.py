"""Every disk operation of a workload, failed in every way a power loss or a kill can fail it."""

import contextlib
import random
from collections.abc import Sequence

import msgspec
import pytest

from cortexd.ledger.accounts import Accounts
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import Entry, ReservationId, Snapshot
from cortexd.ledger.journal import Journal, JournalFailed, LedgerProblem
from cortexd.ledger.segment import segment_name, segment_numbers
from tests.ledger.simulated_disk import Crash, Fault, PowerLoss, SimulatedDisk
from tests.ledger.workbench import (
    ACCOUNT,
    CAPS,
    SCOPES,
    HandClock,
    open_journal,
    read_segment,
    settings,
)

WAYS: tuple[PowerLoss | None, ...] = (None, "nothing", "everything", "prefix", "subset", "subset")

States = dict[int, Snapshot]


def newest_segment(disk: SimulatedDisk) -> bytes:
    return disk.read(segment_name(segment_numbers(disk.names())[-1]))


def start_of_newest(disk: SimulatedDisk) -> tuple[int, Snapshot]:
    """The number and the state with which the newest segment begins: what was recovered."""
    head = b"\n".join(newest_segment(disk).split(b"\n", 2)[:2])
    n, snapshot, _ = read_segment(head)
    return n, snapshot


def states_in_newest(disk: SimulatedDisk) -> States:
    """State after each entry number, read from the newest segment as a bystander would."""
    n, snapshot, entries = read_segment(newest_segment(disk))
    states = {n: snapshot}
    accounts = Accounts.load(snapshot)
    for number, entry in entries:
        accounts.apply(entry)
        states[number] = accounts.dump()
    return states


class Workload:
    """One seed's life of a ledger; remembers every state it went through, and every image."""

    def __init__(self, seed: int, *, fault: bool) -> None:
        self.random = random.Random(seed)
        self.disk = SimulatedDisk(seed)
        self.clock = HandClock()
        self.settings = settings(segment_bytes_max=self.random.choice((600, 3_000, 1 << 20)))
        self.states: States = {0: Accounts().dump()}
        self.durable = 0
        self.images: list[tuple[SimulatedDisk, int]] = []
        self.disk.on_operation = lambda _: self.photograph()
        if fault:
            faults: tuple[Fault, ...] = ("EIO", "ENOSPC", "short")
            self.disk.faults = {self.random.randrange(4, 40): self.random.choice(faults)}

    def photograph(self) -> None:
        for way in WAYS:
            seed = self.random.getrandbits(32)
            image = self.disk.after_power_loss(way, seed) if way else self.disk.after_kill(seed)
            self.images.append((image, self.durable))

    def run(self, turns: int) -> None:
        # A disk that fails ends the workload, while it is open or while it is being opened.
        with contextlib.suppress(JournalFailed, LedgerProblem):
            for _ in range(2):
                journal = open_journal(self.disk, CAPS, self.clock.sources(), self.settings)
                self.states.update(states_in_newest(self.disk))
                self.durable = journal.durable
                for _ in range(turns):
                    self.turn(journal)
                self.clock.now_ms += 1_000
        if segment_numbers(self.disk.names()):
            self.states = {**states_in_newest(self.disk), **self.states}
        self.photograph()

    def turn(self, journal: Journal) -> None:
        accounts = journal.accounts
        self.clock.now_ms += self.random.choice((0, 1, 500, 20_000, 40_000))
        batch: list[Entry] = []
        for _ in range(self.random.choice((1, 1, 2, 6))):
            for entry in self.decide(accounts):
                accounts.apply(entry)
                batch.append(entry)
                self.states[journal.written + len(batch)] = accounts.dump()
        if batch:
            journal.append(batch)
        if self.random.random() < 0.6:
            journal.sync()
        if journal.roll_is_due():
            journal.prepare_roll()()
        self.durable = journal.durable

    def decide(self, accounts: Accounts) -> Sequence[Entry]:
        now_ms = self.clock.now_ms
        held = accounts.reservations()
        choice = self.random.random()
        if choice < 0.5 or not held:
            scopes = SCOPES if choice < 0.4 else (ACCOUNT,)
            tokens = self.random.randrange(400)
            return accounts.reserve(now_ms, scopes, tokens, request_id="req-1")[0]
        if choice < 0.9:
            found = self.random.choice(held)
            if found.ghost_until_ms is None:
                spent = self.random.randrange(found.tokens + 1)
                charge = Charge(spent, 0, spent, "settle", 0)
                return accounts.settle(now_ms, ReservationId(found.reservation_id), charge)[0]
        return (*accounts.tick(now_ms), *accounts.learn(now_ms, "m", self.random.randrange(99)))


def check(image: SimulatedDisk, durable: int, states: States, clock: HandClock) -> None:
    journal = open_journal(image, CAPS, clock.sources())
    n, recovered = start_of_newest(image)
    assert n >= durable, f"entry {durable} was durable, only {n} came back"
    assert recovered == states[n], f"not the state after entry {n}"
    journal.accounts.check()
    assert not [r for r in journal.accounts.reservations() if r.ghost_until_ms is None]
    deadlines = {r.reservation_id: r.ghost_until_ms for r in recovered.holds}
    for found in journal.accounts.reservations():
        before = deadlines[found.reservation_id]
        assert before is None or found.ghost_until_ms == before, "a ghost got a second grace"


def check_with_crash_in_recovery(
    image: SimulatedDisk, durable: int, states: States, clock: HandClock, source: random.Random
) -> None:
    image.crash_at = image.operations + source.randrange(1, 9)
    with contextlib.suppress(Crash):
        open_journal(image, CAPS, clock.sources())
    first = states_in_newest(image) if segment_numbers(image.names()) else {}
    way: PowerLoss = source.choice(("nothing", "prefix", "subset"))
    second = image.after_power_loss(way, source.getrandbits(32))
    second_clock = msgspec.structs.replace(clock.sources(), boot_id="boot-2")
    open_journal(second, CAPS, second_clock)
    n, recovered = start_of_newest(second)
    assert n >= durable
    assert recovered in (states.get(n), first.get(n)), f"not the state after entry {n}"


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "seeds"), [(False, 5), (True, 8)])
def test_no_crash_loses_what_was_durable_or_makes_up_what_was_not(fault: bool, seeds: int) -> None:
    """After any crash the ledger starts without help, in the state after some prefix of its
    entries that holds every durable one, with every open reservation a ghost."""
    points = 0
    for seed in range(seeds):
        workload = Workload(seed, fault=fault)
        workload.run(turns=10)
        for image, durable in workload.images:
            points += 1
            try:
                if workload.random.random() < 0.2:
                    check_with_crash_in_recovery(
                        image, durable, workload.states, workload.clock, workload.random
                    )
                else:
                    check(image, durable, workload.states, workload.clock)
            except Exception as error:
                raise AssertionError(f"seed {seed}, point {points}, fault {fault}") from error
    assert points > 2_000
