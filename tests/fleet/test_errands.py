"""What an operator asked for and waits for: a model to be loaded, or to be gone."""

from cortexd.config.schema import CatalogueModel, Neuron
from cortexd.fleet.errands import Errand
from cortexd.fleet.orders import Failure, Load, Unload, Why
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause, Serving, Unserved
from cortexd.fleet.view import Answered, NeuronName, fold
from tests.fleet.situations import neuron, on
from tests.support.small_fleet import SmallFleet

A, B = (CatalogueModel(name, vram_mb=6_000) for name in "ab")
N, OTHER = NeuronName("n"), NeuronName("other")
UNLOAD_A = Unload(N, ModelId("a"), Why.OPERATOR)


class Told:
    """A fleet with an operator, who counts how often an errand was over."""

    def __init__(self, fleet: SmallFleet) -> None:
        self.fleet = fleet
        self.times = 0

    def load(self, model: str, name: NeuronName | None = None) -> Errand:
        errand = self.fleet.parts.errands.load(ModelId(model), name, self.fleet.now_ms, self._over)
        self.fleet.pass_ms(0)
        return errand

    def unload(self, model: str, name: NeuronName | None = None) -> Errand:
        errand = self.fleet.parts.errands.unload(
            ModelId(model), name, self.fleet.now_ms, self._over
        )
        self.fleet.pass_ms(0)
        return errand

    def _over(self) -> None:
        self.times += 1


def with_a() -> Told:
    return Told(SmallFleet(neuron("n", 10_000, has=[on("a", mb=6_000)]), models=(A, B)))


def test_a_server_of_another_kind_is_never_told_to_unload() -> None:
    fleet = SmallFleet(neuron("n", has=[], kind="openai"), models=(A,))
    fleet.poll("n", models={ModelId("a"): on("a")[0]})
    errand = Told(fleet).unload("a")
    assert errand.failed == "n cannot unload models"
    assert fleet.orders() == []
    assert isinstance(fleet.ask("a"), Serving)


def test_a_neuron_that_does_not_answer_is_told_to_unload_when_it_does_again() -> None:
    told = with_a()
    told.fleet.poll("n", healthy=False)
    errand = told.unload("a")
    told.fleet.pass_ms(59_000)
    assert told.fleet.orders() == []
    assert not errand.is_over
    told.fleet.poll("n", healthy=True)
    told.fleet.pass_ms(250)
    assert told.fleet.orders() == [UNLOAD_A]


def test_an_unload_from_a_neuron_that_stays_away_is_given_up_with_that_reason() -> None:
    told = with_a()
    told.fleet.poll("n", healthy=False)
    errand = told.unload("a")
    told.fleet.pass_ms(60_000)
    assert errand.failed == "its neuron does not answer, for 60 s"


def test_what_is_listed_while_it_still_loads_is_not_unloaded_before_its_load_ends() -> None:
    fleet = SmallFleet(neuron("n", 10_000), models=(A,))
    fleet.leave(fleet.wait("a"))
    fleet.only_load()
    fleet.show("n", "a")
    told = Told(fleet)
    told.unload("a")
    fleet.pass_ms(250)
    assert fleet.orders() == []


def test_what_was_loaded_for_some_serves_one_of_them_before_an_operator_has_it_gone() -> None:
    """Else it would be loaded for them again at once."""
    fleet = SmallFleet(
        neuron("n", 10_000), models=(A,), configured=(Neuron("n", "http://n:1", max_in_flight=1),)
    )
    waiting = [fleet.wait("a") for _ in range(2)]
    fleet.carry_out(fleet.only_load())
    told = Told(fleet)
    errand = told.unload("a")
    assert isinstance(waiting[0].answer, Serving)
    fleet.end(waiting[0].answer)
    assert isinstance(waiting[1].answer, Serving), "it is not shut before it was of use"
    fleet.dispatcher.first_byte(waiting[1].answer)
    fleet.pass_ms(250)
    late = fleet.wait("a")
    fleet.end(waiting[1].answer)
    fleet.pass_ms(250)
    assert fleet.orders() == [UNLOAD_A]
    assert (errand.is_over, late.answer) == (False, None)


def test_a_load_of_what_can_serve_already_is_done_at_once() -> None:
    told = with_a()
    assert told.load("a").is_over
    assert told.fleet.orders() == []


