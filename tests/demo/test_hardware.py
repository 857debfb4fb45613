"""Memory bookkeeping of a simulated neuron's cards."""

import pytest

from cortexd.demo.hardware import Device, DoesNotFit, Rack, SimulatedModel

CARDS = (Device(0, "a", 10000), Device(1, "b", 8000))


def test_a_model_goes_to_the_card_with_most_room_and_gives_it_back() -> None:
    rack = Rack(CARDS, ())

    assert rack.put(SimulatedModel("one", 6000)).devices == (0,)
    assert rack.put(SimulatedModel("two", 6000)).devices == (1,)
    assert (rack.free_mb(0), rack.free_mb(1)) == (4000, 2000)
    assert rack.take_out("one")
    assert rack.free_mb(0) == 10000
    assert not rack.take_out("one")


def test_a_split_model_takes_its_share_of_every_card() -> None:
    rack = Rack(CARDS, ())
    rack.put(SimulatedModel("big", 15001, tensor_parallel=2))

    assert (rack.free_mb(0), rack.free_mb(1)) == (10000 - 7501, 8000 - 7501)


@pytest.mark.parametrize(
    ("devices", "what"),
    [
        ([0, 7], "device 7 does not exist"),
        ([-1], "device -1 does not exist"),
        ([1, 0, 1], "device 1 is named twice"),
    ],
)
def test_devices_that_cannot_be_meant_are_told_apart_from_full_ones(
    devices: list[int], what: str
) -> None:
    rack = Rack(CARDS, ())
    with pytest.raises(DoesNotFit, match=what):
        rack.put(SimulatedModel("small", 2), devices=devices)
    assert rack.resident == {}


@pytest.mark.parametrize(
    ("model", "devices"),
    [
        (SimulatedModel("big", 10001), None),
        (SimulatedModel("big", 9000), [1]),
        (SimulatedModel("big", 100), [7]),
        (SimulatedModel("big", 100, tensor_parallel=3), None),
    ],
)
def test_what_does_not_fit_changes_nothing(
    model: SimulatedModel, devices: list[int] | None
) -> None:
    rack = Rack(CARDS, ())

    with pytest.raises(DoesNotFit):
        rack.put(model, devices=devices)
    assert rack.resident == {}
