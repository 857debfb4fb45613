"""How reports change the picture of a neuron."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortexd.config.schema import Limit, Neuron, Secret
from cortexd.fleet.reports import (
    DEVICES_MAX,
    Activation,
    Device,
    DeviceHealth,
    Discovery,
    Garbage,
    Health,
    ModelId,
    ModelLoad,
    ModelReport,
    Servable,
    read_discovery,
    read_health,
    read_models,
)
from cortexd.fleet.view import (
    NEURON_UNHEALTHY,
    UNTOLD_POLLS_MAX,
    Answered,
    DeviceView,
    Missed,
    NeuronView,
    Report,
    Status,
    before_the_first_poll,
    fold,
    status_of,
)
from tests.fleet.test_reports import NEARLY_RIGHT

BEAST = Neuron("beast", "http://beast:13131", api_key=Secret("sk-secret"))
A, B = ModelId("a"), ModelId("b")
URL = "http://beast:8001"
ANSWERED = Answered((ModelReport(A, "loaded"),), {A: URL})


def beast(*reports: Report, misses_to_unhealthy: int = 3) -> NeuronView:
    [view] = before_the_first_poll([BEAST]).neurons.values()
    for report in reports:
        view = fold(view, report, misses_to_unhealthy=misses_to_unhealthy)
    return view


def test_before_the_first_poll_every_neuron_is_listed_and_none_is_healthy() -> None:
    view = before_the_first_poll([BEAST, Neuron("aux", "http://aux:1", "openai")])
    assert [(each.name, each.kind, each.healthy) for each in view.neurons.values()] == [
        ("beast", "neuron", False),
        ("aux", "openai", False),
    ]


@pytest.mark.parametrize(
    ("said", "status", "resident"),
    [
        ("loaded", Status.LOADED, True),
        ("recovering", Status.RECOVERING, True),
        ("loading", Status.LOADING, False),
        ("reloading", Status.RELOADING, False),
        ("unloaded", Status.UNLOADED, False),
        ("sleeping", Status.LOADED, True),
        ("", Status.LOADED, True),
    ],
)
def test_a_status_that_nobody_knows_means_loaded(said: str, status: Status, resident: bool) -> None:
    assert (status_of(said), status_of(said).resident) == (status, resident)


def test_one_answer_makes_a_neuron_healthy() -> None:
    view = beast(Missed("x"), Missed("x"), Missed("x"), Missed("x"), ANSWERED)
    assert (view.healthy, view.misses, view.reason) == (True, 0, None)
    assert view.models[A].can_serve


def test_a_neuron_that_never_answered_is_not_healthy_after_a_miss_either() -> None:
    view = beast(Missed("refused"))
    assert (view.healthy, view.misses, view.reason) == (False, 1, "refused")


def test_two_misses_change_nothing_for_requests() -> None:
    view = beast(ANSWERED, Missed("x"), Missed("y"))
    assert (view.healthy, view.misses, view.reason) == (True, 2, "y")
    assert view.models == beast(ANSWERED).models


def test_three_misses_in_a_row_make_a_neuron_unhealthy_and_its_models_unservable() -> None:
    view = beast(ANSWERED, Missed("x"), Missed("x"), Missed("z"))
    assert (view.healthy, view.misses, view.reason) == (False, 3, "z")
    assert view.models[A].servable == NEURON_UNHEALTHY
    assert (view.models[A].base_url, view.models[A].can_serve) == (None, False)


def test_misses_that_are_not_in_a_row_do_not_add_up() -> None:
    two = (Missed("x"), Missed("x"))
    assert beast(ANSWERED, *two, ANSWERED, *two, ANSWERED, *two).healthy


def test_how_many_misses_are_too_many_is_the_operators_word() -> None:
    assert not beast(ANSWERED, Missed("x"), misses_to_unhealthy=1).healthy


def test_misses_are_counted_on_while_a_neuron_is_down() -> None:
    view = beast(ANSWERED, *[Missed("x")] * 7)
    assert (view.misses, view.models[A].servable) == (7, NEURON_UNHEALTHY)


def test_a_model_that_is_no_longer_listed_is_gone() -> None:
    assert beast(ANSWERED, Answered((ModelReport(B, "loaded"),))).models.keys() == {B}


def test_a_model_without_an_address_cannot_serve() -> None:
    assert not beast(Answered((ModelReport(A, "loaded"),))).models[A].can_serve


def test_an_address_is_awaited_for_some_polls_in_a_row() -> None:
    unnamed = Answered((ModelReport(A, "loaded"),))
    most = beast(*[unnamed] * UNTOLD_POLLS_MAX).models[A]
    assert (most.unaddressed, most.awaits_address) == (UNTOLD_POLLS_MAX, True)
    assert not beast(*[unnamed] * (UNTOLD_POLLS_MAX + 1)).models[A].awaits_address
    assert beast(unnamed, ANSWERED, unnamed).models[A].unaddressed == 1
    assert not beast(ANSWERED).models[A].awaits_address
    ill = Answered((ModelReport(A, "loaded", servable=Servable(False)), ModelReport(B, "loading")))
    assert not any(each.awaits_address for each in beast(ill).models.values())


@pytest.mark.parametrize("status", ["recovering", "loading", "reloading", "unloaded"])
def test_a_model_that_is_not_just_loaded_cannot_serve(status: str) -> None:
    assert not beast(Answered((ModelReport(A, status),), {A: URL})).models[A].can_serve


@pytest.mark.parametrize(
    ("servable", "can"), [(None, True), (Servable(True), True), (Servable(False), False)]
)
def test_a_neuron_can_say_that_a_loaded_model_cannot_answer(
    servable: Servable | None, can: bool
) -> None:
    report = Answered((ModelReport(A, "loaded", servable=servable),), {A: URL})
    assert beast(report).models[A].can_serve is can


def test_the_load_of_a_model_comes_from_health_and_is_forgotten_when_health_is_silent() -> None:
    busy = ModelLoad("a", in_flight=2, queue_depth=3)
    health = Health(uptime_secs=9, models=(busy, ModelLoad("stray")))
    told = Answered(ANSWERED.models, ANSWERED.endpoints, health)
    assert beast(told).models[A].load == busy
    assert beast(told).models.keys() == {A}
    assert beast(told, ANSWERED).models[A].load == ModelLoad("a")


def test_devices_are_joined_by_their_index() -> None:
    discovery = Discovery(devices=(Device(1, "RTX", 24576, "8.9"), Device(0, "GTX")))
    health = Health(3, (DeviceHealth(1, 5, 6, 50.0, 61.0), DeviceHealth(7, 1)))
    view = beast(Answered((), health=health, discovery=discovery))
    assert view.devices == (
        DeviceView(0, "GTX"),
        DeviceView(1, "RTX", "8.9", 24576, 5, 6, 50.0, 61.0),
        DeviceView(7, vram_used_mb=1),
    )
    assert (view.uptime_seconds, view.activation) == (3, Activation())


def test_no_more_cards_are_looked_at_than_a_machine_can_have() -> None:
    """Decisions go through all of them, so that a list without end would stop the daemon."""
    built = tuple(Device(index) for index in range(5_000, 0, -1))
    now = tuple(DeviceHealth(index) for index in range(10_000))
    view = beast(Answered((), health=Health(devices=now), discovery=Discovery(devices=built)))
    assert [card.index for card in view.devices] == list(range(DEVICES_MAX))


def test_discovery_is_kept_when_it_is_not_told_again() -> None:
    discovery = Discovery(hostname="beast", devices=(Device(0, "RTX"),))
    view = beast(Answered((), discovery=discovery), ANSWERED)
    assert (view.discovery, view.devices[0].name) == (discovery, "RTX")


def test_a_report_is_carried_over_whole() -> None:
    report = ModelReport(
        A, "loaded", "candle", (0,), 7, ("text",), Limit(context=9), None, True, True
    )
    model = beast(Answered((report,))).models[A]
    assert (model.harness, model.devices, model.vram_used_mb) == ("candle", (0,), 7)
    assert (model.capabilities, model.limit, model.cost) == (("text",), Limit(context=9), None)
    assert model.tool_call
    assert model.reasoning


def test_a_view_can_be_shown_as_it_is_and_holds_no_secret() -> None:
    shown = msgspec.json.encode(before_the_first_poll([BEAST])) + msgspec.json.encode(
        beast(ANSWERED)
    )
    assert b"secret" not in shown
    assert b'"endpoint":"http://beast:13131"' in shown


@settings(max_examples=40, deadline=None)  # the machine may be busy
@given(said=st.lists(st.tuples(NEARLY_RIGHT, NEARLY_RIGHT, NEARLY_RIGHT), max_size=3))
def test_whatever_a_neuron_says_is_a_report_that_can_be_folded(
    said: list[tuple[object, object, object]],
) -> None:
    view = beast()
    for bodies in said:
        models, health, discovery = map(msgspec.json.encode, bodies)
        report: Report
        try:
            report = Answered(
                read_models(models), {A: URL}, read_health(health), read_discovery(discovery)
            )
        except Garbage as garbage:
            report = Missed(garbage.reason)
        view = fold(view, report)
    msgspec.json.encode(view)
