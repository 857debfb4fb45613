"""kill -9 of a real process with a real directory: what it was told is still true afterwards."""

import os
import random
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortexd.ledger.entries import CloseEntry, Entry, HoldEntry
from cortexd.ledger.journal import Journal
from cortexd.ledger.segment import segment_name, segment_numbers
from tests.ledger.workbench import KEY, KILLED_CAPS, read_segment, standing_of

LIVES = 8
SECONDS_MAX = 60


def start_waiting(directory: Path, life: int) -> subprocess.Popen[bytes]:
    """A process that has imported everything and waits for a line to begin."""
    command = [sys.executable, "-m", "tests.ledger.spending_child", str(directory), str(life)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def live_and_die(process: subprocess.Popen[bytes], lines_wanted: int) -> list[list[bytes]]:
    """Let it run until it has told this many facts, kill it, and return all that it has told."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"go\n")
    process.stdin.close()
    told = b""
    while told.count(b"\n") < lines_wanted:
        ready, _, _ = select.select([process.stdout], [], [], SECONDS_MAX)
        assert ready, "the process tells nothing"
        piece = os.read(process.stdout.fileno(), 65_536)
        assert piece, "the process ended by itself"
        told += piece
    process.kill()
    told += process.stdout.read()
    process.stdout.close()
    process.wait()
    return [line.split() for line in told.splitlines()]


def entries_in(directory: Path) -> Iterator[Entry]:
    for number in segment_numbers(os.listdir(directory)):
        _, _, entries = read_segment((directory / segment_name(number)).read_bytes())
        yield from (entry for _, entry in entries)


@pytest.mark.slow
def test_what_a_killed_process_was_told_is_in_the_books_of_its_successor(tmp_path: Path) -> None:
    """Every granted reservation is there, every settled one is closed with its charge or still
    counts in full, none is closed twice, and the cap holds over all lives."""
    source = random.Random(7)
    processes = [start_waiting(tmp_path, life) for life in range(LIVES)]
    granted: dict[str, int] = {}
    settled: dict[str, int] = {}
    for process in processes:
        for kind, request_id, spent in live_and_die(process, source.randrange(1, 300)):
            book = granted if kind == b"granted" else settled
            book[request_id.decode()] = int(spent)
    holds: dict[int, HoldEntry] = {}
    closes: dict[int, CloseEntry] = {}
    for entry in entries_in(tmp_path):
        if isinstance(entry, HoldEntry):
            assert entry.i not in holds, "a reservation's number was used twice"
            holds[entry.i] = entry
        elif isinstance(entry, CloseEntry):
            assert entry.i not in closes, "a reservation was closed twice"
            closes[entry.i] = entry
    by_request = {entry.rid: entry for entry in holds.values()}
    assert {name: by_request[name].a for name in granted} == granted
    for name, tokens in settled.items():
        found = closes.get(by_request[name].i)
        assert found is None or found.y == "crash" or found.a == tokens
    assert len(settled) > LIVES

    journal = Journal.open(str(tmp_path), KILLED_CAPS)
    journal.accounts.check()
    standing = standing_of(journal.accounts, KEY, journal.clock.now_ms())
    assert standing is not None
    counted = sum(closes[i].a if i in closes else held.a for i, held in holds.items())
    assert standing.spent + standing.reserved == counted
    assert sum(settled.values()) <= counted <= standing.hard_cap
    journal.close()
