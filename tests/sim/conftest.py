"""The work of the simulator's tests, in as many processes as there are cores.

All of it is handed out at once when the first test asks for some, so that no core waits for another
at the end of each test.
"""

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from multiprocessing.pool import AsyncResult

import pytest

from tests.sim.layers import SEEDS_AT_ONCE, run_seeds
from tests.sim.plan import CI_SEEDS, CI_WORLDS
from tests.sim.small_worlds import Explored, explore_all


class Work:
    """What each layer and each small world comes to; asking waits for it."""

    def __init__(
        self,
        worlds: dict[tuple[int, int], AsyncResult[Explored]],
        layers: dict[str, AsyncResult[list[Counter[str]]]],
    ) -> None:
        self._worlds = worlds
        self._layers = layers

    def tally(self, layer: str) -> Counter[str]:
        """All seeds of a layer. Raises Broken."""
        tally: Counter[str] = Counter()
        for part in self._layers[layer].get():
            tally += part
        return tally

    def explored(self, requests: int, time_steps: int) -> Explored:
        """A small world, all of it."""
        return self._worlds[requests, time_steps].get()


@pytest.fixture(scope="session")
def work() -> Iterator[Work]:
    with multiprocessing.Pool() as pool:
        worlds = {depth: pool.apply_async(explore_all, depth) for depth in CI_WORLDS}
        layers = {
            layer: pool.starmap_async(run_seeds, _tasks(layer, seeds), chunksize=1)
            for layer, (seeds, _) in CI_SEEDS.items()
        }
        yield Work(worlds, layers)


def _tasks(layer: str, seeds: int) -> list[tuple[str, int, int]]:
    step = SEEDS_AT_ONCE[layer]
    return [(layer, first, min(step, seeds - first)) for first in range(0, seeds, step)]
