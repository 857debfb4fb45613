"""Who is served, who waits, whose turn is next, and what they are told."""

import msgspec

from cortexd.config.schema import CatalogueModel, Eviction, Neuron
from cortexd.config.schema import Waiting as WaitingSettings
from cortexd.fleet.breaker import Verdict
from cortexd.fleet.lines import Clock, Waiting, Wanted
from cortexd.fleet.observer import Nobody
from cortexd.fleet.orders import Load
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause, Serving, Unserved
from cortexd.fleet.view import Status
from tests.fleet.situations import neuron, on
from tests.support.small_fleet import SmallFleet

MODELS = tuple(CatalogueModel(name, vram_mb=6_000) for name in "abc")


def test_a_backlog_that_is_older_does_not_have_every_turn() -> None:
    """Three models on one card: the one that never had a turn is next, though the requests that are
    left of another one are older.
    """
    fleet = SmallFleet(
        neuron("n", 10_000),
        models=MODELS,
        eviction=Eviction(max_swap_wait_seconds=10, drain_seconds=5),
        configured=(Neuron("n", "http://n:1", max_in_flight=1),),
    )
    waiting = [fleet.wait("a") for _ in range(100)]
    fleet.carry_out(fleet.only_load())
    waiting += [fleet.wait("b") for _ in range(100)]
    fleet.pass_ms(1)
    third = fleet.wait("c")
    turns: list[str] = []
    while third.answer is None:
        serving = [each for each in waiting if isinstance(each.answer, Serving)]
        waiting = [each for each in waiting if each.answer is None]
        fleet.pass_ms(1_000)
        for each in serving:
            assert isinstance(each.answer, Serving)
            fleet.dispatcher.first_byte(each.answer)
            fleet.end(each.answer)
        for order in fleet.orders():
            assert isinstance(order, Load)
            turns.append(order.spec.model)
            fleet.carry_out(order)
    assert turns == ["b", "c"]


def one_card(
    *models: CatalogueModel, waiting: WaitingSettings | None = None, most: int | None = None
) -> SmallFleet:
    limited = Neuron("n", "http://n:1", max_in_flight=most)
    return SmallFleet(
        neuron("n", 10_000), models=models or MODELS, waiting=waiting, configured=(limited,)
    )


def test_a_line_holds_no_more_than_it_may_and_a_key_no_more_than_is_left() -> None:
    fleet = one_card(waiting=WaitingSettings(requests_max=4))
    for _ in range(2):
        fleet.wait("a", "greedy")
    told = fleet.ask("a", "greedy")
    assert isinstance(told, Unserved)
    assert (told.cause, told.retry_in_ms) == (Cause.QUEUE_FULL, 5_000)
    assert told.why == "this key has 2 requests waiting for it, and others get the rest"
    fleet.wait("a", "x")
    fleet.wait("a", "y")
    told = fleet.ask("a", "z")
    assert isinstance(told, Unserved)
    assert told.why == "4 requests wait for it already"


def test_a_client_that_would_see_nothing_for_too_long_is_told_when_to_come_back() -> None:
    """The load that it caused goes on, so that it is served when it does."""
    fleet = one_card(waiting=WaitingSettings(plain_wait_seconds=5))
    told = fleet.told("a", streams=False)
    assert told.cause is Cause.LOADING
    assert told.retry_in_ms is not None
    assert told.retry_in_ms > 5_000
    fleet.carry_out(fleet.only_load())
    assert isinstance(fleet.ask("a"), Serving)


def test_a_plain_client_waits_for_a_load_that_will_be_quick_and_no_longer_than_it_can() -> None:
    fleet = one_card(waiting=WaitingSettings(plain_wait_seconds=60))
    plain = fleet.wait("a", streams=False)
    fleet.pass_ms(60_000)
    assert isinstance(plain.answer, Unserved)
    assert plain.answer.cause is Cause.LOADING


def test_whose_clock_runs_out_is_told_which_one_it_was() -> None:
    fleet = one_card(waiting=WaitingSettings(load_seconds=50, queue_seconds=20), most=1)
    cold = fleet.wait("a")
    fleet.pass_ms(49_999)
    assert cold.answer is None
    fleet.pass_ms(1)
    assert isinstance(cold.answer, Unserved)
    assert cold.answer.cause is Cause.LOAD_CLOCK
    fleet.carry_out(fleet.only_load())
    fleet.serve("a")
    queued = fleet.wait("a")
    fleet.pass_ms(20_000)
    assert isinstance(queued.answer, Unserved)
    assert queued.answer.cause is Cause.QUEUE_CLOCK
    assert queued.answer.why == "its turn did not come within 20 s"
    assert fleet.outcomes.wake_at_ms is None


def test_a_request_that_got_nothing_goes_elsewhere_without_waiting_again() -> None:
    fleet = SmallFleet(
        *(neuron(name, 10_000, has=[on("a", mb=6_000)]) for name in "no"), models=MODELS
    )
    first = fleet.serve("a")
    fleet.end(first, None)
    second = fleet.dispatcher.elsewhere(fleet.wanted("a"), {first.route.neuron}, fleet.now_ms)
    assert second is not None
    assert second.route.neuron != first.route.neuron
    tried = {first.route.neuron, second.route.neuron}
    assert fleet.dispatcher.elsewhere(fleet.wanted("a"), tried, fleet.now_ms) is None


