"""kill -9 of real processes on a real directory, as fast as they can be started.

Each seed is a ledger of its own and some lives of it. A life is a fork of this process that spends
as fast as it can and tells what the ledger told it, until it is killed at a random moment. Then the
files alone must say that nothing that was told is missing, undercharged or counted twice. Where a
kill hits is the machine's affair: this is the one layer whose seeds do not repeat.
"""

import os
import random
import select
import signal
import tempfile
from collections import Counter
from pathlib import Path

import trio

from cortexd.ledger.entries import CloseEntry, Entry, HoldEntry
from cortexd.ledger.invariants import check_accounts, check_history
from cortexd.ledger.journal import Journal
from cortexd.ledger.segment import segment_name, segment_numbers
from tests.ledger import spending_child
from tests.ledger.workbench import KEY, KILLED_CAPS, read_segment

LIVES = 8
SECONDS_MAX = 60


def run(seed: int) -> Counter[str]:
    """Kill some lives of one ledger and audit it. Counts kills and what was told."""
    with tempfile.TemporaryDirectory() as directory:
        killed = _Killed(seed, Path(directory))
        for life in range(LIVES):
            killed.live_and_die(life)
        killed.audit()
        return killed.tally


class _Killed:
    def __init__(self, seed: int, directory: Path) -> None:
        self.random = random.Random(f"kills {seed}")
        self.directory = directory
        self.tally: Counter[str] = Counter()
        self.granted: dict[str, int] = {}
        self.settled: dict[str, int] = {}

    def live_and_die(self, life: int) -> None:
        """Let a life tell a number of facts, kill it, and remember all that it told."""
        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            try:
                os.dup2(writing, 1)
                trio.run(spending_child.main, str(self.directory), life)
            finally:
                os._exit(1)
        os.close(writing)
        told, wanted = b"", self.random.randrange(1, 120)
        while told.count(b"\n") < wanted:
            ready, _, _ = select.select([reading], [], [], SECONDS_MAX)
            piece = os.read(reading, 65_536) if ready else b""
            if not piece:
                break  # the cap is spent, or something is wrong: the audit will say
            told += piece
        os.kill(process, signal.SIGKILL)
        while piece := os.read(reading, 65_536):
            told += piece
        os.close(reading)
        os.waitpid(process, 0)
        self.remember(told)

    def remember(self, told: bytes) -> None:
        self.tally["kills"] += 1
        for line in told.splitlines():
            kind, request_id, tokens = line.split()
            book = self.granted if kind == b"granted" else self.settled
            book[request_id.decode()] = int(tokens)
            self.tally[kind.decode()] += 1

    def audit(self) -> None:
        """Every promise that was told is in the files, and all of them together add up."""
        entries = self.entries()
        check_history(entries)
        holds = {entry.i: entry for entry in entries if isinstance(entry, HoldEntry)}
        closes = {entry.i: entry for entry in entries if isinstance(entry, CloseEntry)}
        by_request = {entry.rid: entry for entry in holds.values()}
        assert {name: by_request[name].a for name in self.granted} == self.granted
        for name, tokens in self.settled.items():
            found = closes.get(by_request[name].i)
            assert found is None or found.y == "crash" or found.a == tokens
        journal = Journal.open(str(self.directory), KILLED_CAPS)
        check_accounts(journal.accounts)
        totals = journal.accounts.totals(KEY)
        journal.close()
        counted = sum(closes[i].a if i in closes else held.a for i, held in holds.items())
        assert totals.spent + totals.reserved == counted
        assert sum(self.settled.values()) <= counted <= KILLED_CAPS[0].hard_cap

    def entries(self) -> list[Entry]:
        """All entries of all segments; numbers that were lost with a torn tail are used again."""
        found: dict[int, Entry] = {}
        for number in segment_numbers(os.listdir(self.directory)):
            data = (self.directory / segment_name(number)).read_bytes()
            n, _, entries = read_segment(data)
            found = {at: entry for at, entry in found.items() if at <= n}
            found.update(entries)
        return [found[at] for at in sorted(found)]
