"""Every model on every neuron, with what we do with it."""

import msgspec
import pytest

from cortexd.fleet.reports import ModelId
from cortexd.fleet.residents import Resident, Residents, hot, reported
from cortexd.fleet.view import NeuronName, Status
from tests.fleet.situations import fleet, neuron, on

A, B, N = ModelId("a"), ModelId("b"), NeuronName("n")


def test_a_stay_lasts_from_when_a_model_is_seen_until_it_is_seen_no_more() -> None:
    residents = Residents()
    both = neuron("n", 10_000, has=[on("a"), on("b", status=Status.RECOVERING)])
    assert {stay.residency for stay in residents.see(both, 5)} == {(N, A), (N, B)}
    stay = residents.get(N, A)
    assert stay is not None
    assert stay.loaded_ms == stay.last_used_ms == 5
    only_a = neuron("n", 10_000, has=[on("a"), on("b", status=Status.UNLOADED)])
    assert residents.see(only_a, 9) == ()
    assert residents.get(N, A) is stay
    assert residents.get(N, B) is None
    assert list(residents.of(B)) == []
    assert residents.on(N) == (stay,)


def test_a_model_that_leaves_one_of_two_neurons_still_stays_on_the_other() -> None:
    residents = Residents()
    for name in "no":
        residents.see(neuron(name, 10_000, has=[on("a")]), 0)
    residents.see(neuron("n", 10_000), 1)
    assert [stay.residency[0] for stay in residents.of(A)] == ["o"]
    assert residents.get(NeuronName("elsewhere"), A) is None


def test_requests_in_flight_are_counted_and_told_to_placement() -> None:
    residents = Residents()
    (stay,) = residents.see(neuron("n", 10_000, has=[on("a")]), 0)
    stay.begin(7)
    assert residents.in_flight == 1
    (use,) = residents.uses(lambda _: True).values()
    assert (use.last_used_ms, use.loaded_ms, use.in_flight, use.leased) == (7, 0, 1, True)
    stay.end(9)
    assert (residents.in_flight, stay.last_used_ms) == (0, 9)
    with pytest.raises(AssertionError):
        stay.end(9)


def test_a_stay_that_is_missed_for_a_moment_keeps_its_requests_in_flight() -> None:
    """Else a model would be unloaded in the middle of answers."""
    residents = Residents()
    there = neuron("n", 10_000, has=[on("a")])
    (stay,) = residents.see(there, 0)
    stay.begin(1)
    stay.drain(B, 1, 1)
    for _ in range(2):
        residents.see(neuron("n", 10_000), 2)
        assert residents.get(N, A) is None
        assert (residents.in_flight, residents.in_flight_on(N)) == (1, 1)
    assert residents.see(there, 3) == (stay,)
    assert residents.get(N, A) is stay
    assert (stay.in_flight, stay.loaded_ms, stay.admits) == (1, 3, True)


def test_a_stay_that_is_seen_no_more_is_forgotten_with_its_last_request() -> None:
    residents = Residents()
    there = neuron("n", 10_000, has=[on("a")])
    (stay,) = residents.see(there, 0)
    stay.begin(1)
    residents.see(neuron("n", 10_000), 2)
    stay.end(3)
    residents.see(neuron("n", 10_000), 4)
    (other,) = residents.see(there, 5)
    assert other is not stay
    assert residents.in_flight_on(NeuronName("elsewhere")) == 0


def test_a_lease_protects_until_one_of_those_that_wait_had_something_of_it() -> None:
    stay = Resident((N, A), 0)
    stay.lease(2)
    stay.give_back(served=False)
    assert stay.is_unserved
    stay.give_back(served=True)
    assert not stay.is_unserved
    with pytest.raises(AssertionError):
        stay.give_back(served=True)
    stay.lease(1)
    assert stay.is_unserved, "others wait for it now"


def test_a_drain_counts_from_its_first_call_and_its_end_is_heard_of_once() -> None:
    residents = Residents()
    (stay,) = residents.see(neuron("n", 10_000, has=[on("a")]), 0)
    stay.drain(B, 1, 5)
    stay.drain(B, 1, 8)
    assert (stay.draining_since_ms, stay.draining_for, stay.admits) == (5, B, False)
    residents.end_drain(stay)
    assert stay.admits
    assert residents.take_reopened() == {A}
    residents.end_drain(stay)
    assert residents.take_reopened() == set()
    stay.unload_until_ms = 9
    assert not stay.admits
    residents.end_unload(stay)
    assert stay.admits
    assert residents.take_reopened() == {A}


def test_what_a_neuron_reports_counts_as_well_as_what_we_have_in_flight() -> None:
    stay = Resident((N, A), 0)
    view = fleet(neuron("n", 10_000, has=[on("a", in_flight=2, queued=1)]))
    assert reported(stay, view) == 3
    assert hot(stay, view, waiting=4).in_flight == 3
    assert hot(stay, view, waiting=4).waiting == 4
    stay.lease(1)
    assert hot(stay, view, waiting=0).in_flight == 4
    assert reported(stay, fleet()) == 0
    assert reported(stay, fleet(msgspec.structs.replace(view.neurons[N], models={}))) == 0
