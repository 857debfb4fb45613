"""A small ledger with a past, written by the real journal: rolls, a kill, ghosts, a torn tail."""

from cortexd.ledger.charging import Charge
from cortexd.ledger.clock import TimeSources
from cortexd.ledger.disk import Disk
from cortexd.ledger.entries import Entry, ReservationId
from cortexd.ledger.journal import Journal
from cortexd.ledger.segment import segment_name, segment_numbers
from tests.ledger.simulated_disk import SimulatedDisk
from tests.ledger.workbench import CAPS, HandClock, commit, hold, settings

GRACE_MS = 5_000


def settle(journal: Journal, reservation_id: ReservationId, tokens: int = 7) -> None:
    """Settle, without a sync."""
    charge = Charge(tokens, 3, tokens - 3, "settle", 0)
    entries, _ = journal.accounts.settle(journal.clock.now_ms(), reservation_id, charge)
    commit(journal, entries)


def open_small(disk: Disk, times: TimeSources) -> Journal:
    """The journal on a disk; nothing rolls by itself."""
    return Journal.recover(disk, CAPS, times, settings(grace_ms=GRACE_MS))


def roll(journal: Journal) -> None:
    """Begin a new segment."""
    journal.prepare_roll()()


def live(journal: Journal, clock: HandClock, turns: int) -> None:
    """So many requests, of which the last is not settled."""
    for _ in range(turns):
        found = hold(journal)
        journal.sync()
        clock.now_ms += 100
        settle(journal, found)
    hold(journal, 20)
    journal.sync()


def kept_ledger() -> tuple[SimulatedDisk, HandClock]:
    """Four segments: one that was rolled, one that was killed in the middle of a write, one that
    charged its ghosts and was rolled, and the newest, whose last line is not yet durable.
    """
    disk, clock = SimulatedDisk(), HandClock()
    journal = open_small(disk, clock.sources())
    live(journal, clock, 3)
    roll(journal)
    live(journal, clock, 3)
    hold(journal)
    disk.overwrite(name(2), disk.read(name(2))[:-30])
    journal = open_small(disk, clock.sources())
    clock.now_ms += 2 * GRACE_MS
    commit(journal, tick(journal))
    live(journal, clock, 2)
    roll(journal)
    live(journal, clock, 2)
    hold(journal)
    return disk, clock


def tick(journal: Journal) -> tuple[Entry, ...]:
    """The ghosts that are due, charged."""
    return journal.accounts.tick(journal.clock.now_ms())


def name(number: int) -> str:
    return segment_name(number)


def numbers(disk: Disk) -> list[int]:
    """The numbers of the segments that are there."""
    return segment_numbers(disk.names())
