"""Everything at once: users of many models, neurons that restart and fail, and an operator.

All choices are made by the seed; only the times are the machine's.
"""

import contextlib
import itertools
import random
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from cortexd.demo.hardware import Device, SimulatedModel
from cortexd.demo.switches import EVERY_PATH, BreakKind, Broken
from tests.support.daemon_process import PATIENCE_SECONDS, DaemonProcess, chat, serving
from tests.support.fake_neuron import running, turned
from tests.support.raw_client import raw_client
from tests.support.watched_neuron import WatchedNeuron
from tests.whole.cold_fleet import RICH, admin, asked, catalogue

pytestmark = pytest.mark.slow

SEED, SECONDS, USERS = 7, 4, 12
SIZES_MB = {
    "sim/oak": 16_000,
    "sim/fern": 16_000,
    "sim/moss": 7_000,
    "sim/yew": 7_000,
    "sim/ivy": 2_000,
}
MODELS = list(SIZES_MB)
NAMES = ("beast", "scout", "mini")
#: What a user may be told meanwhile.
ERRORS = {
    "model_load_failed",
    "no_room",
    "no_neuron",
    "model_loading",
    "queue_timeout",
    "upstream_failed",
    "upstream_unreachable",
    "overloaded",
    "upstream_timeout",
}


def neuron(name: str) -> WatchedNeuron:
    """One 24 GB card, all models known, none loaded."""
    models = [
        SimulatedModel(model, size_mb, resident=False, load_seconds=0.05)
        for model, size_mb in SIZES_MB.items()
    ]
    card = (Device(0, "a card", 24_000),)
    switches = turned(token_seconds=0.001, natural_tokens=(1, 40))
    return WatchedNeuron(name, models, card, switches=switches)


def mend(neuron: WatchedNeuron) -> None:
    """Nothing goes wrong there any more."""
    neuron.switches.faults.clear()
    neuron.switches.load_failures.clear()
    neuron.switches.load_breaks.clear()


class Storm:
    """Who takes part, and what they met."""

    def __init__(self, daemon: DaemonProcess, operator: httpx.AsyncClient, seed: int) -> None:
        self.daemon = daemon
        self.operator = operator
        self.seed = seed
        self.met: Counter[str] = Counter()
        self.told: Counter[int] = Counter()

    async def user(self, number: int) -> None:
        """Ask for whatever; leave early now and then."""
        choices = random.Random(f"{self.seed}.user.{number}")
        while True:
            model, stream = choices.choice(MODELS), choices.random() < 0.6
            if choices.random() < 0.15:
                await self._leave_early(model, choices.uniform(0, 0.3))
                continue
            with trio.fail_after(PATIENCE_SECONDS):
                answer = await asked(self.daemon, model, stream=stream)
            codes = answer.error_codes
            assert answer.is_served or len(codes) == 1, answer.received
            self.met.update(codes or ["served"])

    async def _leave_early(self, model: str, after_seconds: float) -> None:
        async with raw_client(self.daemon.gateway) as client:
            await client.post(chat(model=model, stream=True))
            with trio.move_on_after(after_seconds):
                await client.read_to_the_end()
        self.met["left"] += 1

    async def trouble(self, neuron: WatchedNeuron) -> None:
        """Restarts, loads that fail or are never answered, unloads that fail."""
        choices = random.Random(f"{self.seed}.{neuron.name}")
        switches = neuron.switches
        while True:
            with trio.move_on_after(choices.uniform(0.1, 0.6)):
                await trio.sleep_forever()
            mend(neuron)
            model = choices.choice(MODELS)
            troubles: list[Callable[[], object]] = [
                partial(neuron.restart, empty=True),
                partial(switches.load_failures.update, {model: "empty_repo"}),
                partial(switches.load_breaks.update, {model: BreakKind.RESET}),
                partial(switches.load_breaks.update, {model: BreakKind.SILENCE}),
                partial(switches.refuse, 503, path="/models/unload"),
                partial(switches.refuse, 503, retry_after="1"),
                partial(switches.faults.update, {"/models": Broken(BreakKind.SILENCE)}),
                partial(switches.faults.update, {EVERY_PATH: Broken(BreakKind.RESET)}),
            ]
            if choices.random() < 0.6:
                choices.choice(troubles)()

    async def _order(self, action: str, body: object) -> None:
        answer = await self.operator.post(f"/{action}", json=body, timeout=PATIENCE_SECONDS)
        self.told[answer.status_code] += 1

    async def give_orders(self, nursery: trio.Nursery) -> None:
        """Load, unload, pin, drain: whatever; nothing of it may be a bug."""
        choices = random.Random(f"{self.seed}.operator")
        for number in itertools.count():
            with trio.move_on_after(choices.uniform(0.02, 0.2)):
                await trio.sleep_forever()
            model, name = choices.choice(MODELS), choices.choice(NAMES)
            action, body = choices.choice(
                [
                    ("load", {"model": model}),
                    ("load", {"model": model, "neuron": name}),
                    ("unload", {"model": model}),
                    ("unload", {"model": model, "neuron": name}),
                    ("pin", {"model": model, "neurons": [name]}),
                    ("unpin", {"model": model}),
                    ("drain", {"neuron": name}),
                    ("undrain", {"neuron": name}),
                ]
            )
            nursery.start_soon(self._order, action, body)
            if number % 3 == 0:
                await self.operator.post("/undrain", json={"neuron": choices.choice(NAMES)})

    async def calm(self, neurons: list[WatchedNeuron]) -> None:
        """Everything works again."""
        for each in neurons:
            mend(each)
            await self.operator.post("/undrain", json={"neuron": each.name})
        for model in MODELS:
            await self.operator.post("/unpin", json={"model": model})


