"""What a disk says about a ledger to a bystander, and whether it is what a crash may leave.

It owns the promise about recovered states: after any crash the ledger starts without help, in the
state after some prefix of its entries that holds every durable one. Layers bring the crash.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cortexd.ledger.accounts import Accounts
from cortexd.ledger.disk import LedgerProblem
from cortexd.ledger.entries import Entry, Snapshot
from cortexd.ledger.segment import segment_name, segment_numbers
from tests.ledger.simulated_disk import PowerLoss, SimulatedDisk
from tests.ledger.workbench import read_segment

WAYS: tuple[PowerLoss | None, ...] = (None, "nothing", "everything", "prefix", "subset", "subset")
"""How a process ends; None: it is killed, and the machine stays up."""

States = dict[int, Snapshot]
"""State of the books after each entry number."""


def newest(disk: SimulatedDisk) -> bytes:
    """The newest segment as a reader sees it now; b"" without one."""
    numbers = segment_numbers(disk.names())
    return disk.read(segment_name(numbers[-1])) if numbers else b""


def start_of_newest(disk: SimulatedDisk) -> tuple[int, Snapshot]:
    """Number and state with which the newest segment begins: what was recovered, or rolled."""
    first, second, _ = newest(disk).split(b"\n", 2)
    n, snapshot, _ = read_segment(first + b"\n" + second)
    return n, snapshot


def entries_of_newest(disk: SimulatedDisk) -> tuple[int, Snapshot, list[tuple[int, Entry]]]:
    """Number and state with which the newest segment begins, and the entries behind that."""
    data = newest(disk)
    return read_segment(data) if data else (0, Accounts().dump(), [])


def states_in_newest(disk: SimulatedDisk) -> States:
    """State after each entry in the newest segment, added up from its snapshot."""
    n, snapshot, entries = entries_of_newest(disk)
    states = {n: snapshot}
    accounts = Accounts.load(snapshot)
    for number, entry in entries:
        accounts.apply(entry)
        states[number] = accounts.dump()
    return states


def after_crash(disk: SimulatedDisk, way: PowerLoss | None, seed: int) -> SimulatedDisk:
    """The disk as the next process finds it."""
    return disk.after_kill(seed) if way is None else disk.after_power_loss(way, seed)


def check_prefix(n: int, found: Snapshot, durable: int, *known: Mapping[int, Snapshot]) -> None:
    """The state `found` after entry `n` is one that was, and holds all that was durable."""
    assert n >= durable, f"entry {durable} was durable, only {n} came back"
    assert any(states.get(n) == found for states in known), f"not the state after entry {n}"


def check_kind(problem: LedgerProblem, kind: str) -> None:
    """The ledger was not opened for this kind of reason, and for no other."""
    assert problem.kind == kind, str(problem)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the ledger from logging about a million crashes; its words are tested elsewhere."""
    log = logging.getLogger("cortexd.ledger")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)
