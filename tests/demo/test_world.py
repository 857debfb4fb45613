"""The ready-made world of `cortexd demo`."""

from collections.abc import Iterator
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path

import pytest
import trio

from cortexd.config.check import problems_of
from cortexd.config.schema import Eviction, RollingWindow
from cortexd.deadlines import watched_deadlines
from cortexd.demo.engine import RunningEngine
from cortexd.demo.world import (
    BALANCE_CAP_TOKENS,
    BALANCE_KEY,
    COLD,
    DISPLACED_ON,
    DISPLACING,
    LARGE,
    ROLLING_KEY,
    SMALL,
    DemoWorld,
    demo_world,
)
from cortexd.fleet.engines.controls import control_of
from cortexd.fleet.placement import Place, place
from cortexd.fleet.pool import Pool
from cortexd.fleet.reports import ModelId
from cortexd.fleet.situation import Situation
from cortexd.fleet.view import FleetView, NeuronName, before_the_first_poll, fold


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DemoWorld]:
    world = demo_world(
        listen="127.0.0.1:31313",
        metrics_listen="127.0.0.1:31314",
        ledger_directory=str(tmp_path / "ledger"),
    )
    yield world
    world.close()


def test_the_world_is_a_configuration_that_serve_would_accept(world: DemoWorld) -> None:
    assert problems_of(world.config, world.catalogue) == []


def test_the_fleet_is_mismatched_and_one_model_is_on_two_neurons(world: DemoWorld) -> None:
    where = {
        model: [n.name for n in world.neurons if model in n.machine.rack.resident]
        for model in (LARGE, SMALL)
    }

    assert where == {LARGE: ["beast"], SMALL: ["scout", "mini"]}
    assert len({n.machine.rack.devices[0].vram_total_mb for n in world.neurons}) == 3
    assert [n.endpoint for n in world.config.neurons] == [n.url for n in world.neurons]


def test_both_keys_are_capped_and_only_their_hashes_are_configured(world: DemoWorld) -> None:
    balance, rolling = world.config.entitlements.keys

    assert [key.key for key in (balance, rolling)] == [None, None]
    assert balance.key_sha256 == sha256(BALANCE_KEY.encode()).hexdigest()
    assert rolling.key_sha256 == sha256(ROLLING_KEY.encode()).hexdigest()
    assert rolling.window == RollingWindow(60)


def test_a_reservation_leaves_room_for_more_than_one_question(world: DemoWorld) -> None:
    outputs = [model.limit.output or 10**9 for model in world.catalogue.models]

    assert max(outputs) * 4 < BALANCE_CAP_TOKENS


async def test_one_model_fits_beside_the_others_and_one_only_in_the_place_of_another(
    world: DemoWorld,
) -> None:
    """What the tour promises, by the rules that the daemon goes by."""
    view = await seen(world)
    cold, displacing = placed(world, view, COLD), placed(world, view, DISPLACING)

    assert cold.evict == ()
    assert (displacing.neuron, displacing.evict) == (DISPLACED_ON, (SMALL,))


def placed(world: DemoWorld, view: FleetView, model: str) -> Place:
    """Where a model would be loaded in the world as it starts, once its models are old enough."""
    situation = Situation(
        view=view,
        catalogue=world.catalogue,
        loading=(),
        uses={},
        draining=frozenset(),
        pins={},
        now_ms=0,
    )
    found = place(ModelId(model), situation, Eviction())
    assert isinstance(found, Place)
    return found


async def seen(world: DemoWorld) -> FleetView:
    """The world as its neurons tell of it."""
    view = before_the_first_poll(world.config.neurons)
    neurons = dict(view.neurons)
    async with (
        watched_deadlines() as deadlines,
        trio.open_nursery() as nursery,
        aclosing(Pool(deadlines, connect_seconds=3)) as pool,
    ):
        for simulated, configured in zip(world.neurons, world.config.neurons, strict=True):
            await nursery.start(simulated.serve)
            control = control_of(configured, pool, timeout_seconds=5)
            name = NeuronName(configured.name)
            neurons[name] = fold(neurons[name], await control.poll())
            await control.aclose()
        nursery.cancel_scope.cancel(reason="seen")
    return FleetView(neurons)


def test_every_neuron_can_load_every_model_that_fits(world: DemoWorld) -> None:
    """Whatever a newcomer unloads, drains and loads: no neuron says that it has no such weights."""
    wanted = {model.id for model in world.catalogue.models}

    assert all(set(neuron.machine.rack.known) == wanted for neuron in world.neurons)


def test_a_real_engine_is_one_more_neuron_whose_model_fits_the_caps(tmp_path: Path) -> None:
    engine = RunningEngine("http://127.0.0.1:9", "local/tiny", 1, tmp_path / "engine.log")
    world = demo_world(
        listen="127.0.0.1:31313",
        metrics_listen="127.0.0.1:31314",
        ledger_directory=str(tmp_path / "ledger"),
        engine=engine,
    )
    world.close()
    assert problems_of(world.config, world.catalogue) == []
    assert [(each.endpoint, each.kind) for each in world.config.neurons[3:]] == [
        (engine.url, "llama-server")
    ]
    (model,) = (each for each in world.catalogue.models if each.id == engine.model)
    assert model.limit.output is not None
    assert model.limit.output < BALANCE_CAP_TOKENS / 4
