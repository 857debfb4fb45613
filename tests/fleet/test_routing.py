"""Which neuron serves a request, how many it is given at once, and who hears that one is free."""

from collections.abc import Callable
from typing import TypeAlias

import msgspec
import pytest

from cortexd.config.schema import CatalogueModel, Neuron, Secret
from cortexd.fleet.affinity import Mark
from cortexd.fleet.breaker import State, Verdict
from cortexd.fleet.reports import Discovery, ModelId, ModelLoad
from cortexd.fleet.residents import Resident
from cortexd.fleet.routing import Route, route_to
from cortexd.fleet.serving import Serving
from cortexd.fleet.view import ModelView, NeuronName, Status
from tests.fleet.situations import neuron, on
from tests.support.small_fleet import SmallFleet

A, N = ModelId("a"), NeuronName("n")
FAILURES_TO_OPEN = 5

Change: TypeAlias = Callable[[SmallFleet], object]


def fleet_of(*most: int | None, models: str = "a") -> SmallFleet:
    """A neuron for each number, each with these models loaded; the number is what it is given."""
    names = "nopqr"[: len(most)]
    return SmallFleet(
        *(neuron(name, 48_000, has=[on(model, mb=1_000) for model in models]) for name in names),
        models=tuple(CatalogueModel(model, vram_mb=1_000) for model in models),
        configured=tuple(
            Neuron(name, f"http://{name}:1", max_in_flight=many)
            for name, many in zip(names, most, strict=True)
        ),
    )


def open_the_breaker(fleet: SmallFleet, model: str = "a") -> None:
    for _ in range(FAILURES_TO_OPEN):
        fleet.end(fleet.serve(model), Verdict.FAILED)


def test_who_waits_when_a_breaker_opens_is_served_as_soon_as_it_lets_one_pass() -> None:
    fleet = fleet_of(1)
    for _ in range(FAILURES_TO_OPEN - 1):
        fleet.end(fleet.serve("a"), Verdict.FAILED)
    serving = fleet.serve("a")
    waiting = fleet.wait("a")
    fleet.end(serving, Verdict.FAILED)
    fleet.pass_ms(999)
    assert waiting.answer is None
    fleet.pass_ms(1)
    assert isinstance(waiting.answer, Serving)


def test_who_waits_for_another_model_of_a_neuron_hears_that_its_breaker_closed() -> None:
    """A breaker is the neuron's, whichever model's request closes it."""
    fleet = fleet_of(None, models="ab")
    open_the_breaker(fleet)
    waiting = [fleet.wait(model) for model in "ab"]
    fleet.pass_ms(1_000)
    (probe,) = [each.answer for each in waiting if each.answer is not None]
    assert isinstance(probe, Serving)
    fleet.end(probe, Verdict.WORKED)
    assert all(isinstance(each.answer, Serving) for each in waiting)


def test_who_waits_is_served_by_a_breaker_that_reopens_while_another_neuron_is_full() -> None:
    fleet = fleet_of(None, 1)
    for _ in range(FAILURES_TO_OPEN):
        serving = fleet.dispatcher.elsewhere(fleet.wanted("a"), {NeuronName("o")}, fleet.now_ms)
        assert serving is not None
        fleet.end(serving, Verdict.FAILED)
    assert fleet.serve("a").route.neuron == "o"
    waiting = fleet.wait("a")
    fleet.pass_ms(1_000)
    assert isinstance(waiting.answer, Serving)
    assert waiting.answer.route.neuron == "n"


def test_the_least_busy_replica_is_chosen_by_its_report_and_our_own_count_then_by_name() -> None:
    fleet = fleet_of(None, None)
    assert [fleet.serve("a").route.neuron for _ in range(3)] == ["n", "o", "n"]
    fleet.poll("n", models={A: on("a", in_flight=3, queued=2)[0]})
    assert fleet.serve("a").route.neuron == "o"


def test_a_neuron_is_given_no_more_at_once_than_it_may() -> None:
    fleet = fleet_of(2)
    serving = [fleet.serve("a"), fleet.serve("a")]
    waiting = fleet.wait("a")
    fleet.end(serving[0])
    assert isinstance(waiting.answer, Serving)


@pytest.mark.parametrize(
    "offer",
    [
        on("a", status=Status.RECOVERING)[0],
        on("a", servable=False)[0],
        ModelView(A, Status.LOADED, on("a")[0].load, base_url=None),
    ],
)
def test_a_model_that_cannot_serve_is_not_chosen(offer: ModelView) -> None:
    fleet = fleet_of(None, None)
    fleet.poll("n", models={A: offer})
    assert [fleet.serve("a").route.neuron for _ in range(2)] == ["o", "o"]


