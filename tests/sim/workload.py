"""One seed's life of a ledger, as other layers crash it or let it rot.

Two lives of a journal with reservations, settlements, ghosts and rolls. It remembers the state of
the books after every entry, and up to which of them the journal said that they are durable.
"""

import contextlib
import random
from collections.abc import Sequence

from cortexd.ledger.accounts import Accounts
from cortexd.ledger.cap_windows import HELD, calendar, fixed, rolling
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import Cap, Entry
from cortexd.ledger.journal import Journal, JournalFailed, JournalSettings, LedgerProblem
from cortexd.ledger.retention import Retention
from tests.ledger.simulated_disk import SimulatedDisk
from tests.ledger.workbench import ACCOUNT, CAPS, KEY, SCOPES
from tests.sim.host import Host, salts
from tests.sim.image import States, states_in_newest

WORKLOAD_CAPS = (
    *CAPS,
    Cap(ACCOUNT, 2_000, fixed(60_000)),
    Cap(KEY, 50_000, calendar("day", "Europe/Berlin")),
    Cap(KEY, 9, rolling(60_000), "req"),
    Cap(KEY, 5, HELD, "con"),
)


class Workload:
    """`states`: after each entry number. `durable`: number of the last acknowledged entry."""

    def __init__(self, seed: int, layer: str, *, segment_bytes: Sequence[int]) -> None:
        self.random = random.Random(f"{layer} {seed}")
        self.disk = SimulatedDisk(seed)
        self.host = Host()
        self.settings = JournalSettings(
            segment_bytes_max=self.random.choice(segment_bytes),
            retention=Retention(0, self.random.choice((0, 1, 4_000))),
            new_salt=salts(self.random),
        )
        self.states: States = {0: Accounts().dump()}
        self.durable = 0

    def run(self, turns: int) -> None:
        """Live twice. A disk that fails ends it, while it is open or while it is being opened."""
        with contextlib.suppress(JournalFailed, LedgerProblem):
            for _ in range(2):
                journal = self.open(self.disk)
                self.states.update(states_in_newest(self.disk))
                self.durable = journal.durable
                for _ in range(turns):
                    self.turn(journal)
                journal.sync()
                self.durable = journal.durable
                self.host.true_ms += 1_000

    def open(self, disk: SimulatedDisk) -> Journal:
        return Journal.recover(disk, WORKLOAD_CAPS, self.host.sources(), self.settings)

    def turn(self, journal: Journal) -> None:
        accounts = journal.accounts
        self.host.true_ms += self.random.choice((0, 1, 500, 20_000, 40_000))
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
        now_ms = self.host.true_ms
        owned = [each for each in accounts.reservations() if each.ghost_until_ms is None]
        choice = self.random.random()
        if choice < 0.5 or not owned:
            scopes = SCOPES if choice < 0.4 else (ACCOUNT,)
            tokens = self.random.randrange(400)
            return accounts.reserve(now_ms, scopes, tokens, request_id="req-1")[0]
        if choice < 0.9:
            found = self.random.choice(owned)
            spent = self.random.randrange(found.tokens + 1)
            cost = Charge(spent, 0, spent, "settle", 0)
            return accounts.settle(now_ms, found.reservation_id, cost)[0]
        if choice < 0.95:
            return (*accounts.mark(now_ms), *accounts.roll(now_ms, now_ms))
        return (*accounts.tick(now_ms), *accounts.learn(now_ms, "m", self.random.randrange(99)))
