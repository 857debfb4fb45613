"""Every history of the small worlds, to a stated depth."""

import pytest

from tests.sim.small_worlds import Explored, explore, first_world


@pytest.mark.slow
@pytest.mark.parametrize(
    ("requests", "time_steps", "least"), [(2, 1, 1_000), (2, 2, 10_000), (3, 1, 100_000)]
)
def test_in_no_small_world_is_a_cap_passed(requests: int, time_steps: int, least: int) -> None:
    """Up to three requests of three steps each, one crash, two steps of time, in every order."""
    explored = Explored()
    explored.worlds = explore(first_world(requests, time_steps), explored)
    print(explored)  # noqa: T201 (seen with -s: how many worlds that is)
    assert explored.worlds >= least
    assert explored.crashes
    assert explored.refusals or requests < 3
