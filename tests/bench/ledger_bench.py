"""How many durable reservations a second the ledger makes alone, and how long one takes.

`python -m tests.bench.ledger_bench [SECONDS]`: for a few numbers of callers that each reserve and
settle in a closed loop on a real directory (in TMPDIR), prints what `Measured` holds; beside them a
bare loop of write + fdatasync on the same disk. `ledger_section.py` has it as a part of the whole
benchmark.
"""

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec
import trio

from cortexd.dialects.upper_bound import Bound
from cortexd.dialects.usage import Ending, EndingKind, Seen, Usage
from cortexd.ledger.cap_windows import rolling
from cortexd.ledger.desk import Desk, Reservation
from cortexd.ledger.entries import Cap, account_scope, key_scope
from cortexd.ledger.inbox import Inbox
from cortexd.ledger.journal import Journal
from cortexd.ledger.recovery import replay
from cortexd.ledger.sync_thread import Done, Syncer, SyncThread, Work
from cortexd.ledger.task import run_ledger
from tests.ledger.workbench import Count

CALLERS = (1, 16, 128)
KEYS = 100
BOUND = Bound(prompt_tokens=500, output_tokens=500, choices=1)
ENDING = Ending(
    EndingKind.COMPLETED, False, Usage(prompt_tokens=300, completion_tokens=200), Seen(), False
)
SYNCED_BYTES = 300
"""About what one reservation and one settlement take in the journal."""


class Measured(msgspec.Struct, frozen=True):
    """One run. The latencies are of `reserve`, which returns when the reservation is durable."""

    callers: int
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    per_sync: float

    def line(self) -> str:
        """For people."""
        return (
            f"{self.callers:4d} callers  {self.rate:8.0f} durable reservations/s  "
            f"p50 {self.p50_ms:6.2f} ms  p99 {self.p99_ms:6.2f} ms  "
            f"CPU {self.cpu_us:5.0f} us each  {self.per_sync:5.1f} per sync"
        )


class SlowSyncer:
    """A disk that needs so much longer for each sync."""

    def __init__(self, seconds: float) -> None:
        """Inside a Trio run."""
        self._seconds = seconds
        self._thread = SyncThread()

    def __enter__(self) -> "SlowSyncer":
        self._thread.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._thread.__exit__(None, None, None)

    def submit(self, work: Work, done: Done) -> None:
        """See `Syncer`."""

        def slow_work() -> None:
            threading.Event().wait(self._seconds)
            work()

        self._thread.submit(slow_work, done)


async def call(desk: Desk, caller: int, until: float, latencies: list[float]) -> None:
    """One caller: reserve and settle until it is time."""
    scopes = (account_scope("acme"), key_scope(f"key-{caller % KEYS}"))
    while (started := time.perf_counter()) < until:
        granted = await desk.reserve(scopes, BOUND, request_id="req-0123456789abcdef")
        latencies.append(time.perf_counter() - started)
        assert isinstance(granted, Reservation)
        async with granted as reservation:
            reservation.dispatched = True
            reservation.ending = ENDING


async def measure(
    directory: str,
    callers: int,
    seconds: float,
    slow: Callable[[], AbstractContextManager[Syncer | None]] = nullcontext,
) -> Measured:
    """Have so many callers reserve and settle for so long, in a ledger of its own."""
    caps = [Cap(key_scope(f"key-{number}"), 10**15, rolling(3_600_000)) for number in range(KEYS)]
    caps.append(Cap(account_scope("acme"), 10**15))
    journal = Journal.open(directory, caps)
    count, latencies = Count(), list[float]()
    inbox = Inbox()
    with slow() as syncer:
        async with trio.open_nursery() as nursery:
            await nursery.start(run_ledger, journal, inbox, count, syncer)
            desk = Desk(inbox, journal.accounts.template_tokens)
            cpu, started = time.process_time(), time.perf_counter()
            async with trio.open_nursery() as clients:
                for caller in range(callers):
                    clients.start_soon(call, desk, caller, started + seconds, latencies)
            cpu, elapsed = time.process_time() - cpu, time.perf_counter() - started
            await desk.aclose()
    journal.close()
    n = len(latencies)
    percentiles = statistics.quantiles(latencies, n=100)
    return Measured(
        callers,
        rate=n / elapsed,
        p50_ms=percentiles[49] * 1e3,
        p99_ms=percentiles[98] * 1e3,
        cpu_us=cpu / n * 1e6,
        per_sync=n / len(count.syncs),
    )


def bare_syncs(directory: str, seconds: float) -> list[float]:
    """Seconds of each write + fdatasync in a loop that does nothing else."""
    file = os.open(os.path.join(directory, "bare"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    times: list[float] = []
    until = time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        os.write(file, b"x" * SYNCED_BYTES)
        os.fdatasync(file)
        times.append(time.perf_counter() - started)
    os.close(file)
    return times


def replay_rate(directory: str) -> float:
    """Journal entries per second of CPU time when the largest segment is read back."""
    largest = max(Path(directory).glob("seg-*"), key=lambda path: path.stat().st_size)
    data = largest.read_bytes()
    started = time.process_time()
    recovered = replay(data)
    return (recovered.n - recovered.header.n) / (time.process_time() - started)


def main(seconds: float) -> None:
    """Print one line for each number of callers."""
    with tempfile.TemporaryDirectory(prefix="ledger-bench-") as directory:
        times = bare_syncs(directory, seconds / 2)
        median_ms = statistics.median(times) * 1e3
        print(f"bare write + fdatasync  {len(times) / sum(times):8.0f}/s  p50 {median_ms:.2f} ms")
        for callers in CALLERS:
            where = os.path.join(directory, str(callers))
            print(trio.run(measure, where, callers, seconds).line(), flush=True)
        print(f"replay  {replay_rate(where):8.0f} entries/s")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
