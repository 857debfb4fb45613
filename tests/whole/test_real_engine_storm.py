"""Many clients of every kind at once, two real engines, one key: the books agree at every moment.

What the engines counted is never more than what the ledger has spent or set aside, and that is
never more than the cap, neither in the storm nor after it.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from tests.engines.metered import Metered, metered
from tests.support.daemon_process import chat
from tests.support.raw_client import raw_client

pytestmark = pytest.mark.slow

CLIENTS = 150
HARD_CAP = 12_000
SLOT_TOKENS = 512
STORM_SECONDS = 120
LAST_TOKENS = 40

STAYING: list[dict[str, object]] = [
    {"model": "stops", "max_tokens": 60},
    {"model": "stops", "max_tokens": 60, "stream": True, "stream_options": {"include_usage": True}},
    {"model": "endless", "max_tokens": 30},
    {"model": "endless", "max_tokens": 40, "stream": True},
    {"model": "endless", "max_tokens": 20, "n": 2},
    {"model": "stops", "max_tokens": 20, "n": 2, "stream": True},
    {"model": "endless", "max_tokens": 1_000_000, "stream": True},
    {"model": "endless", "max_tokens": 10, "n_predict": 4000, "ignore_eos": True},
]
#: With the number of pieces of text after which the client leaves; 0: before there is an answer.
LEAVING: list[tuple[dict[str, object], int]] = [
    ({"model": "endless", "max_tokens": 150, "stream": True}, 5),
    ({"model": "endless", "max_tokens": 60, "stream": True}, 0),
    ({"model": "stops", "max_tokens": 60}, 0),
]


async def test_in_a_storm_the_engines_count_no_more_than_is_charged_and_that_is_within_the_cap(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    models = [tiny_models / "stops.gguf", tiny_models / "endless.gguf"]
    async with metered(
        llama_server_program, models, tmp_path, hard_cap=HARD_CAP, slot_tokens=SLOT_TOKENS
    ) as both:
        outcomes: Counter[int | str] = Counter()
        with trio.fail_after(STORM_SECONDS):
            async with trio.open_nursery() as watch:
                watch.start_soon(_keep_comparing, both)
                await _storm(both, outcomes)
                watch.cancel_scope.cancel()
            while (await both.ask(model="stops", max_tokens=LAST_TOKENS)).status_code == 200:
                outcomes["afterwards"] += 1
        for engine in both.engines:
            await engine.meter_when_idle()
        await both.daemon.settled_budget()
        spending, counted = await both.spending(), await both.counted()
        assert counted <= spending.spent <= HARD_CAP
        assert spending.spent > HARD_CAP - LAST_TOKENS - 100, "it was refused too early"
        assert {200, 429, "left"} <= set(outcomes) <= {200, 429, "left", "afterwards"}


async def _storm(both: Metered, outcomes: Counter[int | str]) -> None:
    """All clients at once, each once; what came of them goes into `outcomes`."""

    async def stay(fields: Mapping[str, object]) -> None:
        outcomes[(await both.ask(**fields)).status_code] += 1

    async def leave(fields: Mapping[str, object], after: int) -> None:
        async with raw_client(both.daemon.gateway) as client:
            await client.post(chat(**fields))  # type: ignore[arg-type]  # by name
            while after and client.received.count(b'"content":"') < after:
                if client.received.startswith(b"HTTP/1.1 429 "):
                    outcomes[429] += 1
                    return
                client.received += await client.stream.receive_some()
        outcomes["left"] += 1

    async with trio.open_nursery() as clients:
        for number in range(CLIENTS):
            kind = number % (len(STAYING) + len(LEAVING))
            if kind < len(STAYING):
                clients.start_soon(stay, STAYING[kind])
            else:
                clients.start_soon(leave, *LEAVING[kind - len(STAYING)])


async def _keep_comparing(both: Metered) -> None:
    """The engines are asked first: what they count later was reserved before."""
    while True:
        counted = await both.counted()
        spending = await both.spending()
        assert counted <= spending.spent + spending.reserved <= HARD_CAP
