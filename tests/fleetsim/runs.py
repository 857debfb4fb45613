"""One seed, or some: run them, or say how to run them again."""

from __future__ import annotations

import time
from collections import Counter
from typing import get_args

import msgspec

from tests.fleetsim import world
from tests.fleetsim.simulation import Simulation
from tests.fleetsim.violation import Violation

TRACED = 40
"""So many of the last events are told of a run that fails."""


class Broken(Exception):
    """Something that must hold did not. The message says how to see it again."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(text)
        self.rule = rule
        self.text = text


class Task(msgspec.Struct, frozen=True):
    """Some seeds. `kind` None: as each seed has it; nothing is begun after `until`."""

    first: int
    count: int
    kind: str | None = None
    until: float | None = None


class Failed(msgspec.Struct, frozen=True):
    """A seed that failed: which rule, and all that is to be told."""

    rule: str
    text: str


class Done(msgspec.Struct, frozen=True):
    """What came of a task."""

    tally: dict[str, int]
    failures: list[Failed]


def run_seed(seed: int, kind: str | None = None) -> Counter[str]:
    """One run, the same every time. Raises Broken."""
    chosen = world.kind_of(seed)
    for each in get_args(world.Kind):
        chosen = each if each == kind else chosen
    sim = Simulation(world.build(seed, chosen), seed)
    try:
        tally = sim.run()
    except Violation as violation:
        trace = "\n".join(f"    {event}" for event in list(sim.trace)[-TRACED:])
        again = f"python -m tests.fleetsim --kind {chosen} --seed {seed}"
        text = f"{chosen} {seed} at {sim.now_ms}: {violation}\n{trace}\n  again: {again}"
        raise Broken(violation.rule, text) from violation
    tally["seeds"] += 1
    return tally


def run_task(task: Task) -> Done:
    """In a process of the pool: run the seeds, while there is time."""
    tally: Counter[str] = Counter()
    failures: list[Failed] = []
    for seed in range(task.first, task.first + task.count):
        if task.until is not None and time.monotonic() > task.until:
            break
        try:
            tally += run_seed(seed, task.kind)
        except Broken as broken:
            failures.append(Failed(broken.rule, broken.text))
    return Done(dict(tally), failures)
