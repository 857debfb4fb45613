"""Neurons that accept and never answer: what is answered from memory stays as quick as ever."""

import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import trio

from tests.support.daemon_process import serving
from tests.whole.cold_fleet import RICH, asked, catalogue

pytestmark = pytest.mark.slow

HOLES, CALLS, ROUNDS_MAX = 20, 50, 3
MEDIAN_MS, LONGEST_MS = 10, 50


async def black_hole(stack: AsyncExitStack) -> str:
    """The URL of a listener on which every connection is taken and nothing ever said."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    await stack.enter_async_context(listener)
    return f"http://127.0.0.1:{listener.socket.getsockname()[1]}"


async def milliseconds(client: httpx.AsyncClient, path: str) -> float:
    """What one call took."""
    began = time.perf_counter()
    answer = await client.get(path)
    assert answer.status_code == 200
    return (time.perf_counter() - began) * 1000


def is_quick(times_ms: list[float]) -> bool:
    """Whether these calls kept to both limits."""
    return statistics.median(times_ms) < MEDIAN_MS and max(times_ms) < LONGEST_MS


async def test_models_and_health_are_answered_at_once_with_every_neuron_a_black_hole(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        holes = {f"hole-{number}": await black_hole(stack) for number in range(HOLES)}
        models = [f"org/model-{number}" for number in range(40)]
        daemon = await stack.enter_async_context(
            serving(
                tmp_path,
                holes,
                keys=[RICH],
                polling={"interval_seconds": 0.2, "timeout_seconds": 0.2},
                models_config=catalogue(tmp_path, *models),
            )
        )
        client = await stack.enter_async_context(daemon.client())
        for path in ("/v1/models", "/health"):
            rounds: list[list[float]] = []
            # Whatever else runs on the machine can spoil a round; a black hole would spoil all.
            while not (rounds and is_quick(rounds[-1])):
                assert len(rounds) < ROUNDS_MAX, (path, rounds)
                rounds.append([await milliseconds(client, path) for _ in range(CALLS)])
        assert (await client.get("/health")).json()["nodes"] == {"healthy": 0, "total": HOLES}
        assert (await asked(daemon, models[0])).error_codes == ["no_neuron"]