def test_a_lease_ends_with_the_first_byte_or_with_the_request() -> None:
    fleet = one_card(most=1)
    waiting = [fleet.wait("a") for _ in range(3)]
    fleet.carry_out(fleet.only_load())
    first = waiting[0].answer
    assert isinstance(first, Serving)
    stay = first.resident
    assert (stay.leases, stay.is_unserved) == (3, True)
    fleet.end(first)
    assert (stay.leases, stay.is_unserved) == (2, True), "it has had nothing"
    second = waiting[1].answer
    assert isinstance(second, Serving)
    fleet.dispatcher.first_byte(second)
    fleet.dispatcher.first_byte(second)
    assert (stay.leases, stay.is_unserved) == (1, False)
    fleet.leave(waiting[2])
    fleet.leave(waiting[2])
    fleet.leave(waiting[1])
    assert stay.leases == 0


def test_the_clock_says_what_a_request_waits_for_and_how_long_it_did() -> None:
    fleet = one_card(most=1)
    first, second = fleet.wait("a"), fleet.wait("a")
    assert fleet.dispatcher.waiting() == {"a": 2}
    (line,) = fleet.dispatcher.lines().values()
    assert line.clock is Clock.LOAD
    fleet.carry_out(fleet.only_load(), took_ms=3_000)
    assert [each.clock for each in fleet.dispatcher.lines().values()] == [Clock.QUEUE]
    assert isinstance(first.answer, Serving)
    fleet.pass_ms(2_000)
    fleet.end(first.answer)
    assert isinstance(second.answer, Serving)
    assert second.answer.waited_ms == {Clock.QUEUE: 2_000, Clock.LOAD: 3_000}


def test_who_comes_back_after_a_turn_that_came_to_nothing_has_waited_already() -> None:
    told: list[int] = []

    class Listening(Nobody):
        def waited(self, model: ModelId, clock: Clock, waited_ms: int) -> None:
            told.append(waited_ms)

    fleet = SmallFleet(neuron("n", 10_000), models=MODELS, observer=Listening())
    before = Wanted(ModelId("a"), "key", 100, streams=False, waited_ms=((Clock.LOAD, 50_000),))
    hopeless = fleet.dispatcher.enter(before, fleet.now_ms, lambda: None)
    assert isinstance(hopeless, Unserved)
    assert hopeless.cause is Cause.LOADING, "10 s are left of 60, and it is expected to take more"
    streams = msgspec.structs.replace(before, streams=True)
    waiting = fleet.dispatcher.enter(streams, fleet.now_ms, lambda: None)
    assert isinstance(waiting, Waiting)
    fleet.carry_out(fleet.only_load(), took_ms=3_000)
    assert isinstance(waiting.answer, Serving)
    assert waiting.answer.waited_ms[Clock.LOAD] == 53_000
    assert told == [3_000], "what it waited before was told before"


def test_a_line_whose_model_turns_out_to_be_out_of_reach_is_told_so() -> None:
    fleet = one_card()
    recovering = {MODELS[0].id: on("a", status=Status.RECOVERING)[0]}
    fleet.poll("n", models=recovering)
    waiting = fleet.wait("a")
    fleet.poll("n", models={MODELS[0].id: on("a", servable=False)[0]})
    assert isinstance(waiting.answer, Unserved)
    assert waiting.answer.cause is Cause.UNSERVABLE


def test_orders_are_given_once() -> None:
    fleet = one_card()
    assert not fleet.dispatcher.has_orders
    fleet.wait("a")
    assert fleet.dispatcher.has_orders
    assert isinstance(fleet.only_load(), Load)
    assert not fleet.dispatcher.has_orders


def test_the_end_of_a_request_matters_where_somebody_waits_and_nowhere_else() -> None:
    """What matters to nobody is not looked into: nearly every request ends so."""
    fleet = SmallFleet(
        neuron("n", 48_000, has=[on("a", mb=6_000), on("b", mb=6_000)]),
        models=MODELS,
        configured=(Neuron("n", "http://n:1", max_in_flight=2),),
    )

    def matters(serving: Serving) -> bool:
        due = fleet.outcomes.wake_at_ms
        said = fleet.dispatcher.end(serving, Verdict.WORKED, fleet.now_ms)
        assert said or fleet.outcomes.wake_at_ms == due
        return said

    assert not matters(fleet.serve("a"))
    others = [fleet.serve("b"), fleet.serve("b")]
    first, second = fleet.serve("a"), fleet.serve("a")
    waiting = fleet.wait("a")
    assert not matters(others[0]), "nobody waits for this one, and it has another request"
    assert matters(others[1]), "somebody may want its place"
    assert matters(first)
    assert isinstance(waiting.answer, Serving)
    assert not matters(second)
