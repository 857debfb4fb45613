"""Run the simulator for as long as there is time, or one seed of it again.

python -m tests.sim --seconds 600 --workers 2
python -m tests.sim --layer lives --seed 123
"""

import argparse
import itertools
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator

import msgspec

from tests.sim.layers import LAYERS, SEEDS_AT_ONCE, TURNS, Broken, run_seeds

FAILURES_MAX = 5


class Task(msgspec.Struct, frozen=True):
    """Some seeds of a layer. Nothing is begun after `until` (a `time.monotonic`)."""

    layer: str
    first: int
    count: int
    until: float


class Done(msgspec.Struct, frozen=True):
    """What came of a task. `failure`: how to see it again; None if there was none."""

    layer: str
    tally: dict[str, int]
    seconds: float
    failure: str | None = None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--layer", choices=LAYERS, help="this layer only")
    parser.add_argument("--seed", type=int, help="this seed of --layer only, with its traceback")
    parser.add_argument("--first", type=int, help="seed to begin with (default: by the date)")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        if chosen.layer is None:
            parser.error("--seed needs --layer")
        say(str(dict(run_seeds(chosen.layer, chosen.seed, 1))))
        return 0
    first = int(time.time()) * 1000 if chosen.first is None else chosen.first
    return run_long(chosen.layer, first, chosen.seconds, chosen.workers)


def run_long(layer: str | None, first: int, seconds: float, workers: int) -> int:
    """Run seeds from `first` on until the time is up; 1 if anything was broken."""
    say(f"seeds from {first}, {workers} processes, {seconds:.0f} s")
    started = time.monotonic()
    tallies: dict[str, Counter[str]] = {}
    spent: Counter[str] = Counter()
    failures: list[str] = []
    turns = TURNS if layer is None else (layer,)
    with multiprocessing.Pool(workers) as pool:
        for done in pool.imap_unordered(run_task, tasks(turns, first, started + seconds)):
            tallies.setdefault(done.layer, Counter()).update(done.tally)
            spent[done.layer] += round(done.seconds * 1000)
            if done.failure is not None:
                say(done.failure)
                failures.append(done.failure)
            if len(failures) >= FAILURES_MAX:
                break
        pool.terminate()
    report(tallies, spent, failures, seconds=time.monotonic() - started)
    return 1 if failures else 0


def tasks(turns: tuple[str, ...], first: int, until: float) -> Iterator[Task]:
    """What to run, until the time is up."""
    next_seed = dict.fromkeys(turns, first)
    for layer in itertools.cycle(turns):
        if time.monotonic() > until:
            return
        yield Task(layer, next_seed[layer], SEEDS_AT_ONCE[layer], until)
        next_seed[layer] += SEEDS_AT_ONCE[layer]


def run_task(task: Task) -> Done:
    """In a process of the pool: run the seeds, unless the time is up."""
    if time.monotonic() > task.until:
        return Done(task.layer, {}, 0)
    started = time.process_time()
    try:
        tally = run_seeds(task.layer, task.first, task.count)
    except Broken as broken:
        return Done(task.layer, {}, time.process_time() - started, str(broken))
    tally["seeds"] += task.count
    return Done(task.layer, dict(tally), time.process_time() - started)


def report(
    tallies: dict[str, Counter[str]], spent: Counter[str], failures: list[str], *, seconds: float
) -> None:
    """Totals for each layer, and the figures: crashes, and what rotted without one."""
    points = images = 0
    for layer, tally in tallies.items():
        points += tally["points"]
        images += tally["damaged images"]
        parts = ", ".join(f"{name} {count:,}" for name, count in tally.most_common())
        say(f"{layer:8} {spent[layer] / 1000:,.0f} CPU seconds; {parts}")
    say(
        f"{points:,} crash points and {images:,} damaged images in {seconds:.0f} s, "
        f"{len(failures)} violations"
    )


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (this is a program)


if __name__ == "__main__":
    sys.exit(main())
