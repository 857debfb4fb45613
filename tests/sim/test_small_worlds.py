"""Every history of the small worlds, to a stated depth."""

import pytest

from tests.sim.conftest import Work
from tests.sim.plan import CI_WORLDS


@pytest.mark.slow
@pytest.mark.parametrize(("requests", "time_steps"), CI_WORLDS)
def test_in_no_small_world_is_a_cap_passed(requests: int, time_steps: int, work: Work) -> None:
    """Up to three requests of three steps each, one crash, two steps of time, in every order."""
    explored = work.explored(requests, time_steps)
    print(explored)  # noqa: T201 (seen with -s: how many worlds that is)
    assert explored.worlds >= CI_WORLDS[requests, time_steps]
    assert explored.crashes
    assert explored.refusals or requests < 3
