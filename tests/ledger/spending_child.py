"""A process that spends from a real ledger as fast as it can and tells so on stdout, to be killed.

Run as `python -m tests.ledger.spending_child DIRECTORY LIFE`. It waits for a line on stdin, opens
the ledger, and writes one line per fact after the ledger has told it: `granted REQUEST TOKENS` when
a reservation is durable, `settled REQUEST TOKENS` when it is closed.
"""

import itertools
import os
import random
import sys

import trio

from cortexd.ledger.clock import system_time
from cortexd.ledger.desk import Desk, Reservation
from cortexd.ledger.disk import DirectoryDisk
from cortexd.ledger.inbox import Inbox
from cortexd.ledger.journal import Journal, JournalSettings
from cortexd.ledger.task import run_ledger
from tests.ledger.workbench import KILLED_CAPS, SCOPES, Count, bound, completed

TASKS = 12


def tell(line: str) -> None:
    os.write(1, line.encode() + b"\n")  # at most PIPE_BUF bytes: whole or not at all


async def spend(desk: Desk, life: int, task: int) -> None:
    source = random.Random(life * 1000 + task)
    for number in itertools.count():
        request_id = f"{life}-{task}-{number}"
        granted = await desk.reserve(
            SCOPES, bound(5, source.randrange(1, 40)), request_id=request_id
        )
        if not isinstance(granted, Reservation):
            return
        async with granted as reservation:
            tell(f"granted {request_id} {reservation.bound.total}")
            reservation.dispatched = True
            output_tokens = source.randrange(1, reservation.bound.output_tokens + 1)
            reservation.ending = completed(5, output_tokens)
        tell(f"settled {request_id} {5 + output_tokens}")


async def main(directory: str, life: int) -> None:
    small = JournalSettings(segment_bytes_max=40_000)
    journal = Journal.recover(DirectoryDisk.open(directory), KILLED_CAPS, system_time(), small)
    inbox = Inbox()
    async with trio.open_nursery() as nursery:
        await nursery.start(run_ledger, journal, inbox, Count())
        desk = Desk(inbox, journal.accounts.template_tokens)
        for task in range(TASKS):
            nursery.start_soon(spend, desk, life, task)


if __name__ == "__main__":
    sys.stdin.readline()
    trio.run(main, sys.argv[1], int(sys.argv[2]))
