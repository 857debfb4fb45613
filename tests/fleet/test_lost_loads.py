"""When a load counts as done, and when it counts as lost: what polls show decides."""

import msgspec

from cortexd.config.schema import CatalogueModel, Eviction
from cortexd.fleet.lines import Waiting
from cortexd.fleet.orders import Failure
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause, Serving, Unserved
from cortexd.fleet.view import NeuronName
from tests.fleet.situations import neuron, on
from tests.support.small_fleet import SmallFleet

OAK, FERN = ModelId("org/oak"), ModelId("org/fern")
BEAST = NeuronName("beast")
MODELS = (CatalogueModel(OAK, vram_mb=16_000), CatalogueModel(FERN, vram_mb=16_000))
HOUR_MS = 3_600_000


def a_fleet(*loaded: str) -> SmallFleet:
    """One card of 24 GB, with these small models on it."""
    has = [on(model, 0, mb=1_000) for model in loaded]
    return SmallFleet(
        neuron("beast", 24_000, has=has), models=MODELS, eviction=Eviction(min_residency_seconds=0)
    )


def ask_and_leave(fleet: SmallFleet, model: str) -> None:
    """A request that has to wait, and does not."""
    waiting = fleet.ask(model)
    assert isinstance(waiting, Waiting)
    fleet.dispatcher.leave(waiting, fleet.now_ms)


def test_a_load_whose_answer_is_lost_has_ended_once_two_polls_show_the_model() -> None:
    """A firewall forgets a connection on which nothing is said for minutes. Without this the model
    would keep its place for half an hour, and could not be loaded again after it had left.
    """
    fleet = a_fleet()
    fleet.ask(OAK)
    fleet.only_load()
    fleet.show(BEAST, OAK)
    assert OAK in fleet.parts.loads, "that poll may have begun before the load did"
    fleet.show(BEAST, OAK)
    assert OAK not in fleet.parts.loads

    serving = fleet.ask(OAK)
    assert isinstance(serving, Serving)
    fleet.end(serving)


def test_a_late_answer_to_a_load_that_polls_have_shown_to_be_done_changes_nothing() -> None:
    fleet = a_fleet()
    fleet.ask(OAK)
    lost = fleet.only_load()
    fleet.show(BEAST, OAK)
    fleet.show(BEAST, OAK)
    fleet.outcomes.load_ended(lost, Failure("it took too long"), fleet.now_ms, took_ms=HOUR_MS)
    assert fleet.parts.loads.pause_ms(OAK, BEAST, fleet.now_ms) == 0
    serving = fleet.ask(OAK)
    assert isinstance(serving, Serving)


def test_a_model_whose_load_was_never_answered_can_be_displaced_and_loaded_again() -> None:
    fleet = a_fleet()
    ask_and_leave(fleet, OAK)
    fleet.only_load()
    fleet.show(BEAST, OAK)
    fleet.show(BEAST, OAK)
    fleet.pass_ms(HOUR_MS)
    ask_and_leave(fleet, FERN)
    order = fleet.only_load()
    assert order.evict == (OAK,)
    fleet.carry_out(order)
    fleet.pass_ms(HOUR_MS)
    ask_and_leave(fleet, OAK)
    again = fleet.only_load()
    assert (again.spec.model, again.evict) == (OAK, (FERN,))


def test_that_other_models_leave_is_no_poll_that_misses_a_loaded_model() -> None:
    fleet = a_fleet("org/moss", "org/ivy", "org/yew")
    fleet.ask(OAK)
    order = fleet.only_load()
    fleet.outcomes.load_ended(order, None, fleet.now_ms, took_ms=0)
    for model in ("org/moss", "org/ivy", "org/yew"):
        fleet.board.withdraw(BEAST, ModelId(model))
    assert OAK in fleet.parts.loads, "nobody has looked yet"
    fleet.show(BEAST, OAK)
    assert OAK not in fleet.parts.loads
    assert fleet.parts.loads.pause_ms(OAK, BEAST, fleet.now_ms) == 0


def test_a_model_that_two_polls_do_not_show_was_not_loaded() -> None:
    fleet = a_fleet()
    fleet.ask(OAK)
    order = fleet.only_load()
    fleet.outcomes.load_ended(order, None, fleet.now_ms, took_ms=0)
    for _ in range(2):
        fleet.board.publish(fleet.board.view.neurons[BEAST])
    assert OAK not in fleet.parts.loads
    assert fleet.parts.loads.pause_ms(OAK, BEAST, fleet.now_ms) > 0


def up_for(fleet: SmallFleet, seconds: float, *, said_ms_ago: int = 0) -> None:
    """The neuron is polled, and says how long it has been up, to the second."""
    view = fleet.board.view.neurons[BEAST]
    started_after_ms = fleet.now_ms - said_ms_ago - round(seconds * 1000) - 1_000
    fleet.board.publish(
        msgspec.structs.replace(view, uptime_seconds=seconds, started_after_ms=started_after_ms)
    )


def test_a_load_does_not_outlive_the_process_that_it_was_asked_of() -> None:
    """Where nobody passes the reset on, a neuron that restarts between two polls leaves the call
    for the load without an answer.
    """
    fleet = a_fleet()
    up_for(fleet, 1000)
    waiting = fleet.ask(OAK)
    assert isinstance(waiting, Waiting)
    fleet.only_load()
    fleet.pass_ms(4_000)
    up_for(fleet, 2)
    assert isinstance(waiting.answer, Unserved)
    assert waiting.answer.cause is Cause.LOAD_FAILED
    assert OAK not in fleet.parts.loads


def test_a_restart_that_cannot_be_told_from_the_start_of_a_load_is_looked_at_again() -> None:
    """The neuron began half a second after the load did; of its seconds only some polls tell."""
    fleet = a_fleet()
    up_for(fleet, 1000)
    waiting = fleet.wait(OAK)
    fleet.only_load()
    fleet.pass_ms(1_000)
    up_for(fleet, 0)
    assert waiting.answer is None
    fleet.pass_ms(5_400)
    up_for(fleet, 5)
    assert isinstance(waiting.answer, Unserved)


def test_a_load_that_the_new_process_was_asked_for_goes_on_when_the_restart_is_noticed() -> None:
    fleet = a_fleet()
    up_for(fleet, 1000)
    fleet.pass_ms(4_000)
    fleet.ask(OAK)
    fleet.only_load()
    fleet.pass_ms(1_000)
    up_for(fleet, 3)
    assert OAK in fleet.parts.loads
    fleet.pass_ms(60_000)
    up_for(fleet, 63)
    assert OAK in fleet.parts.loads


def test_a_poll_that_comes_late_does_not_make_a_load_older_than_its_neuron() -> None:
    """The neuron started 4 s ago and was asked to load 3 s ago; what it said before that, that it
    has been up for 1 s, comes only now.
    """
    fleet = a_fleet()
    up_for(fleet, 1000)
    fleet.pass_ms(1_000)
    fleet.ask(OAK)
    fleet.only_load()
    fleet.pass_ms(3_000)
    up_for(fleet, 1, said_ms_ago=3_000)
    assert OAK in fleet.parts.loads
