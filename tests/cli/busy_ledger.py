"""A process that reserves and settles in a real ledger for as long as it lives, and tells so.

Run as `python -m tests.cli.busy_ledger DIRECTORY`; it begins at the first line on standard input,
and says what `tests.ledger.spending_child` says.
"""

import sys

import trio

from cortexd.ledger.cap_windows import rolling
from cortexd.ledger.clock import system_time
from cortexd.ledger.desk import Desk
from cortexd.ledger.disk import DirectoryDisk
from cortexd.ledger.entries import Cap
from cortexd.ledger.inbox import Inbox
from cortexd.ledger.journal import Journal, JournalSettings
from cortexd.ledger.task import run_ledger
from tests.ledger.spending_child import TASKS, spend
from tests.ledger.workbench import ACCOUNT, KEY, Count

CAPS = (Cap(KEY, 10**9), Cap(KEY, 10**9, rolling(3_600_000)), Cap(ACCOUNT, 10**9, rolling(1_000)))
SEGMENT_BYTES_MAX = 40_000


async def main(directory: str) -> None:
    settings = JournalSettings(segment_bytes_max=SEGMENT_BYTES_MAX)
    journal = Journal.recover(DirectoryDisk.open(directory), CAPS, system_time(), settings)
    inbox = Inbox()
    async with trio.open_nursery() as nursery:
        await nursery.start(run_ledger, journal, inbox, Count())
        desk = Desk(inbox, journal.accounts.template_tokens)
        for task in range(TASKS):
            nursery.start_soon(spend, desk, 1, task)


if __name__ == "__main__":
    sys.stdin.readline()
    trio.run(main, sys.argv[1])
