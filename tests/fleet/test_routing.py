"""Which neuron serves a request, and why none does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortexd.config.schema import Neuron, Secret
from cortexd.fleet.reports import Health, ModelId, ModelLoad, ModelReport, Servable
from cortexd.fleet.routing import Route, WhyNot, choose, why_not
from cortexd.fleet.view import (
    Answered,
    FleetView,
    Missed,
    NeuronName,
    before_the_first_poll,
    fold,
)

A, B = ModelId("a"), ModelId("b")
NO_KEYS: dict[NeuronName, Secret] = {}
MISSED = (Missed("x"),) * 3


def offer(
    status: str = "loaded",
    *,
    busy: int = 0,
    servable: Servable | None = None,
    url: str | None = "http://n:1",
) -> Answered:
    report = ModelReport(A, status, servable=servable)
    load = ModelLoad("a", in_flight=busy // 2, queue_depth=busy - busy // 2)
    return Answered((report,), {} if url is None else {A: url}, Health(1, models=(load,)))


def fleet(**reports: Answered | tuple[Missed, ...]) -> FleetView:
    view = before_the_first_poll([Neuron(name, f"http://{name}:1") for name in reports])
    neurons = dict(view.neurons)
    for name, report in reports.items():
        for each in report if isinstance(report, tuple) else (report,):
            neurons[NeuronName(name)] = fold(neurons[NeuronName(name)], each)
    return FleetView(neurons)


def chosen(view: FleetView, without: frozenset[str] = frozenset(), **in_flight: int) -> str | None:
    counts = {(NeuronName(name), A): count for name, count in in_flight.items()}
    route = choose(view, counts, A, without=without, api_keys=NO_KEYS)
    return None if route is None else route.neuron


def test_the_least_busy_neuron_is_chosen() -> None:
    assert chosen(fleet(x=offer(busy=3), y=offer(busy=1), z=offer(busy=2))) == "y"


def test_what_we_have_in_flight_counts_as_busy_too() -> None:
    assert chosen(fleet(x=offer(busy=1), y=offer(busy=2)), x=2) == "y"


def test_requests_for_another_model_do_not_count() -> None:
    in_flight = {(NeuronName("x"), B): 9}
    route = choose(fleet(x=offer(), y=offer(busy=1)), in_flight, A, api_keys=NO_KEYS)
    assert route is not None
    assert route.neuron == "x"


def test_ties_go_by_name_whatever_the_order_of_configuration() -> None:
    assert chosen(fleet(c=offer(), a=offer(), b=offer())) == "a"


def test_neurons_that_were_tried_are_left_out() -> None:
    view = fleet(x=offer(), y=offer(busy=9))
    assert chosen(view, frozenset({"x"})) == "y"
    assert chosen(view, frozenset({"x", "y"})) is None


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (offer("recovering"), WhyNot.RECOVERING),
        (offer("recovering", servable=Servable(False)), WhyNot.RECOVERING),
        (offer("loading"), WhyNot.NOT_LOADED),
        (offer("unloaded", servable=Servable(False)), WhyNot.NOT_LOADED),
        (offer(servable=Servable(False)), WhyNot.UNSERVABLE),
        (offer(url=None), WhyNot.NOT_LOADED),
        (Answered(()), WhyNot.UNKNOWN),
        (MISSED, WhyNot.NO_HEALTHY_NEURON),
    ],
)
def test_a_neuron_that_cannot_serve_is_skipped_and_the_reason_is_known(
    report: Answered | tuple[Missed, ...], reason: WhyNot
) -> None:
    alone = fleet(x=report)
    assert (chosen(alone), why_not(alone, A)) == (None, reason)
    with_another = fleet(x=report, y=offer(busy=100))
    assert (chosen(with_another), why_not(with_another, A)) == ("y", None)


def test_without_neurons_there_is_no_healthy_one() -> None:
    assert why_not(fleet(), A) is WhyNot.NO_HEALTHY_NEURON


def test_of_several_reasons_the_most_hopeful_is_told() -> None:
    view = fleet(x=offer("unloaded"), y=offer("recovering"), z=offer(servable=Servable(False)))
    assert why_not(view, A) is WhyNot.RECOVERING


def test_a_model_that_only_a_dead_neuron_lists_lacks_a_healthy_one() -> None:
    view = fleet(x=Answered(()), y=offer())
    dead = view.neurons[NeuronName("y")]
    for missed in MISSED:
        dead = fold(dead, missed)
    view = FleetView({**view.neurons, dead.name: dead})
    assert why_not(view, A) is WhyNot.NO_HEALTHY_NEURON
    assert why_not(view, B) is WhyNot.UNKNOWN


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://x:1", "sk-x"),
        ("http://x:8001", "sk-x"),
        ("https://x:8001/p", "sk-x"),
        ("http://elsewhere:1", None),
    ],
)
def test_a_neurons_key_goes_only_to_the_host_it_was_given_for(url: str, key: str | None) -> None:
    """A neuron chooses the address of its models; it must not be able to send our key elsewhere."""
    keys = {NeuronName("x"): Secret("sk-x")}
    route = choose(fleet(x=offer(url=url)), {}, A, api_keys=keys)
    assert route == Route(NeuronName("x"), "neuron", A, url, key)
    assert "sk-x" not in repr(route)


@settings(deadline=None)  # the machine may be busy
@given(
    neurons=st.dictionaries(
        st.sampled_from("pqrst"),
        st.tuples(st.sampled_from(["loaded", "recovering"]), st.integers(0, 5), st.booleans()),
    ),
    without=st.frozensets(st.sampled_from("pqrst")),
)
def test_the_choice_is_the_smallest_of_all_that_can_serve(
    neurons: dict[str, tuple[str, int, bool]], without: frozenset[str]
) -> None:
    view = fleet(
        **{
            name: offer(status, busy=busy) if healthy else MISSED
            for name, (status, busy, healthy) in neurons.items()
        }
    )
    able = [
        (busy, name)
        for name, (status, busy, healthy) in neurons.items()
        if healthy and status == "loaded"
    ]
    left = [each for each in able if each[1] not in without]
    assert chosen(view, without) == (min(left)[1] if left else None)
    assert (why_not(view, A) is None) == bool(able)
