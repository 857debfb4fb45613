"""The layers by name, and one seed of one of them: run it, or say how to run it again."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from tests.sim import lives, points, rot, tasks
from tests.sim.image import quiet

LAYERS: Final[dict[str, Callable[[int], Counter[str]]]] = {
    "points": points.run,
    "lives": lives.run,
    "rot": rot.run,
    "tasks": tasks.run,
}
"""Name -> what one seed does. Every tally counts crash points (or damaged images) as "points"."""

SEEDS_AT_ONCE: Final = {"points": 3, "lives": 150, "rot": 8, "tasks": 15}
"""So many seeds of each layer take a second or two."""

TURNS: Final = ("points",) * 12 + ("lives", "rot", "tasks")
"""A long run goes round these."""


class Broken(Exception):
    """Something that must hold did not. The message says how to see it again."""

    def __init__(self, layer: str, seed: int, why: str) -> None:
        super().__init__(f"{why}\n  again: python -m tests.sim --layer {layer} --seed {seed}")


def run_seed(layer: str, seed: int) -> Counter[str]:
    """One run, the same every time. Raises Broken."""
    with quiet():
        try:
            return LAYERS[layer](seed)
        except Exception as error:
            why = f"{layer} {seed}: {type(error).__name__}: {error}"
            raise Broken(layer, seed, why) from error


def run_seeds(layer: str, first: int, count: int) -> Counter[str]:
    """`count` runs from seed `first` on. Raises Broken at the first that fails."""
    tally: Counter[str] = Counter()
    for seed in range(first, first + count):
        tally += run_seed(layer, seed)
    return tally
