"""What of the simulator is always run, and what it has to come to."""

from typing import Final

CI_SEEDS: Final[dict[str, tuple[int, dict[str, int]]]] = {
    "fuzz": (1_300, {"steps": 200_000, "windows changed": 2_000}),
    "points": (82, {"points": 50_000}),
    "lives": (3_800, {"points": 10_000, "dispatched": 40_000}),
    "rot": (14, {"damaged images": 8_500}),
    "tasks": (390, {"points": 6_000, "requests": 20_000}),
    "kills": (25, {"kills": 200}),
}
"""Layer -> seeds, and what they come to at least: 50,000 crash points in one layer alone."""

CI_WORLDS: Final = {(3, 1): 100_000, (2, 2): 10_000, (2, 1): 1_000}
"""Small worlds by requests and steps of time, the largest first -> histories at least."""
