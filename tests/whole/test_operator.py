"""The operator's verbs as processes, on the admin socket of a running daemon."""

import contextlib
import json
import stat
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import trio

from cortexd.demo.hardware import SimulatedModel
from tests.support.daemon_process import DaemonProcess, run_cortexd, serving
from tests.support.fake_neuron import running, turned
from tests.support.watched_neuron import WatchedNeuron
from tests.whole.cold_fleet import QUICK_POLLS, RICH, asked, catalogue

pytestmark = pytest.mark.slow

OAK, FERN, YEW = "sim/oak", "sim/fern", "sim/yew"
ALIASES = {"tree": OAK}
Line = Mapping[str, object]


class World:
    """A daemon, its two neurons, and its operator."""

    def __init__(self, daemon: DaemonProcess, neurons: Mapping[str, WatchedNeuron]) -> None:
        self.daemon = daemon
        self.beast, self.scout = neurons["beast"], neurons["scout"]
        self.socket = daemon.log.with_name("admin.sock")

    async def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a verb on the daemon's socket."""
        return await run_cortexd([*words, "--socket", self.socket])

    async def told(self, *words: str) -> Mapping[str, list[Line]]:
        """What a verb that has to work says with --json."""
        done = await self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        said: Mapping[str, list[Line]] = json.loads(done.stdout)
        return said

    async def refused(self, *words: str) -> str:
        """What a verb says on standard error that must fail."""
        done = await self.run(*words)
        assert (done.returncode, done.stdout) == (1, ""), done
        return done.stderr

    def neurons_hit(self) -> tuple[int, int]:
        """Chat requests at each of the two."""
        return self.beast.chat_hits, self.scout.chat_hits


@contextlib.asynccontextmanager
async def world(directory: Path, **switches: object) -> AsyncIterator[World]:
    """Two neurons that know two models and have none loaded; a third model fits nowhere."""
    known = [SimulatedModel(model, resident=False) for model in (OAK, FERN)]
    neurons = {
        name: WatchedNeuron(name, known, switches=turned(reply_tokens=3, **switches))
        for name in ("beast", "scout")
    }
    async with (
        running(neurons["beast"]) as beast,
        running(neurons["scout"]) as scout,
        serving(
            directory,
            {"beast": beast.url, "scout": scout.url},
            keys=[RICH],
            polling=QUICK_POLLS,
            models_config=catalogue(directory, OAK, FERN, aliases=ALIASES, others_mb={YEW: 90_000}),
            gateway={"admin_socket": str(directory / "admin.sock")},
        ) as daemon,
    ):
        yield World(daemon, neurons)


def places(lines: list[Line], model: str) -> dict[object, object]:
    """Neuron -> status of a model."""
    return {line["neuron"]: line["status"] for line in lines if line["model"] == model}


