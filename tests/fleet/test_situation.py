"""Whose memory is whose on every card."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortexd.config.schema import CatalogueModel
from cortexd.fleet.reports import ModelId
from cortexd.fleet.situation import Books, Card, Machine, Situation, Tenant, Use
from cortexd.fleet.view import ModelView, NeuronName, Status
from tests.fleet.situations import load, neuron, on, situation, used, without_numbers

A8, B6 = CatalogueModel("a", vram_mb=8_000), CatalogueModel("b", vram_mb=6_000)
UNSIZED = CatalogueModel("u")


def machine(of: Situation) -> Machine:
    return Books(of).machine(next(iter(of.view.neurons.values())))


def rooms(of: Situation) -> list[int | None]:
    return [card.room_mb for card in machine(of).cards]


def claims(tenants: tuple[Tenant, ...]) -> dict[str, dict[int, int]]:
    return {str(each.model): each.on_mb for each in tenants}


def test_room_is_what_no_model_no_load_and_no_stranger_claims() -> None:
    where = neuron("n", 24_000, has=[on("a", mb=8_000)], strangers_mb=1_000)
    state = situation(where, models=[A8, B6], loading=(load("b", "n", 0, vram_mb=6_000),))
    assert rooms(situation(where, models=[A8])) == [15_000]
    assert rooms(state) == [10_000]  # what strangers had was not noted: it may be the load's
    noted = (load("b", "n", 0, vram_mb=6_000, strangers_mb=(1_000,)),)
    assert rooms(msgspec.structs.replace(state, loading=noted)) == [9_000]


@pytest.mark.parametrize("visible_mb", [0, 3_000, 6_000])
def test_a_load_owns_its_memory_once_however_much_of_it_is_visible(visible_mb: int) -> None:
    where = neuron("n", 24_000, has=[on("a", mb=8_000)], strangers_mb=1_000 + visible_mb)
    under_way = load("b", "n", 0, vram_mb=6_000, strangers_mb=(1_000,))
    assert rooms(situation(where, models=[A8, B6], loading=(under_way,))) == [9_000]


def test_a_load_that_the_neuron_already_shows_is_not_counted_twice() -> None:
    where = neuron("n", 24_000, has=[on("b", mb=6_000, status=Status.LOADING)])
    state = situation(where, models=[B6], loading=(load("b", "n", 0, vram_mb=6_000),))
    assert rooms(state) == [18_000]
    assert claims(machine(state).tenants) == {}
    assert claims(machine(state).arrivals) == {"b": {0: 6_000}}
    assert rooms(situation(where, models=[B6])) == [18_000]  # a load of the neuron's own


def test_a_load_of_unknown_size_has_its_cards_for_itself() -> None:
    where = neuron("n", 24_000, 24_000)
    state = situation(where, models=[UNSIZED], loading=(load("u", "n", 1),))
    assert rooms(state) == [24_000, 0]
    assert machine(state).room_mb == 24_000


def test_a_load_and_those_who_leave_for_it_keep_the_larger_of_both() -> None:
    """It begins when they are gone; nobody else may count on either's memory meanwhile."""
    where = neuron("n", 24_000, 24_000, has=[on("a", 0, 1, mb=8_000)])
    under_way = load("b", "n", 0, vram_mb=6_000, evict=("a",))
    state = situation(where, models=[A8, B6], loading=(under_way,))
    assert rooms(state) == [18_000, 20_000]
    assert claims(machine(state).tenants) == {}
    assert claims(machine(state).arrivals) == {"b": {0: 6_000, 1: 4_000}}
    gone = neuron("n", 24_000, 24_000)
    assert rooms(situation(gone, models=[A8, B6], loading=(under_way,))) == [18_000, 24_000]