def test_a_load_is_done_when_the_model_can_serve() -> None:
    told = Told(SmallFleet(neuron("n", 10_000), models=(A, B)))
    errand = told.load("a", N)
    assert told.fleet.parts.errands.wanted() == {"a"}
    told.fleet.carry_out(told.fleet.only_load())
    told.fleet.pass_ms(1_000)
    assert (errand.is_over, errand.failed, told.times) == (True, None, 1)
    assert told.fleet.outcomes.wake_at_ms is None


def test_a_load_that_fails_is_told_to_the_operator() -> None:
    told = Told(SmallFleet(neuron("n", 10_000), models=(A, B)))
    errand, other = told.load("a"), told.load("b")
    orders = [each for each in told.fleet.orders() if isinstance(each, Load)]
    told.fleet.fail(orders[0], "no such file")
    assert errand.failed == "no such file"
    assert not other.is_over


def test_a_load_that_cannot_be_is_refused_with_its_reason() -> None:
    told = Told(SmallFleet(neuron("n", 4_000), models=(A,)))
    failed = told.load("a").failed
    assert isinstance(failed, Unserved)
    assert failed.cause is Cause.NOWHERE


def test_a_load_elsewhere_is_refused_while_the_model_loads() -> None:
    told = Told(SmallFleet(neuron("n", 10_000), neuron("other", 10_000), models=(A,)))
    told.fleet.wait("a")
    assert told.fleet.only_load().neuron == "n"
    failed = told.load("a", OTHER).failed
    assert isinstance(failed, Unserved)
    assert failed.why == "it is being loaded on n; one load at a time"


def test_a_load_nobody_waits_for_does_not_begin_and_a_dropped_unload_goes_on() -> None:
    told = with_a()
    serving = told.fleet.serve("a")
    dropped = told.load("b")
    told.fleet.parts.errands.drop(dropped)
    told.fleet.pass_ms(120_000)
    assert not dropped.is_over
    errand = told.unload("a")
    told.fleet.parts.errands.drop(errand)
    told.fleet.end(serving)
    assert told.fleet.orders() == [UNLOAD_A]


def test_an_unload_of_what_is_nowhere_is_done() -> None:
    told = with_a()
    assert told.unload("b").is_over
    assert told.unload("a", OTHER).is_over


def test_an_unload_that_is_sent_is_not_sent_again_and_ends_when_the_model_is_gone() -> None:
    told = with_a()
    errand = told.unload("a")
    (order,) = told.fleet.orders()
    told.fleet.pass_ms(1_000)
    assert told.fleet.orders() == []
    told.fleet.carry_out(order)
    told.fleet.pass_ms(250)
    assert (errand.is_over, errand.failed) == (True, None)


def unloaded(told: Told) -> None:
    """The neuron has done what it was told, as it says."""
    told.fleet.outcomes.unload_ended(N, ModelId("a"), Why.OPERATOR, None, told.fleet.now_ms)


def test_an_unload_is_done_when_a_poll_after_it_does_not_show_the_model() -> None:
    told = with_a()
    errand = told.unload("a")
    unloaded(told)
    told.fleet.pass_ms(1_000)
    assert not errand.is_over
    told.fleet.poll("n")
    told.fleet.pass_ms(250)
    assert (errand.is_over, errand.failed) == (True, None)


def test_an_unload_is_done_by_the_list_alone_while_the_neuron_does_not_tell_its_memory() -> None:
    told = with_a()
    errand = told.unload("a")
    unloaded(told)
    known = told.fleet.board.view.neurons[N]
    told.fleet.board.publish(fold(known, Answered((), memory_withheld=True)))
    told.fleet.pass_ms(250)
    assert (errand.is_over, errand.failed) == (True, None)


def test_a_neuron_that_lists_what_it_says_is_unloaded_is_told_once() -> None:
    """It would be told several times a second, for ever, and each time counted as a cycle."""
    told = with_a()
    errand, other = told.unload("a"), told.unload("a")
    assert told.fleet.orders() == [UNLOAD_A]
    unloaded(told)
    told.fleet.show("n", "a")
    told.fleet.pass_ms(250)
    assert errand.failed == other.failed
    assert errand.failed == "its neuron says that it is unloaded, and lists it still"
    told.fleet.pass_ms(120_000)
    assert (told.fleet.orders(), told.fleet.parts.cycles.count(N)) == ([], 1)
    assert isinstance(told.fleet.ask("a"), Serving)


