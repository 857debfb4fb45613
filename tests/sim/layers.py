"""The layers by name, and one seed of one of them: run it, or say how to run it again."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from tests.sim import fuzz, kills, lives, points, rot, tasks
from tests.sim.image import quiet

LAYERS: Final[dict[str, Callable[[int], Counter[str]]]] = {
    "fuzz": fuzz.run,
    "points": points.run,
    "lives": lives.run,
    "rot": rot.run,
    "tasks": tasks.run,
    "kills": kills.run,
}
"""Name -> what one seed does. Tallies have crash points as "points", rot as "damaged images"."""

SEEDS_AT_ONCE: Final = {
    "fuzz": 60,
    "points": 3,
    "lives": 150,
    "rot": 8,
    "tasks": 15,
    "kills": 4,
}
"""So many seeds of each layer take a second or two."""

TURNS: Final = ("points",) * 12 + ("fuzz", "lives", "rot", "tasks")
"""A long run goes round these; real processes are killed only when they are asked for."""


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
