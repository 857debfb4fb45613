"""Some seeds of every layer of the simulator; `make sim` runs on where these end."""

import multiprocessing
import multiprocessing.pool
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.sim.layers import LAYERS, SEEDS_AT_ONCE, Broken, run_seed, run_seeds

#: Layer -> seeds, and what they come to at least: 50,000 crash points in one layer alone.
CI_SEEDS: dict[str, tuple[int, dict[str, int]]] = {
    "fuzz": (1_300, {"steps": 200_000, "windows changed": 2_000}),
    "points": (82, {"points": 50_000}),
    "lives": (3_800, {"points": 10_000, "dispatched": 40_000}),
    "rot": (14, {"damaged images": 8_500}),
    "tasks": (380, {"points": 6_000, "requests": 20_000}),
    "kills": (25, {"kills": 200}),
}


def test_the_seeds_that_are_always_run_make_fifty_thousand_crash_points() -> None:
    assert CI_SEEDS.keys() == LAYERS.keys()
    assert CI_SEEDS["points"][1]["points"] >= 50_000


@pytest.fixture(scope="module")
def processes() -> Iterator[multiprocessing.pool.Pool]:
    with multiprocessing.Pool() as pool:
        yield pool


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
def test_no_crash_no_rot_and_no_clock_makes_the_ledger_forget_what_was_spent(
    layer: str, processes: multiprocessing.pool.Pool
) -> None:
    seeds, least = CI_SEEDS[layer]
    step = SEEDS_AT_ONCE[layer]
    tasks = [(layer, first, min(step, seeds - first)) for first in range(0, seeds, step)]
    tally: Counter[str] = Counter()
    for part in processes.starmap(run_seeds, tasks):
        tally += part
    for name, count in least.items():
        assert tally[name] >= count, f"a simulator that simulates less than it says: {tally}"


@pytest.mark.slow
@pytest.mark.parametrize("layer", sorted(LAYERS.keys() - {"kills"}))
def test_a_seed_is_one_run_and_always_the_same(layer: str) -> None:
    assert run_seed(layer, 7) == run_seed(layer, 7)
    assert run_seed(layer, 7) != run_seed(layer, 8)


def test_a_seed_that_fails_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(seed: int) -> Counter[str]:
        raise AssertionError(f"something about {seed}")

    monkeypatch.setitem(LAYERS, "lives", fail)
    with pytest.raises(Broken, match=r"something about 5\n.*tests\.sim --layer lives --seed 5$"):
        run_seeds("lives", 5, 3)
