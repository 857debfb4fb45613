"""Which neurons could ever run a model."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortexd.config.schema import CatalogueModel
from cortexd.fleet.feasibility import (
    Pins,
    Reason,
    feasible_on,
    pinned_to,
    share_mb,
    why_infeasible,
    width,
)
from cortexd.fleet.reports import ModelId
from cortexd.fleet.view import NeuronName, NeuronView
from tests.fleet.situations import fleet, neuron, on

BEAST = neuron("beast", 24_000, 24_000, harnesses=("candle",))


def model(
    *,
    vram_mb: int | None = None,
    min_devices: int = 1,
    least_mb: int | None = None,
    pinned_on: tuple[str, ...] = (),
    harness: str | None = None,
) -> CatalogueModel:
    return CatalogueModel(
        "m",
        vram_mb=vram_mb,
        min_devices=min_devices,
        min_device_vram_mb=least_mb,
        pinned_on=pinned_on,
        harness=harness,
    )


@pytest.mark.parametrize(
    ("asked", "where", "reason"),
    [
        (model(), BEAST, None),
        (model(), neuron("beast", 24_000, kind="openai"), Reason.CANNOT_LOAD),
        (model(), neuron("beast", 24_000, has=[on("m")], kind="llama-server"), Reason.CANNOT_LOAD),
        (model(min_devices=3), neuron("beast", 24_000, has=[on("m")], kind="ollama"), None),
        (model(), neuron("beast", 24_000, has=[on("other")], kind="ollama"), Reason.NOT_THERE),
        (model(), neuron("beast", kind="llama-router"), Reason.NOT_THERE),
        (model(), neuron("beast", kind="llama-router", healthy=False), None),
        (model(pinned_on=("ant",)), neuron("beast", kind="ollama"), Reason.NOT_PINNED_HERE),
        (model(pinned_on=("beast",)), BEAST, None),
        (model(pinned_on=("ant", "bee")), BEAST, Reason.NOT_PINNED_HERE),
        (model(harness="candle"), BEAST, None),
        (model(harness="other"), BEAST, Reason.HARNESS_MISSING),
        (model(harness="other"), neuron("beast", 24_000), None),
        (model(min_devices=2), BEAST, None),
        (model(min_devices=3), BEAST, Reason.TOO_FEW_DEVICES),
        (model(), neuron("beast"), Reason.TOO_FEW_DEVICES),
        (model(least_mb=24_000), BEAST, None),
        (model(least_mb=24_001), BEAST, Reason.DEVICES_TOO_SMALL),
        (model(min_devices=2, least_mb=9), neuron("beast", 9, 8), Reason.DEVICES_TOO_SMALL),
        (model(vram_mb=48_000), BEAST, None),
        (model(vram_mb=48_001), BEAST, Reason.TOO_LITTLE_VRAM),
        (model(vram_mb=9, least_mb=9), neuron("beast", 9, 8), None),
        (model(vram_mb=10, least_mb=9), neuron("beast", 9, 8), Reason.TOO_LITTLE_VRAM),
        (model(), neuron("beast", 9, cuda_unavailable="?"), Reason.CUDA_UNAVAILABLE),
        (model(vram_mb=10), neuron("beast", 9, cuda_unavailable="?"), Reason.TOO_LITTLE_VRAM),
    ],
)
def test_a_neuron_can_run_what_its_cards_and_its_operator_allow(
    asked: CatalogueModel, where: NeuronView, reason: Reason | None
) -> None:
    assert why_infeasible(asked, where) is reason


def test_what_a_neuron_has_not_told_does_not_speak_against_it() -> None:
    silent = neuron("new", 8, told=False)
    assert why_infeasible(model(min_devices=4, vram_mb=10**6, harness="x"), silent) is None
    assert why_infeasible(model(pinned_on=("old",)), silent) is Reason.NOT_PINNED_HERE


def test_a_pin_at_run_time_takes_the_place_of_the_written_one() -> None:
    written = model(pinned_on=("ant",))
    here: Pins = {ModelId("m"): frozenset({NeuronName("beast")})}
    nowhere: Pins = {ModelId("m"): frozenset()}
    assert why_infeasible(written, BEAST) is Reason.NOT_PINNED_HERE
    assert why_infeasible(written, BEAST, here) is None
    assert why_infeasible(written, neuron("ant", 9), here) is Reason.NOT_PINNED_HERE
    assert why_infeasible(written, BEAST, nowhere) is None
    assert pinned_to(written) == {"ant"}


def test_a_dead_neuron_is_still_one_that_could() -> None:
    view = fleet(neuron("z", 9, healthy=False), neuron("o", 9, kind="openai"), neuron("a", 9))
    assert feasible_on(model(), view) == ("z", "a")
    assert feasible_on(model(), view, {ModelId("m"): frozenset({NeuronName("a")})}) == ("a",)


@settings(deadline=None)
@given(
    totals=st.lists(st.none() | st.integers(0, 30), max_size=5),
    vram_mb=st.none() | st.integers(0, 100),
    min_devices=st.integers(1, 4),
    least_mb=st.none() | st.integers(0, 30),
)
def test_a_model_takes_the_fewest_cards_that_can_hold_it(
    totals: list[int | None], vram_mb: int | None, min_devices: int, least_mb: int | None
) -> None:
    asked = model(vram_mb=vram_mb, min_devices=min_devices, least_mb=least_mb)

    def holds(cards: tuple[int | None, ...]) -> bool:
        each_mb = max(least_mb or 0, share_mb(vram_mb or 0, len(cards)))
        return all(total is None or total >= each_mb for total in cards)

    counts = (
        count
        for count in range(min_devices, len(totals) + 1)
        if any(map(holds, combinations(totals, count)))
    )
    assert width(asked, vram_mb, totals) == next(counts, None)
