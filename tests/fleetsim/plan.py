"""What of the simulator is always run, and what it has to come to."""

from typing import Final

CI_SEEDS: Final[dict[str, tuple[int, dict[str, int]]]] = {
    "small": (150, {"steps": 130_000, "served": 8_000, "loads": 1_000, "evictions": 130}),
    "duel": (30, {"steps": 30_000, "evictions": 250}),
    "large": (1, {"steps": 10_000, "loads": 100}),
}
"""Kind of world -> seeds, and what they come to at least."""

SEEDS_AT_ONCE: Final = {"small": 10, "duel": 5, "large": 1}
