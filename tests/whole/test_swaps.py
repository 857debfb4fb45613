"""Two models on one card under two busy users: both go on, and nobody is robbed of an answer."""

from pathlib import Path

import pytest
import trio

from cortexd.demo.hardware import Device, SimulatedModel
from tests.support.daemon_process import DaemonProcess, serving
from tests.support.fake_neuron import running, turned
from tests.support.mortal_neuron import mortal_neuron
from tests.support.watched_neuron import WatchedNeuron
from tests.whole.cold_fleet import (
    QUICK_POLLS,
    RICH,
    Asked,
    asked,
    catalogue,
    logged,
    metrics,
    served_in_the_end,
)

pytestmark = pytest.mark.slow

OAK, FERN, MOSS = "sim/oak", "sim/fern", "sim/moss"
LARGE_MB = 16_000
CARD = (Device(0, "a card", 24_000),)
SWAP_SECONDS, DRAIN_SECONDS, RUN_SECONDS = 0.8, 0.4, 3.5


def shared_card(**switches: object) -> WatchedNeuron:
    """A card that holds one large model at a time, and a small one beside it."""
    sizes = {OAK: LARGE_MB, FERN: LARGE_MB, MOSS: 2_000}
    models = [
        SimulatedModel(model, size_mb, resident=False, load_seconds=0.1)
        for model, size_mb in sizes.items()
    ]
    return WatchedNeuron("beast", models, CARD, switches=turned(**switches))


class User:
    """Somebody who asks for one model again and again."""

    def __init__(self, daemon: DaemonProcess, model: str) -> None:
        self._daemon = daemon
        self._model = model
        self.answers: list[Asked] = []

    async def ask_until(self, end: float) -> None:
        """The next question follows at the end of each answer."""
        while trio.current_time() < end:
            stream = len(self.answers) % 2 == 0
            self.answers.append(await asked(self._daemon, self._model, stream=stream))


async def test_two_busy_models_that_share_a_card_take_turns_and_no_request_is_lost(
    tmp_path: Path,
) -> None:
    neuron = shared_card(token_seconds=0.002, reply_tokens=20)
    async with (
        running(neuron),
        serving(
            tmp_path,
            {"beast": neuron.url},
            keys=[RICH],
            polling=QUICK_POLLS,
            models_config=catalogue(tmp_path, OAK, FERN, vram_mb=LARGE_MB),
            eviction={
                "min_residency_seconds": 0.3,
                "max_swap_wait_seconds": SWAP_SECONDS,
                "drain_seconds": DRAIN_SECONDS,
            },
        ) as daemon,
    ):
        users = [User(daemon, model) for model in (OAK, FERN) for _ in range(2)]
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for user in users:
                nursery.start_soon(user.ask_until, began + RUN_SECONDS)
        took_seconds = trio.current_time() - began

        lost = [each.received for user in users for each in user.answers if not each.is_served]
        assert lost == []
        assert neuron.robbed == []
        answered = sum(len(user.answers) for user in users)
        assert neuron.chat_hits == answered, "nobody was sent to a model that had gone"
        # A model that got its turn keeps it for this long at least, while it is busy.
        turn_seconds = SWAP_SECONDS - DRAIN_SECONDS
        assert 3 <= neuron.unloads <= took_seconds / turn_seconds + 1
        assert neuron.loads == neuron.unloads + 1
        assert all(len(user.answers) >= neuron.loads / 2 for user in users)

        evicted = await logged(daemon, "unloaded", neuron.unloads)
        assert all("why=makes_room" in line for line in evicted)
        found = await metrics(daemon)
        evictions = [found[_sample("cortex_evictions_total", model)] for model in (OAK, FERN)]
        assert sum(evictions) == neuron.unloads
        loads = [found[_sample("cortex_cold_starts_total", model)] for model in (OAK, FERN)]
        assert sum(loads) == neuron.loads
        assert found['cortex_wait_seconds_count{clock="load"}'] >= neuron.loads
        assert found['cortex_neuron_load_cycles{node="beast"}'] == neuron.unloads
        budget = await daemon.settled_budget()
        assert budget["spent"] == neuron.counters.served.total


async def test_a_long_stream_is_not_broken_off_for_another_model_which_is_told_so(
    tmp_path: Path,
) -> None:
    """Both stand still for no longer than the drain, and then the long one goes on."""
    neuron = shared_card(gated=True, reply_tokens=5)
    async with (
        running(neuron),
        serving(
            tmp_path,
            {"beast": neuron.url},
            keys=[RICH],
            polling=QUICK_POLLS,
            models_config=catalogue(tmp_path, OAK, FERN, vram_mb=LARGE_MB),
            eviction={
                "min_residency_seconds": 0,
                "max_swap_wait_seconds": 0.6,
                "drain_seconds": 0.3,
            },
        ) as daemon,
        trio.open_nursery() as nursery,
    ):
        long: list[Asked] = []

        async def ask_long() -> None:
            long.append(await asked(daemon, OAK, stream=True))

        nursery.start_soon(ask_long)
        await neuron.wait_for_hits(1)
        for stream in (True, False):
            assert (await asked(daemon, FERN, stream=stream)).error_codes == ["no_room"]
        assert (neuron.unloads, long) == (0, [])
        await neuron.allow(10)
        assert (await asked(daemon, FERN)).is_served
        assert long[0].is_served
        assert neuron.robbed == []
        assert neuron.unloads == 1


async def test_a_load_that_was_given_up_unloads_nothing_more_once_its_neuron_is_back(
    tmp_path: Path,
) -> None:
    """Who waited for it was told so, and what it wanted to displace may be in use again."""
    options = ("--vram-mb", "10000", "--model", OAK, "--model", MOSS, "--cold", FERN)
    async with (
        mortal_neuron(tmp_path, "beast", *options) as neuron,
        serving(
            tmp_path,
            {"beast": neuron.url},
            keys=[RICH],
            polling={"interval_seconds": 0.2, "timeout_seconds": 0.4},
            models_config=catalogue(tmp_path, FERN, vram_mb=22_000),
            eviction={"min_residency_seconds": 0},
        ) as daemon,
    ):
        for model in (OAK, MOSS):
            assert (await asked(daemon, model)).is_served
        neuron.freeze()
        told = await asked(daemon, FERN, stream=True)
        assert told.error_codes == ["model_load_failed"]
        neuron.thaw()
        await logged(daemon, "unloaded")  # the one call that was on its way
        await served_in_the_end(daemon, MOSS)
        assert await daemon.stop() == 0
        [unloaded] = await logged(daemon, "unloaded")
        assert f"model={OAK} " in unloaded


def _sample(name: str, model: str) -> str:
    return f'{name}{{model="{model}",node="beast"}}'
