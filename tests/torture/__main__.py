"""Torture the whole daemon for so many rounds, and print what came of it.

python -m tests.torture --rounds 500 --seed 1 --ends kill
python -m tests.torture --rounds 100 --workers 2
python -m tests.torture --fan-out 100
python -m tests.torture --leaks 10000
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec
import trio

from tests.torture import fan_out, leaks
from tests.torture.ends import ENDS, NEED_A_DISK, disk_problem
from tests.torture.world import ROUNDS_PER_WORLD, Failed, World, run_world

FAILURES_MAX = 5


class Task(msgspec.Struct, frozen=True):
    """One world and how many rounds of it."""

    seed: int
    rounds: int
    ends: tuple[str, ...]


class Done(msgspec.Struct, frozen=True):
    """What came of a task. `failure`: how to see it again; None if there was none."""

    tally: dict[str, int]
    failure: str | None = None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1, help="of the first world")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--ends", default=",".join(ENDS), help="how rounds may end")
    parser.add_argument(
        "--fan-out",
        type=int,
        metavar="N",
        help="2,000 requests at once on a cap that fits k, N times, N // 20 over sockets",
    )
    parser.add_argument(
        "--leaks", type=int, metavar="N", help="N requests with cuts on both sides, then look"
    )
    chosen = parser.parse_args()
    if chosen.fan_out is not None:
        return fan_out_many(chosen.fan_out, chosen.seed)
    if chosen.leaks is not None:
        return look_for_leaks(chosen.leaks, chosen.seed)
    ends = tuple(chosen.ends.split(","))
    if unknown := set(ends) - set(ENDS):
        parser.error(f"no such end: {', '.join(sorted(unknown))}")
    problem = disk_problem()
    if problem is not None and NEED_A_DISK & set(ends):
        say(f"SKIPPED, {problem}: {', '.join(sorted(NEED_A_DISK & set(ends)))}")
    return run(chosen.seed, chosen.rounds, ends, chosen.workers)


def run(seed: int, rounds: int, ends: tuple[str, ...], workers: int) -> int:
    """Worlds from `seed` on until there were so many rounds; 1 if anything was broken."""
    say(f"{rounds} rounds from seed {seed}, {workers} at once; they end by {', '.join(ends)}")
    started = time.monotonic()
    tally: Counter[str] = Counter()
    failures = 0
    with multiprocessing.Pool(workers) as pool:
        for done in pool.imap_unordered(run_task, tasks(seed, rounds, ends)):
            tally.update(done.tally)
            if done.failure is not None:
                say(done.failure)
                failures += 1
            if failures >= FAILURES_MAX:
                break
        pool.terminate()
    report(tally, failures, time.monotonic() - started)
    return 1 if failures else 0


def fan_out_many(repetitions: int, seed: int) -> int:
    """So many repetitions in process and a twentieth of them over sockets; 1 if one miscounts."""
    for ask_all, times in (
        (fan_out.in_process, repetitions),
        (fan_out.over_sockets, max(1, repetitions // 20)),
    ):
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="cortexd-torture-") as name:
            try:
                tally = trio.run(ask_all, Path(name), times, seed)
            except fan_out.Miscounted as wrong:
                say(f"{wrong}\n  again: python -m tests.torture --fan-out {times} --seed {seed}")
                return 1
        say(
            f"{ask_all.__name__}: {tally['repetitions']} times {fan_out.REQUESTS:,} requests at "
            f"once, {tally['dispatched']:,} fitted and were dispatched, not one more or fewer; "
            f"{time.monotonic() - started:.0f} s"
        )
    return 0


def look_for_leaks(requests: int, seed: int) -> int:
    """The figures of one long run; 1 if anything has leaked."""
    with tempfile.TemporaryDirectory(prefix="cortexd-torture-") as name:
        found = trio.run(leaks.run, Path(name), requests, seed)
    say(str(found))
    for problem in found.problems:
        say(f"LEAK: {problem}\n  again: python -m tests.torture --leaks {requests} --seed {seed}")
    return 1 if found.problems else 0


def tasks(seed: int, rounds: int, ends: tuple[str, ...]) -> list[Task]:
    """The worlds, each of ROUNDS_PER_WORLD rounds but for the last."""
    worlds = range(-(-rounds // ROUNDS_PER_WORLD))
    return [
        Task(seed + world, min(ROUNDS_PER_WORLD, rounds - world * ROUNDS_PER_WORLD), ends)
        for world in worlds
    ]


def run_task(task: Task) -> Done:
    """In a process of the pool: one world."""
    try:
        return Done(dict(trio.run(run_world, World.of(task.seed, task.ends), task.rounds)))
    except Failed as failed:
        return Done({}, str(failed))


def report(tally: Counter[str], failures: int, seconds: float) -> None:
    """The totals."""
    for name in sorted(tally):
        say(f"  {name:36} {tally[name]:>12,}")
    rate = tally["rounds"] / max(seconds, 0.001)
    say(
        f"{tally['rounds']:,} rounds in {seconds:.0f} s ({rate:.2f}/s), "
        f"{tally['requests']:,} requests, {tally['dispatches']:,} dispatches, "
        f"{tally['served tokens']:,} tokens served, {tally['charged tokens']:,} charged, "
        f"{failures} violations"
    )


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (this is a program)


if __name__ == "__main__":
    sys.exit(main())
