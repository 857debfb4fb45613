"""Some seeds of every layer of the simulator; `make sim` runs on where these end."""

from collections import Counter

import pytest

from tests.sim.conftest import Work
from tests.sim.layers import LAYERS, Broken, run_seed, run_seeds
from tests.sim.plan import CI_SEEDS


def test_the_seeds_that_are_always_run_make_fifty_thousand_crash_points() -> None:
    assert CI_SEEDS.keys() == LAYERS.keys()
    assert CI_SEEDS["points"][1]["points"] >= 50_000


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
def test_no_crash_no_rot_and_no_clock_makes_the_ledger_forget_what_was_spent(
    layer: str, work: Work
) -> None:
    tally = work.tally(layer)
    for name, count in CI_SEEDS[layer][1].items():
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