def test_a_model_claims_what_is_written_or_more_if_its_neuron_says_so() -> None:
    lazy = neuron("n", 24_000, has=[on("a", mb=1_000)])
    grown = neuron("n", 24_000, has=[on("a", mb=9_000, vram_used_mb=9_000)])
    outgrown = neuron("n", 24_000, has=[on("a", mb=9_000)])
    assert rooms(situation(lazy, models=[A8])) == [16_000]
    assert claims(machine(situation(grown, models=[A8])).tenants) == {"a": {0: 9_000}}
    assert machine(situation(outgrown, models=[A8])).cards[0].strangers_mb == 1_000


def test_a_size_that_is_not_written_is_learned_from_what_neurons_report() -> None:
    elsewhere = neuron("z", 24_000, has=[on("u", mb=5_000, vram_used_mb=5_000)])
    state = situation(neuron("n", 24_000), elsewhere, models=[UNSIZED, A8])
    books = Books(state)
    assert books.vram_mb(ModelId("u")) == 5_000
    assert books.vram_mb(ModelId("a")) == 8_000
    assert books.vram_mb(ModelId("nobody")) is None


def test_models_of_unknown_size_share_what_is_in_use_and_unexplained() -> None:
    where = neuron("n", 24_000, has=[on("a", mb=8_000), on("u", mb=3_000), on("v", mb=4_001)])
    state = situation(where, models=[A8])
    assert claims(machine(state).tenants) == {"a": {0: 8_000}, "u": {0: 3_500}, "v": {0: 3_500}}
    assert machine(state).cards[0].strangers_mb == 1
    assert rooms(state) == [8_999]
    silent = without_numbers(where, "vram_used_mb", "vram_free_mb")
    assert rooms(situation(silent, models=[A8])) == [0]


@pytest.mark.parametrize(
    ("silent", "room", "total"),
    [
        ((), 15_000, 24_000),
        (("vram_free_mb",), 15_000, 24_000),
        (("vram_used_mb",), 15_000, 24_000),
        (("vram_used_mb", "vram_free_mb"), 16_000, 24_000),
        (("vram_total_mb",), 15_000, 24_000),
        (("vram_total_mb", "vram_used_mb"), 15_000, 23_000),
        (("vram_total_mb", "vram_free_mb"), None, None),
    ],
)
def test_room_is_told_from_whatever_a_neuron_says(
    silent: tuple[str, ...], room: int | None, total: int | None
) -> None:
    where = neuron("n", 24_000, has=[on("a", mb=8_000)], strangers_mb=1_000)
    card = machine(situation(without_numbers(where, *silent), models=[A8])).cards[0]
    assert (card.room_mb, card.total_mb, card.guests) == (room, total, 1)


def test_a_model_whose_cards_are_not_known_is_on_all_of_them() -> None:
    view, _ = on("a")
    for devices in ((), (7,)):
        lost = msgspec.structs.replace(view, devices=devices)
        where = msgspec.structs.replace(neuron("n", 24_000, 24_000), models={lost.id: lost})
        assert rooms(situation(where, models=[A8])) == [20_000, 20_000]


def test_what_takes_no_memory_is_no_guest() -> None:
    here = [on("zero"), on("a", status=Status.UNLOADED)]
    state = situation(neuron("n", 9, has=here), models=[CatalogueModel("zero", vram_mb=0), A8])
    assert machine(state).tenants == ()
    assert machine(state).cards[0].guests == 0


def test_a_neuron_without_cards_has_empty_books() -> None:
    view, _ = on("a")
    where = msgspec.structs.replace(neuron("n"), models={view.id: view})
    state = situation(where, models=[A8, B6], loading=(load("b", "n", vram_mb=6_000),))
    assert machine(state) == Machine((), (), ())


