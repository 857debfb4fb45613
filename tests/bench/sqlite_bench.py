"""The same reservations in an SQLite database that commits each one: what the journal is beside it.

    python -m tests.bench.sqlite_bench [SECONDS]

Owns the database: WAL, synchronous=FULL (a commit returns when it survives a power loss), one
thread for it, as the ledger has one for its syncs. It is given the easier task: caps are balances,
a check is two conditional updates, and settlements join the transaction of the next reservation, so
that there is one commit, and one sync, for each reservation.
"""

import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import deque

import trio

from cortexd.ledger.sync_thread import SyncThread
from tests.bench.ledger_bench import BOUND, ENDING, KEYS, Measured

_SCHEMA = """
CREATE TABLE caps (scope TEXT PRIMARY KEY, hard_cap INTEGER NOT NULL, spent INTEGER NOT NULL,
                   reserved INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE reservations (id INTEGER PRIMARY KEY, account TEXT NOT NULL, key TEXT NOT NULL,
                           tokens INTEGER NOT NULL, request_id TEXT NOT NULL, charged INTEGER);
"""
_RESERVE = (
    "UPDATE caps SET reserved = reserved + ?1 WHERE scope = ?2 "
    "AND spent + reserved + ?1 <= hard_cap"
)
_INSERT = "INSERT INTO reservations (account, key, tokens, request_id) VALUES (?, ?, ?, ?)"
_SETTLE = "UPDATE caps SET reserved = reserved - ?, spent = spent + ? WHERE scope = ?"
_CLOSE = "UPDATE reservations SET charged = ? WHERE id = ?"
ACCOUNT = "acct:acme"


class Database:
    """Caps and reservations. Used in the database's thread only, once it is open."""

    def __init__(self, path: str) -> None:
        """Create it, with a cap on each key and on their account."""
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._settlements: deque[tuple[int, str, int, int]] = deque()
        execute = self._connection.execute
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        self._connection.executescript(_SCHEMA)
        rows = [(f"key:key-{number}",) for number in range(KEYS)]
        self._connection.executemany(
            "INSERT INTO caps VALUES (?, 1000000000000000, 0, 0)", [*rows, (ACCOUNT,)]
        )

    def reserve(self, key: str, tokens: int, request_id: str) -> int | None:
        """Reserve on the key and on the account, or on none; durable when it returns."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        self._settle()
        for scope in (ACCOUNT, key):
            if not execute(_RESERVE, (tokens, scope)).rowcount:
                execute("ROLLBACK")
                return None
        number = execute(_INSERT, (ACCOUNT, key, tokens, request_id)).lastrowid
        execute("COMMIT")
        return number

    def settle_later(self, number: int, key: str, reserved: int, charged: int) -> None:
        """Close a reservation with the next one that is made. Called in any thread."""
        self._settlements.append((number, key, reserved, charged))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _settle(self) -> None:
        while self._settlements:
            number, key, reserved, charged = self._settlements.popleft()
            for scope in (ACCOUNT, key):
                self._connection.execute(_SETTLE, (reserved, charged, scope))
            self._connection.execute(_CLOSE, (charged, number))


async def call(
    database: Database, thread: SyncThread, caller: int, until: float, latencies: list[float]
) -> None:
    """One caller: reserve and settle until it is time."""
    key = f"key:key-{caller % KEYS}"
    made: list[int | None] = []
    assert ENDING.usage is not None, "the engine counted"
    while (started := time.perf_counter()) < until:
        answered = trio.Event()

        def done(error: BaseException | None, answered: trio.Event = answered) -> None:
            assert error is None, error
            answered.set()

        thread.submit(
            lambda: made.append(database.reserve(key, BOUND.total, "req-0123456789abcdef")), done
        )
        await answered.wait()
        latencies.append(time.perf_counter() - started)
        number = made.pop()
        assert number is not None, "the caps are never reached"
        database.settle_later(number, key, BOUND.total, ENDING.usage.total)


async def measure(directory: str, callers: int, seconds: float) -> Measured:
    """Have so many callers reserve and settle for so long, in a database of its own."""
    database = Database(os.path.join(directory, "reservations.db"))
    latencies: list[float] = []
    with SyncThread() as thread:
        cpu, started = time.process_time(), time.perf_counter()
        async with trio.open_nursery() as clients:
            for caller in range(callers):
                clients.start_soon(call, database, thread, caller, started + seconds, latencies)
        cpu, elapsed = time.process_time() - cpu, time.perf_counter() - started
    database.close()
    n = len(latencies)
    percentiles = statistics.quantiles(latencies, n=100)
    return Measured(
        callers,
        rate=n / elapsed,
        p50_ms=percentiles[49] * 1e3,
        p99_ms=percentiles[98] * 1e3,
        cpu_us=cpu / n * 1e6,
        per_sync=1,
    )


def main(seconds: float) -> None:
    """Print one line for each number of callers."""
    for callers in (1, 128):
        with tempfile.TemporaryDirectory(prefix="sqlite-bench-") as directory:
            print(trio.run(measure, directory, callers, seconds).line(), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
