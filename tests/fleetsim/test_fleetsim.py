"""Some seeds of every kind of world; `make fleet-sim` runs on where these end."""

import multiprocessing
from collections import Counter

import pytest

from tests.fleetsim import invariants
from tests.fleetsim.broken import BREAKS
from tests.fleetsim.plan import CI_SEEDS, SEEDS_AT_ONCE
from tests.fleetsim.runs import Broken, Task, run_seed, run_task
from tests.fleetsim.simulation import Simulation
from tests.fleetsim.violation import Violation


@pytest.mark.slow
def test_whatever_happens_to_a_fleet_its_promises_hold() -> None:
    tasks = [
        Task(first, min(SEEDS_AT_ONCE[kind], seeds - first), kind)
        for kind, (seeds, _) in reversed(CI_SEEDS.items())
        for first in range(0, seeds, SEEDS_AT_ONCE[kind])
    ]
    tallies: dict[str, Counter[str]] = {kind: Counter() for kind in CI_SEEDS}
    with multiprocessing.Pool() as pool:
        for task, done in zip(tasks, pool.imap(run_task, tasks), strict=True):
            assert not done.failures, done.failures[0].text
            tallies[task.kind or ""].update(done.tally)
    for kind, (_, least) in CI_SEEDS.items():
        for name, count in least.items():
            assert tallies[kind][name] >= count, f"less than it says: {kind} {tallies[kind]}"


@pytest.mark.slow
@pytest.mark.parametrize("what", BREAKS)
def test_a_machine_that_is_broken_is_noticed(what: str) -> None:
    """By one of the rules that are there for it: not by some other, and not by chance."""
    broken = BREAKS[what]
    noticed = Counter[str]()
    with broken.applied():
        for seed in broken.seeds:
            try:
                run_seed(seed)
            except Broken as failure:
                noticed[failure.rule] += 1
                if failure.rule in broken.rules:
                    return
    raise AssertionError(f"not noticed: {what}; only {noticed}")


@pytest.mark.slow
def test_a_seed_is_one_run_and_always_the_same() -> None:
    assert run_seed(7) == run_seed(7)
    assert run_seed(7) != run_seed(8)


def test_a_seed_that_fails_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(sim: Simulation) -> None:
        if sim.tally["steps"] > 100:
            raise Violation("a_rule", "it does not hold")

    monkeypatch.setattr(invariants, "at_every_step", fail)
    with pytest.raises(Broken) as broken:
        run_seed(3)
    lines = str(broken.value).splitlines()
    assert lines[0].startswith("small 3 at ")
    assert lines[0].endswith("a_rule: it does not hold")
    assert len(lines) > 5, "there is a trace"
    assert lines[-1] == "  again: python -m tests.fleetsim --kind small --seed 3"