def test_what_is_lacking_is_counted_in_guests_where_sizes_are_not_known() -> None:
    guest, other = Tenant(ModelId("a"), {0: 8_000}), Tenant(ModelId("b"), {1: 1})
    card = Card(0, 24_000, room_mb=2_000, strangers_mb=0, guests=3)
    assert (card.lacks(5_000), card.gains(guest, 5_000), card.gains(other, 5_000)) == (
        3_000,
        8_000,
        0,
    )
    assert (card.lacks(None), card.gains(guest, None), card.gains(other, None)) == (3, 1, 0)
    unmeasured = Card(0, None, None, 0, guests=3)
    assert (unmeasured.lacks(5_000), unmeasured.gains(guest, 5_000)) == (3, 1)
    assert (unmeasured.lacks(0), Card(0, 9, -9, 0, 2).lacks(0)) == (0, 0)


@pytest.mark.parametrize(
    ("here", "use", "engaged"),
    [
        (on("a"), None, False),
        (on("a"), used(), False),
        (on("a"), used(in_flight=1), True),
        (on("a"), used(leased=True), True),
        (on("a", in_flight=1), None, True),
        (on("a", queued=1), None, True),
        (on("a", status=Status.RECOVERING), None, True),
        (on("a", status=Status.LOADING), None, True),
    ],
)
def test_a_model_is_engaged_when_we_or_its_neuron_say_so(
    here: tuple[ModelView, int], use: Use | None, engaged: bool
) -> None:
    uses = {} if use is None else {("n", "a"): use}
    where = neuron("n", 24_000, has=[here])
    assert Books(situation(where, uses=uses)).is_engaged(where, ModelId("a")) is engaged


def test_a_model_being_loaded_is_engaged_and_one_that_makes_way_is_leaving() -> None:
    where = neuron("n", 24_000, has=[on("a"), on("b"), on("c")])
    state = situation(where, loading=(load("b", "n", 0, evict=("a",)),), leaving=[("n", "c")])
    books, name = Books(state), NeuronName("n")
    assert books.is_engaged(where, ModelId("b"))
    assert [books.is_leaving(name, ModelId(each)) for each in "abc"] == [True, False, True]
    assert not books.is_leaving(NeuronName("z"), ModelId("a"))


def test_there_is_never_more_room_than_is_free_whoever_uses_the_rest() -> None:
    """A stranger that comes while two models change places."""
    under_way = load("b", "n", 0, vram_mb=6_000, evict=("a",))
    where = neuron("n", 24_000, has=[on("a", mb=8_000)], strangers_mb=4_000)
    assert rooms(situation(where, models=[A8, B6], loading=(under_way,))) == [12_000]


def test_a_load_counts_as_a_use() -> None:
    assert (Use(5, 9).touched_ms, Use(9, 5).touched_ms) == (9, 9)


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9_000), max_size=4),
    strangers_mb=st.integers(0, 5_000),
    grown=st.lists(st.integers(0, 100), min_size=4, max_size=4),
    load_mb=st.integers(0, 9_000),
    visible=st.integers(0, 100),
)
def test_room_never_exceeds_what_is_left_when_everybody_has_taken_what_is_theirs(
    sizes: list[int], strangers_mb: int, grown: list[int], load_mb: int, visible: int
) -> None:
    total_mb = 60_000
    models = [CatalogueModel(str(index), vram_mb=mb) for index, mb in enumerate(sizes)]
    before = neuron(
        "n",
        total_mb,
        has=[
            on(each.id, mb=sizes[index] * grown[index] // 100) for index, each in enumerate(models)
        ],
        strangers_mb=strangers_mb,
    )
    noted = machine(situation(before, models=models)).cards[0].strangers_mb
    after = neuron(
        "n",
        total_mb,
        has=[
            on(each.id, mb=sizes[index] * grown[index] // 100) for index, each in enumerate(models)
        ],
        strangers_mb=strangers_mb + load_mb * visible // 100,
    )
    under_way = load("new", "n", 0, vram_mb=load_mb, strangers_mb=(noted,))
    card = machine(situation(after, models=models, loading=(under_way,))).cards[0]
    assert card.room_mb is not None
    assert card.room_mb <= total_mb - sum(sizes) - load_mb - noted
