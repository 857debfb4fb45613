"""Two thousand at once on a cap that fits k; `python -m tests.torture --fan-out 100` runs more."""

from pathlib import Path

import pytest
import trio

from tests.torture.fan_out import BOUND_TOKENS, REQUESTS, caps_for, in_process, over_sockets

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [1, 2])
async def test_of_two_thousand_at_once_exactly_those_that_fit_reach_a_neuron(
    tmp_path: Path, seed: int
) -> None:
    with trio.fail_after(300):
        tally = await in_process(tmp_path, 1, seed)
    [fitting] = caps_for(1, seed)
    assert tally == {"requests": REQUESTS, "dispatched": fitting, "repetitions": 1}


async def test_of_two_thousand_connections_exactly_those_that_fit_reach_a_neuron(
    tmp_path: Path,
) -> None:
    with trio.fail_after(300):
        tally = await over_sockets(tmp_path, 1, seed=3)
    assert (tally["requests"], tally["dispatched"]) == (REQUESTS, caps_for(1, 3)[0])


def test_the_caps_begin_with_none_one_and_nearly_all() -> None:
    assert caps_for(5, 1)[:3] == [0, 1, REQUESTS - 1]
    assert len(caps_for(5, 1)) == 5
    assert all(1 < fitting < REQUESTS / 2 for fitting in caps_for(1, 1))
    assert BOUND_TOKENS == 32 + 20