async def test_nobody_is_robbed_nothing_is_stuck_and_nothing_is_lost_in_a_storm(
    tmp_path: Path,
) -> None:
    await storm(tmp_path, SEED, SECONDS)


async def storm(directory: Path, seed: int, seconds: float) -> Storm:
    """One storm, and the calm after it."""
    neurons = [neuron(name) for name in NAMES]
    async with contextlib.AsyncExitStack() as stack:
        for each in neurons:
            await stack.enter_async_context(running(each))
        path = directory / "admin.sock"
        daemon = await stack.enter_async_context(
            serving(
                directory,
                {each.name: each.url for each in neurons},
                keys=[RICH],
                polling={"interval_seconds": 0.2, "timeout_seconds": 0.3},
                models_config=catalogue(directory, others_mb=SIZES_MB),
                gateway={"admin_socket": str(path), "first_byte_seconds": 2},
                eviction={
                    "min_residency_seconds": 0.1,
                    "max_swap_wait_seconds": 0.4,
                    "drain_seconds": 0.2,
                },
                waiting={"queue_seconds": 5, "load_seconds": 5, "plain_wait_seconds": 5},
            )
        )
        operator = await stack.enter_async_context(admin(path))
        it = Storm(daemon, operator, seed)
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for number in range(USERS):
                    nursery.start_soon(it.user, number)
                for each in neurons:
                    nursery.start_soon(it.trouble, each)
                nursery.start_soon(it.give_orders, nursery)
        await it.calm(neurons)

        assert it.met["served"] > USERS, it.met
        assert set(it.met) - ERRORS <= {"served", "left"}, it.met
        assert set(it.told) <= {200, 404, 409, 502}, it.told
        assert [each.robbed for each in neurons if each.robbed] == []
        budget = await daemon.settled_budget()
        assert int(str(budget["spent"])) >= sum(each.counters.served.total for each in neurons)
        with trio.fail_after(PATIENCE_SECONDS):
            for model in MODELS:
                answer = await asked(daemon, model)
                assert answer.is_served or set(answer.error_codes) <= ERRORS, answer.received
            while any(
                line["waiting"] or line["in_flight"]
                for line in (await operator.get("/models")).json()["models"]
            ):
                pass
        log = daemon.log.read_text()
        assert not re.search("event=bug|Traceback", log), log[-5000:]
        assert await daemon.stop() == 0
    return it
