"""How many durable reservations a second the ledger makes, and how long one takes.

`python -m tests.bench.ledger_bench [SECONDS]`: for 1, 16 and 128 callers that each reserve and
settle in a closed loop on a real directory (in TMPDIR), prints reservations/s, the p50 and p99 of
`reserve`, CPU time per reservation, and how many of them shared a sync; beside them a bare loop of
write + fdatasync on the same disk.
"""

import os
import statistics
import sys
import tempfile
import time

import trio

from cortexd.dialects.upper_bound import Bound
from cortexd.dialects.usage import Ending, EndingKind, Seen, Usage
from cortexd.ledger.calls import AnyCall
from cortexd.ledger.desk import Desk, Reservation
from cortexd.ledger.entries import Cap, account_scope, key_scope
from cortexd.ledger.journal import Journal
from cortexd.ledger.task import run_ledger
from tests.ledger.workbench import Count

CALLERS = (1, 16, 128)
KEYS = 100
BOUND = Bound(prompt_tokens=500, output_tokens=500, choices=1)
ENDING = Ending(
    EndingKind.COMPLETED, False, Usage(prompt_tokens=300, completion_tokens=200), Seen(), False
)


async def call(desk: Desk, caller: int, until: float, latencies: list[float]) -> None:
    scopes = (account_scope("acme"), key_scope(f"key-{caller % KEYS}"))
    while (started := time.perf_counter()) < until:
        granted = await desk.reserve(scopes, BOUND, request_id="req-0123456789abcdef")
        latencies.append(time.perf_counter() - started)
        assert isinstance(granted, Reservation)
        async with granted as reservation:
            reservation.dispatched = True
            reservation.ending = ENDING


async def measure(directory: str, callers: int, seconds: float) -> str:
    caps = [Cap(key_scope(f"key-{number}"), 10**15, 3_600_000) for number in range(KEYS)]
    caps.append(Cap(account_scope("acme"), 10**15, None))
    journal = Journal.open(directory, caps)
    count, latencies = Count(), list[float]()
    send, receive = trio.open_memory_channel[AnyCall](0)
    async with trio.open_nursery() as nursery:
        await nursery.start(run_ledger, journal, receive, count)
        desk = Desk(send, journal.accounts.template_tokens)
        cpu, started = time.process_time(), time.perf_counter()
        async with trio.open_nursery() as clients:
            for caller in range(callers):
                clients.start_soon(call, desk, caller, started + seconds, latencies)
        cpu, elapsed = time.process_time() - cpu, time.perf_counter() - started
        await desk.aclose()
    journal.close()
    percentiles = statistics.quantiles(latencies, n=100)
    n = len(latencies)
    return (
        f"{callers:4d} callers  {n / elapsed:8.0f} durable reservations/s  "
        f"p50 {percentiles[49] * 1e3:6.2f} ms  p99 {percentiles[98] * 1e3:6.2f} ms  "
        f"CPU {cpu / n * 1e6:5.0f} us each  {n / len(count.syncs):5.1f} per sync"
    )


def bare_syncs(directory: str, seconds: float) -> str:
    file = os.open(os.path.join(directory, "bare"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    times: list[float] = []
    until = time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        os.write(file, b"x" * 300)
        os.fdatasync(file)
        times.append(time.perf_counter() - started)
    os.close(file)
    median_ms = statistics.median(times) * 1e3
    return f"bare write + fdatasync  {len(times) / seconds:8.0f}/s  p50 {median_ms:.2f} ms"


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="ledger-bench-") as directory:
        print(bare_syncs(directory, seconds / 2), flush=True)
        for callers in CALLERS:
            where = os.path.join(directory, str(callers))
            print(trio.run(measure, where, callers, seconds), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