def test_a_neuron_that_is_drained_or_unhealthy_gets_no_further_requests() -> None:
    fleet = fleet_of(None, None, None)
    fleet.parts.residents.draining.add(NeuronName("n"))
    fleet.poll("o", healthy=False)
    assert [fleet.serve("a").route.neuron for _ in range(2)] == ["p", "p"]


def test_a_breaker_that_is_open_lets_the_others_serve() -> None:
    fleet = fleet_of(None)
    open_the_breaker(fleet)
    replicas = fleet.parts.replicas
    assert replicas.breakers.state(NeuronName("n"), fleet.now_ms) is State.OPEN
    assert replicas.is_served(A)
    assert not replicas.has_room(A, fleet.now_ms)
    assert replicas.retry_in_ms(A, fleet.now_ms) == 1_000


def test_a_conversation_goes_where_its_beginning_was_read() -> None:
    fleet = fleet_of(None, None)
    fleet.serve("a")
    marks = (Mark(b"1"), Mark(b"2"))
    first = fleet.dispatcher.elsewhere(fleet.wanted("a", *marks), set(), fleet.now_ms)
    assert first is not None
    assert first.route.neuron == "o"
    fleet.end(first)
    again = fleet.dispatcher.elsewhere(fleet.wanted("a", *marks), set(), fleet.now_ms)
    assert again is not None
    assert again.route.neuron == "o"


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://n:1", "sk-n"),
        ("http://n:8001", "sk-n"),
        ("https://n:8001/p", "sk-n"),
        ("http://elsewhere:1", None),
    ],
)
def test_a_neurons_key_goes_only_to_the_host_it_was_given_for(url: str, key: str | None) -> None:
    """A neuron chooses the address of its models; it must not be able to send our key elsewhere."""
    offer = ModelView(A, Status.LOADED, on("a")[0].load, base_url=url)
    fleet = SmallFleet(
        neuron("n", 10_000),
        models=(CatalogueModel("a", vram_mb=1_000),),
        configured=(Neuron("n", "http://n:1", api_key=Secret("sk-n")),),
    )
    fleet.poll("n", models={A: offer})
    route = fleet.serve("a").route
    hosts = ("n",) if key else ("elsewhere", "n")
    assert route == Route(NeuronName("n"), "neuron", A, url, key, hosts=hosts)
    assert "sk-n" not in repr(route)


def test_no_client_hears_what_a_neurons_machine_is_called_nor_the_key_for_it() -> None:
    fleet = SmallFleet(
        neuron("n", 10_000),
        models=(CatalogueModel("a", vram_mb=1_000),),
        configured=(Neuron("n", "http://n:1", api_key=Secret("sk-n")),),
    )
    offer = msgspec.structs.replace(on("a")[0], base_url="http://n:2")
    fleet.poll("n", models={A: offer}, discovery=Discovery(hostname="gpu1.example.com"))
    route = fleet.serve("a").route
    assert set(route.unspoken) == {"n", "gpu1.example.com", "sk-n"}
    assert msgspec.structs.replace(route, api_key=None).unspoken == route.hosts


@pytest.mark.parametrize("hostname", ["", "h" * 254, "two words", "h" * 4_000_000])
def test_what_cannot_be_the_name_of_a_host_is_looked_for_in_no_error(hostname: str) -> None:
    """It is a neuron's own text, of any length, and would be made into a pattern."""
    there = neuron("n", 10_000, has=[on("a")])
    home = route_to(there, A, None).hosts
    named = msgspec.structs.replace(there, discovery=Discovery(hostname=hostname))
    assert route_to(named, A, None).hosts == home
    longest = msgspec.structs.replace(there, discovery=Discovery(hostname="h" * 253))
    assert set(route_to(longest, A, None).hosts) == {*home, "h" * 253}


def test_a_key_follows_the_address_that_the_last_poll_told() -> None:
    fleet = SmallFleet(
        neuron("n", 10_000),
        models=(CatalogueModel("a", vram_mb=1_000),),
        configured=(Neuron("n", "http://n:1", api_key=Secret("sk-n")),),
    )
    routes = []
    for url in ("http://n:1", "http://n:2", "http://elsewhere:1", "http://n:1"):
        offer = ModelView(A, Status.LOADED, on("a")[0].load, base_url=url)
        fleet.poll("n", models={A: offer})
        route = fleet.serve("a").route
        routes.append((route.base_url, route.api_key))
    assert routes == [
        ("http://n:1", "sk-n"),
        ("http://n:2", "sk-n"),
        ("http://elsewhere:1", None),
        ("http://n:1", "sk-n"),
    ]


def test_a_route_without_a_key_has_none() -> None:
    there = neuron("n", 10_000, has=[on("a")])
    assert route_to(there, A, None).api_key is None


