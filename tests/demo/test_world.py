"""The ready-made world of `cortexd demo`."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from cortexd.config.check import problems_of
from cortexd.config.schema import RollingWindow
from cortexd.demo.world import (
    BALANCE_CAP_TOKENS,
    BALANCE_KEY,
    LARGE,
    ROLLING_KEY,
    SMALL,
    DemoWorld,
    demo_world,
)


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
