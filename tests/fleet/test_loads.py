"""The loads that are under way, and when one that failed may be tried again."""

import msgspec
import pytest

from cortexd.config.schema import CatalogueModel
from cortexd.fleet.load_times import left_ms
from cortexd.fleet.loads import SHOWN_WITHIN_MS, Loads
from cortexd.fleet.orders import Failure, Load
from cortexd.fleet.placement import Place
from cortexd.fleet.reports import ModelId
from cortexd.fleet.view import NeuronName
from tests.fleet.situations import neuron, on

A, N = ModelId("a"), NeuronName("n")
ENTRY = CatalogueModel("a", source="huggingface", harness="candle", quant="q6k", vram_mb=6_000)
EMPTY = neuron("n", 10_000)
SHOWN = neuron("n", 10_000, has=[on("a")])


def begun(*cards: int) -> tuple[Loads, Load]:
    loads = Loads()
    place = Place(N, cards or (0,), (ModelId("old"),), 6_000, (0,) * len(cards or (0,)))
    return loads, loads.begin(ENTRY, A, place, 0)


def test_an_order_says_what_the_catalogue_and_the_plan_say() -> None:
    _, order = begun(0, 2)
    spec = order.spec
    assert (spec.source, spec.harness, spec.quant) == ("huggingface", "candle", "q6k")
    assert (spec.tensor_parallel, spec.devices) == (2, (0, 2))
    assert (order.neuron, order.evict) == (N, ("old",))
    assert begun()[1].spec.tensor_parallel is None


def test_a_model_is_not_loaded_twice_at_once() -> None:
    loads, _ = begun()
    assert A in loads
    with pytest.raises(AssertionError):
        loads.begin(ENTRY, A, Place(N, (0,), (), 6_000, (0,)), 0)


def test_a_load_that_was_answered_is_under_way_until_a_poll_shows_it() -> None:
    loads, order = begun()
    assert loads.look(SHOWN, 1_000) == [], "its neuron has not said yet that it is done"
    assert loads.ended(order, None, 2_000, took_ms=2_000) is loads.get(A)
    assert A in loads
    ((load, failure),) = loads.look(SHOWN, 2_500)
    assert (load.loading.model, failure) == (A, None)
    assert A not in loads
    assert loads.eta_ms(A, 3_000) is None


def test_a_model_that_two_polls_do_not_show_has_not_been_loaded() -> None:
    """The first may have begun before the load was done; a poll that missed says nothing."""
    loads, order = begun()
    loads.ended(order, None, 2_000, took_ms=2_000)
    assert loads.look(neuron("other", 10_000), 2_050) == []
    assert loads.look(EMPTY, 2_100) == []
    assert loads.look(msgspec.structs.replace(EMPTY, misses=1), 2_200) == []
    ((_, failure),) = loads.look(EMPTY, 2_300)
    assert failure is not None
    assert "does not list it" in failure.reason
    assert loads.pause_ms(A, N, 2_300) == 5_000


def test_a_model_that_no_poll_shows_in_time_has_not_been_loaded() -> None:
    loads, order = begun()
    assert loads.overdue_ms is None
    loads.ended(order, None, 2_000, took_ms=2_000)
    assert loads.overdue_ms == 2_000 + SHOWN_WITHIN_MS
    assert loads.take_overdue(1_999 + SHOWN_WITHIN_MS) == []
    ((_, failure),) = loads.take_overdue(2_000 + SHOWN_WITHIN_MS)
    assert failure is not None
    assert list(loads) == []


def test_a_load_fails_with_its_neuron_and_a_late_answer_changes_nothing() -> None:
    loads, order = begun()
    ((_, failure),) = loads.look(neuron("n", 10_000, healthy=False), 1_000)
    assert failure is not None
    assert loads.ended(order, None, 2_000, took_ms=2_000) is None
    loads.begin(ENTRY, A, Place(N, (0,), (), 6_000, (0,)), 10_000)
    assert loads.ended(order, Failure("late"), 11_000, took_ms=0) is None
    assert A in loads


def test_a_failure_is_followed_by_a_pause_and_a_success_ends_it() -> None:
    loads, order = begun()
    loads.ended(order, Failure("no such file", permanent=True), 1_000, took_ms=0)
    assert loads.pause_ms(A, N, 1_000) == 300_000
    order = loads.begin(ENTRY, A, Place(N, (0,), (), 6_000, (0,)), 400_000)
    loads.ended(order, None, 402_000, took_ms=2_000)
    loads.look(SHOWN, 402_100)
    order = loads.begin(ENTRY, A, Place(N, (0,), (), 6_000, (0,)), 403_000)
    loads.ended(order, Failure("broke"), 404_000, took_ms=0)
    assert loads.pause_ms(A, N, 404_000) == 5_000


def test_what_a_load_takes_is_learned_from_those_before() -> None:
    loads, order = begun()
    guessed_ms = loads.expected_ms(A, N, 6_000)
    assert loads.eta_ms(A, 1_000) == left_ms(guessed_ms, since_ms=0, now_ms=1_000)
    loads.ended(order, None, 3_000, took_ms=3_000)
    assert loads.expected_ms(A, N, 6_000) == 3_000