def test_a_sleeping_replica_is_woken_only_where_no_other_is_free() -> None:
    asleep = msgspec.structs.replace(on("a")[0], asleep=True)
    fleet = fleet_of(None, None)
    fleet.poll("n", models={A: asleep})
    fleet.poll("o", models={A: on("a", in_flight=5)[0]})
    assert fleet.serve("a").route.neuron == "o"
    alone = fleet_of(None)
    alone.poll("n", models={A: asleep})
    assert alone.serve("a").route.neuron == "n"


def stay_on_n(fleet: SmallFleet) -> Resident:
    stay = fleet.parts.residents.get(N, A)
    assert stay is not None
    return stay


def full(most: int) -> ModelView:
    load = ModelLoad("a", max_in_flight=most)
    return msgspec.structs.replace(on("a")[0], load=load)


def poll_of_n(*offers: ModelView, healthy: bool = True) -> Change:
    models = {each.id: each for each in offers}
    return lambda fleet: fleet.poll("n", models=models, healthy=healthy)


THERE = on("a")[0]
ASLEEP = msgspec.structs.replace(THERE, asleep=True)
NOWHERE = msgspec.structs.replace(THERE, base_url=None)

CHANGES: dict[str, tuple[Change, Change]] = {
    "it is unhealthy": (poll_of_n(THERE, healthy=False), poll_of_n(THERE)),
    "it is unloaded": (poll_of_n(), poll_of_n(THERE)),
    "it is being loaded again": (
        poll_of_n(on("a", status=Status.LOADING)[0]),
        poll_of_n(THERE),
    ),
    "it recovers": (poll_of_n(on("a", status=Status.RECOVERING)[0]), poll_of_n(THERE)),
    "it cannot serve": (poll_of_n(on("a", servable=False)[0]), poll_of_n(THERE)),
    "it has no address": (poll_of_n(NOWHERE), poll_of_n(THERE)),
    "it sleeps": (poll_of_n(ASLEEP), poll_of_n(THERE)),
    "it is busy": (poll_of_n(on("a", in_flight=1)[0]), poll_of_n(THERE)),
    "others queue there": (poll_of_n(on("a", queued=1)[0]), poll_of_n(THERE)),
    "it says that it is gone": (lambda fleet: fleet.board.withdraw(N, A), poll_of_n(THERE)),
    "its neuron is drained": (
        lambda fleet: fleet.parts.residents.draining.add(N),
        lambda fleet: fleet.parts.residents.draining.discard(N),
    ),
    "it makes room": (
        lambda fleet: stay_on_n(fleet).drain(ModelId("b"), 0, 0),
        lambda fleet: fleet.parts.residents.end_drain(stay_on_n(fleet)),
    ),
    "it leaves": (
        lambda fleet: setattr(stay_on_n(fleet), "leaving", True),
        lambda fleet: setattr(stay_on_n(fleet), "leaving", False),
    ),
    "an operator wants it gone": (
        lambda fleet: setattr(stay_on_n(fleet), "unload_until_ms", fleet.now_ms),
        lambda fleet: fleet.parts.residents.end_unload(stay_on_n(fleet)),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_next_request_goes_by_what_is_so_now(change: str) -> None:
    """Where a model can serve is kept from one request to the next; it must never be of before."""
    begin, end = CHANGES[change]
    fleet = fleet_of(None, None)
    went = []
    for act in (lambda _: None, begin, end, begin, end):
        act(fleet)
        serving = fleet.serve("a")
        went.append(serving.route.neuron)
        fleet.end(serving)
    assert went == ["n", "o", "n", "o", "n"]


def test_a_neuron_is_given_as_many_at_once_as_it_said_last() -> None:
    fleet = fleet_of(None)
    for most in (1, 3, 2):
        fleet.poll("n", models={A: full(most)})
        serving = [fleet.serve("a") for _ in range(most)]
        fleet.leave(fleet.wait("a"))
        for each in serving:
            fleet.end(each)


def test_a_breaker_that_opens_counts_from_the_next_request_on() -> None:
    fleet = fleet_of(None, None)
    assert fleet.serve("a").route.neuron == "n"
    for _ in range(FAILURES_TO_OPEN):
        serving = fleet.dispatcher.elsewhere(fleet.wanted("a"), {NeuronName("o")}, fleet.now_ms)
        assert serving is not None
        fleet.end(serving, Verdict.FAILED)
    assert [fleet.serve("a").route.neuron for _ in range(2)] == ["o", "o"]


def test_a_model_that_comes_to_another_neuron_is_served_there_too() -> None:
    fleet = fleet_of(1, 1)
    fleet.hide("o", "a")
    fleet.serve("a")
    fleet.leave(fleet.wait("a"))
    fleet.show("o", "a")
    assert fleet.serve("a").route.neuron == "o"