def test_an_unload_ends_although_its_neuron_is_not_heard_of_after_it() -> None:
    told = with_a()
    errand = told.unload("a")
    unloaded(told)
    told.fleet.pass_ms(60_000)
    assert (errand.is_over, errand.failed) == (True, None)


def test_what_is_loaded_again_after_an_unload_was_unloaded() -> None:
    """The engine makes room by itself, so that a load need not wait for a poll."""
    fleet = SmallFleet(neuron("n", 10_000, has=[on("a")], kind="ollama"), models=(A,))
    told = Told(fleet)
    errand = told.unload("a")
    assert fleet.orders() == [UNLOAD_A]
    unloaded(told)
    fleet.wait("a")
    order = fleet.only_load()
    fleet.show("n", "a")
    fleet.pass_ms(250)
    assert (errand.is_over, errand.failed) == (True, None)
    fleet.carry_out(order)


def test_an_unload_from_everywhere_takes_each_copy_out_once() -> None:
    told = Told(SmallFleet(*(neuron(each, 10_000, has=[on("a")]) for each in "no"), models=(A,)))
    errand = told.unload("a")
    first, second = told.fleet.orders()
    told.fleet.carry_out(first)
    told.fleet.pass_ms(250)
    told.fleet.show("n", "a")
    told.fleet.pass_ms(250)
    assert not errand.is_over
    told.fleet.carry_out(second)
    told.fleet.pass_ms(250)
    assert (errand.is_over, errand.failed, told.fleet.orders()) == (True, None, [])


def test_an_unload_that_fails_is_told_and_the_model_serves_on() -> None:
    told = with_a()
    errand = told.unload("a")
    other = told.unload("a")
    assert told.fleet.orders() == [UNLOAD_A]
    told.fleet.outcomes.unload_ended(
        N, ModelId("a"), Why.OPERATOR, Failure("busy"), told.fleet.now_ms
    )
    assert (errand.failed, other.failed, told.times) == ("busy", "busy", 2)
    assert isinstance(told.fleet.ask("a"), Serving)


def test_requests_that_do_not_end_keep_a_model_from_being_unloaded() -> None:
    told = with_a()
    told.fleet.serve("a")
    errand = told.unload("a")
    told.fleet.pass_ms(60_000)
    assert errand.failed == "it has requests that do not end, for 60 s"
    assert isinstance(told.fleet.ask("a"), Serving)


def test_what_others_have_in_flight_at_a_neuron_may_end_before_an_unload() -> None:
    """What the neuron reports counts, and is asked for again when it is all that is in the way."""
    told = with_a()
    doubts: list[str] = []
    told.fleet.board.watch(N, lambda: doubts.append("n"))
    told.fleet.poll("n", models={ModelId("a"): on("a", in_flight=2)[0]})
    told.unload("a")
    assert (told.fleet.orders(), doubts) == ([], ["n"])
    told.fleet.poll("n", models={ModelId("a"): on("a")[0]})
    told.fleet.pass_ms(250)
    assert told.fleet.orders() == [UNLOAD_A]


def test_a_load_that_has_to_wait_for_a_neuron_is_looked_at_again() -> None:
    """The neuron has not told yet what it has."""
    told = Told(SmallFleet(neuron("n", 10_000, told=False), models=(A,)))
    errand = told.load("a")
    assert told.fleet.orders() == []
    told.fleet.poll("n", discovery=neuron("n", 10_000).discovery)
    told.fleet.poll("n", devices=neuron("n", 10_000).devices)
    told.fleet.pass_ms(250)
    assert told.fleet.only_load().spec.model == "a"
    assert not errand.is_over


def test_who_was_loaded_for_some_may_leave_a_neuron_that_is_drained() -> None:
    """They will not get it there."""
    fleet = SmallFleet(neuron("n", 10_000), models=(A,))
    fleet.wait("a")
    order = fleet.only_load()
    fleet.parts.residents.draining.add(N)
    fleet.carry_out(order)
    told = Told(fleet)
    told.unload("a", N)
    assert fleet.orders() == [UNLOAD_A]
