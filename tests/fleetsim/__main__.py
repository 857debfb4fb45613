"""Run the simulated fleet for many seeds, or one seed of it again.

python -m tests.fleetsim --seeds 2000
python -m tests.fleetsim --kind large --seeds 100
python -m tests.fleetsim --kind small --seed 123
"""

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.fleetsim.runs import Broken, Task, run_seed, run_task

FAILURES_MAX = 10
SEEDS_AT_ONCE = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fleetsim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, help="begin with no more seeds after so long")
    parser.add_argument("--first", type=int, default=0, help="seed to begin with")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--kind", choices=("small", "duel", "large"), help="worlds of this kind")
    parser.add_argument("--seed", type=int, help="this seed only, with its trace")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        return run_one(chosen.seed, chosen.kind)
    started = time.monotonic()
    tally: Counter[str] = Counter()
    failures: list[str] = []
    rules: Counter[str] = Counter()
    until = None if chosen.seconds is None else started + chosen.seconds
    with multiprocessing.Pool(chosen.workers) as pool:
        for done in pool.imap_unordered(run_task, tasks(chosen, until)):
            tally.update(done.tally)
            for failure in done.failures:
                rules[failure.rule] += 1
                if len(failures) < FAILURES_MAX:
                    say(failure.text)
                failures.append(failure.text)
        pool.terminate()
    say(", ".join(f"{name} {count:,}" for name, count in tally.most_common()))
    say(f"{tally['seeds']:,} seeds in {time.monotonic() - started:.0f} s, ")
    say(f"{len(failures)} violations {dict(rules)}")
    return 1 if failures else 0


def run_one(seed: int, kind: str | None) -> int:
    """One seed, with the trace of its last events if it fails."""
    try:
        say(str(dict(run_seed(seed, kind))))
    except Broken as broken:
        say(str(broken))
        return 1
    return 0


def tasks(chosen: argparse.Namespace, until: float | None) -> Iterator[Task]:
    """The seeds, some at a time, while there is time."""
    last = chosen.first + chosen.seeds
    for first in range(chosen.first, last, SEEDS_AT_ONCE):
        if until is not None and time.monotonic() > until:
            return
        yield Task(first, min(SEEDS_AT_ONCE, last - first), chosen.kind, until)


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (this is a program)


if __name__ == "__main__":
    sys.exit(main())