async def test_every_verb_does_on_a_running_daemon_what_it_says(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        assert stat.S_IMODE(it.socket.stat().st_mode) == 0o600
        shown = await it.told("models")
        assert places(shown["models"], OAK) == {"": "cold"}
        assert places(shown["models"], YEW) == {"": "unavailable"}
        assert [line["healthy"] for line in shown["neurons"]] == [True, True]

        loaded = await it.told("load", "tree", "--neuron", "scout")
        assert places(loaded["models"], OAK) == {"scout": "loaded"}
        assert (it.beast.loads, it.scout.loads) == (0, 1)
        assert (await asked(it.daemon, OAK)).is_served
        assert it.neurons_hit() == (0, 1)

        assert places((await it.told("unload", "tree"))["models"], OAK) == {"": "cold"}
        assert it.scout.unloads == 1
        pinned = await it.told("pin", OAK, "beast")
        assert [line["pinned"] for line in pinned["models"]] == [True]
        assert (await asked(it.daemon, "tree")).is_served
        assert it.neurons_hit() == (1, 1)

        drained = await it.told("drain", "beast")
        assert [line["draining"] for line in drained["neurons"]] == [True]
        assert (await asked(it.daemon, OAK)).error_codes == ["no_neuron"]
        await it.told("pin", OAK, "--clear")
        assert (await asked(it.daemon, OAK)).is_served
        assert it.neurons_hit() == (1, 2)
        await it.told("undrain", "beast")
        await it.told("drain", "scout")
        assert (await asked(it.daemon, OAK)).is_served
        assert it.neurons_hit() == (2, 2)

        table = await it.run("models")
        assert table.returncode == 0
        assert "healthy, draining" in table.stdout
        assert await it.daemon.stop() == 0
        assert not it.socket.exists()
        assert "Is cortexd running?" in await it.refused("models")


async def test_an_alias_is_as_good_as_the_id_in_what_a_verb_tells(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        pinned = await it.told("pin", "tree", "beast")
        assert places(pinned["models"], OAK) == {"": "cold"}
        first = await it.run("load", "tree")
        assert "waiting for tree: about 12 s" in first.stderr
        assert "tree is loaded already" in (await it.run("load", "tree")).stderr
        it.beast.switches.gated = it.scout.switches.gated = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked, it.daemon, OAK)
            with trio.fail_after(20):
                while not sum(it.neurons_hit()):
                    await trio.lowlevel.checkpoint()
            nursery.start_soon(let_go, it)
            said = await it.run("unload", "tree")
        assert "waiting for what tree has in flight: 1." in said.stderr
        assert places((await it.told("models"))["models"], OAK) == {"": "cold"}


async def let_go(it: World) -> None:
    """Let the request end once its model is to leave."""
    with trio.fail_after(20):
        while not any(
            line["note"]
            for line in (await it.told("models"))["models"]
            if line["model"] == OAK and line["neuron"]
        ):
            pass
    for neuron in (it.beast, it.scout):
        await neuron.allow(3)


async def test_drain_can_wait_until_the_last_request_has_ended(tmp_path: Path) -> None:
    async with world(tmp_path, gated=True) as it, trio.open_nursery() as nursery:
        nursery.start_soon(asked, it.daemon, OAK)
        with trio.fail_after(20):
            while not sum(it.neurons_hit()):
                await trio.lowlevel.checkpoint()
        name, busy = ("beast", it.beast) if it.beast.chat_hits else ("scout", it.scout)
        done: list[Line] = []

        async def drain() -> None:
            done.extend((await it.told("drain", name, "--wait"))["neurons"])

        nursery.start_soon(drain)
        with trio.fail_after(20):
            while not any(line["draining"] for line in (await it.told("models"))["neurons"]):
                pass
        assert done == []
        assert busy.in_flight == 1
        await busy.allow(3)
        with trio.fail_after(20):
            while not done:
                await trio.lowlevel.checkpoint()
        assert done[0]["in_flight"] == 0


async def test_what_cannot_be_done_is_one_line_that_says_why_and_exit_code_1(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as it:
        it.beast.switches.load_failures[FERN] = "empty_repo"
        said = {
            ("load", "sim/absent"): "Neither the catalogue nor a neuron has the model sim/absent.",
            ("unload", "sim/absent"): "Neither the catalogue nor a neuron has the model",
            ("pin", "sim/absent", "beast"): "Neither the catalogue nor a neuron has the model",
            ("load", OAK, "--neuron", "nobody"): "No neuron is called nobody.",
            ("pin", OAK, "nobody"): "Name one of: beast, scout.",
            ("drain", "nobody"): "No neuron is called nobody.",
            ("undrain", "nobody"): "No neuron is called nobody.",
            ("load", YEW): "no neuron here has the memory that it needs",
            ("load", FERN, "--neuron", "beast"): "there are no weights where they should come from",
        }
        heard: dict[tuple[str, ...], str] = {}

        async def hear(*words: str) -> None:
            heard[words] = await it.refused(*words)

        async with trio.open_nursery() as nursery:
            for words in said:
                nursery.start_soon(hear, *words)
        for words, part in said.items():
            assert part in heard[words], (words, heard[words])
            lines = heard[words].splitlines()
            assert len([line for line in lines if "waiting for" not in line]) == 1, lines
        assert (await it.run("pin", OAK)).returncode == 2
        assert (await it.run("load")).returncode == 2
        assert (it.scout.loads, it.beast.loads) == (0, 1)
