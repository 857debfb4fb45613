"""The independent meter, small: what engines counted is charged, through all that befalls them."""

import random
from itertools import islice
from pathlib import Path

import pytest
import trio

from tests.engines.meter import SMALL, run
from tests.engines.metered import metered
from tests.engines.storm import Storm, drawn

pytestmark = pytest.mark.slow

STORM_SECONDS = 120
ALONE = 40
"""Requests of each model that are looked at one by one."""


async def test_in_a_storm_the_engines_count_no_more_than_is_charged_and_that_is_within_the_cap(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    """Engines are stopped, killed, ended and unloaded in it, and counted over all their lives."""
    with trio.fail_after(STORM_SECONDS):
        found = await run(SMALL, llama_server_program, tiny_models, tmp_path)
    assert found.problems == []
    assert found.overruns == 0
    assert [row.requests for row in found.rows] == [200, 100]


@pytest.mark.parametrize("model", ["endless", "stops"])
async def test_no_request_costs_less_than_the_engine_counted_for_it(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path, model: str
) -> None:
    """One at a time, so that none makes up for another."""
    models = [tiny_models / f"{model}.gguf"]
    async with metered(
        llama_server_program, models, tmp_path, kind="llama-server", hard_cap=1_000_000
    ) as both:
        storm = Storm(both.daemon.gateway, "sk-cap", sees_them_out=True)
        late = 0
        for ask in islice(drawn(random.Random(model), [model]), ALONE):
            await storm.run([ask], at_once=1)
            charged, counted = await both.costs()
            assert counted.tokens <= charged + late, ask
            # The engine may not even have begun with what a client has left already.
            late = max(0, charged - counted.tokens) if ask.stage else 0
        assert storm.outcomes["answered"] > ALONE / 3
