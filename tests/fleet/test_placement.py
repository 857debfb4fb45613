"""Where a model goes, who leaves for it, and what is said when it goes nowhere."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortexd.config.schema import CatalogueModel, Eviction
from cortexd.fleet.feasibility import Reason
from cortexd.fleet.placement import (
    Answer,
    Busy,
    Infeasible,
    Kind,
    Place,
    Riding,
    Why,
    place,
)
from cortexd.fleet.reports import Activation, ModelId
from cortexd.fleet.situation import Loading, Situation
from cortexd.fleet.view import NeuronName, NeuronView, Status
from tests.fleet.situations import NOW_MS, load, neuron, on, situation, used, without_numbers

NEW = ModelId("new")
SETTINGS = Eviction(min_residency_seconds=60)
BIG = CatalogueModel("new", vram_mb=20_000)
OLD = CatalogueModel("old", vram_mb=20_000)
FULL = [on("old", mb=20_000)]


def answer(state: Situation, settings: Eviction = SETTINGS) -> Answer:
    return place(NEW, state, settings)


def plan(state: Situation, settings: Eviction = SETTINGS) -> tuple[str, tuple[int, ...], set[str]]:
    found = answer(state, settings)
    assert isinstance(found, Place)
    return found.neuron, found.devices, set(found.evict)


def test_the_neuron_with_most_room_is_preferred_then_the_first_name() -> None:
    assert plan(situation(neuron("a", 24_000), neuron("b", 40_000), models=[BIG]))[0] == "b"
    assert plan(situation(neuron("b", 24_000), neuron("a", 24_000), models=[BIG]))[0] == "a"


def test_a_neuron_where_it_fits_is_preferred_to_one_where_others_would_have_to_leave() -> None:
    roomier = neuron("a", 24_000, 19_000, 19_000, has=FULL)
    state = situation(roomier, neuron("b", 24_000), models=[BIG, OLD])
    assert plan(state) == ("b", (0,), set())


def test_a_pin_goes_before_everything() -> None:
    full, free = neuron("a", 24_000, has=FULL), neuron("b", 80_000)
    written = msgspec.structs.replace(BIG, pinned_on=("a",))
    assert plan(situation(full, free, models=[written, OLD])) == ("a", (0,), {"old"})
    at_run_time = situation(full, free, models=[BIG, OLD], pins={"new": ["a"]})
    assert plan(at_run_time) == ("a", (0,), {"old"})


def test_an_engine_that_places_models_itself_is_asked_without_any_books() -> None:
    lists_it = [on("new", status=Status.UNLOADED), on("old", in_flight=3)]
    plain = neuron("a", 9, has=lists_it, kind="ollama")
    assert plan(situation(plain, models=[BIG, OLD])) == ("a", (), set())
    measured = neuron("b", 24_000)
    assert plan(situation(plain, measured, models=[BIG, OLD])) == ("b", (0,), set())
    leaving = situation(plain, models=[BIG], leaving=[("a", "new")])
    assert answer(leaving) == Busy(Why.UNLOADING)


def test_the_plan_says_what_the_next_decision_has_to_know() -> None:
    state = situation(neuron("a", 24_000, has=FULL, strangers_mb=500), models=[BIG, OLD])
    found = answer(state)
    assert isinstance(found, Place)
    loading = found.loading(NEW, 7)
    assert loading == Loading(
        NEW, NeuronName("a"), (0,), 20_000, 7, evict=(ModelId("old"),), strangers_mb=(500,)
    )
    afterwards = msgspec.structs.replace(state, loading=(loading,))
    assert answer(afterwards) == Riding(NeuronName("a"))
    assert place(ModelId("old"), afterwards, SETTINGS) == Busy(Why.UNLOADING)


def test_two_loads_are_not_promised_the_same_memory() -> None:
    models = [BIG, CatalogueModel("other", vram_mb=5_000)]
    state = situation(
        neuron("a", 24_000), models=models, loading=(load("other", "a", 0, vram_mb=5_000),)
    )
    assert answer(state) == Busy(Why.IN_USE)


@pytest.mark.parametrize(
    ("model", "devices"),
    [
        (CatalogueModel("new", vram_mb=10_000), (2,)),
        (CatalogueModel("new", vram_mb=20_000), (2,)),
        (CatalogueModel("new", vram_mb=30_000, min_devices=2), (1, 2)),
        (CatalogueModel("new", vram_mb=42_000), (1, 2)),
        (CatalogueModel("new", vram_mb=10_000, min_device_vram_mb=23_000), (1,)),
        (CatalogueModel("new", vram_mb=0), (1,)),
        (CatalogueModel("new"), (2,)),
        (CatalogueModel("new", min_devices=2), (0, 2)),
    ],
)
def test_the_cards_with_most_room_are_picked(
    model: CatalogueModel, devices: tuple[int, ...]
) -> None:
    here = [on("tiny", 1, mb=3_000)]
    where = neuron("a", 12_000, 24_000, 22_000, has=here)
    models = [model, CatalogueModel("tiny", vram_mb=3_000, residency_priority=999)]
    assert plan(situation(where, models=models)) == ("a", devices, set())


def test_a_model_is_not_split_further_because_cards_are_full() -> None:
    """10 GB fit into one empty card, so the two half-full ones are no place for halves of it."""
    here = [on("x", 0, mb=6_000), on("y", 1, mb=6_000)]
    models = [CatalogueModel(name, vram_mb=6_000) for name in "xy"]
    ten = CatalogueModel("new", vram_mb=10_000)
    state = situation(neuron("a", 12_000, 12_000, has=here), models=[*models, ten])
    assert plan(state) == ("a", (0,), {"x"})


def test_a_model_of_unknown_size_takes_cards_without_models_and_mostly_free() -> None:
    unsized = CatalogueModel("new")
    here = [on("tiny", 0, mb=1)]
    tiny = CatalogueModel("tiny", vram_mb=1)
    assert plan(situation(neuron("a", 9_000, 9_000, has=here), models=[unsized, tiny]))[1] == (1,)
    alone = neuron("a", 9_000, has=here)
    assert plan(situation(alone, models=[unsized, tiny]))[2] == {"tiny"}
    gaming = neuron("a", 9_000, strangers_mb=4_501)
    assert answer(situation(gaming, models=[unsized])) == Busy(Why.NO_ROOM)
    found = answer(situation(neuron("a", 9_000, strangers_mb=4_500), models=[unsized]))
    assert isinstance(found, Place)
    assert (found.vram_mb, found.strangers_mb) == (None, (4_500,))


def test_a_card_of_which_nothing_is_known_takes_one_model() -> None:
    silent = ("vram_total_mb", "vram_used_mb", "vram_free_mb")
    where = without_numbers(neuron("a", 9_000), *silent)
    assert plan(situation(where, models=[BIG])) == ("a", (0,), set())
    taken = without_numbers(neuron("a", 9_000, has=FULL), *silent)
    assert plan(situation(taken, models=[BIG, OLD])) == ("a", (0,), {"old"})


def test_over_all_neurons_the_smallest_set_leaves() -> None:
    two = neuron("a", 24_000, has=[on("x", mb=10_000), on("y", mb=10_000)])
    models = [BIG, OLD, *(CatalogueModel(name, vram_mb=10_000) for name in "xy")]
    recent = {("b", "old"): used(9_000)}
    state = situation(two, neuron("b", 24_000, has=FULL), models=models, uses=recent)
    assert plan(state) == ("b", (0,), {"old"})
    assert plan(situation(two, models=models)) == ("a", (0,), {"x", "y"})


@pytest.mark.parametrize(
    ("settings", "goes"),
    [(SETTINGS, "b"), (msgspec.structs.replace(SETTINGS, strategy="priority"), "a")],
)
def test_of_sets_of_one_size_the_strategy_tells_which(settings: Eviction, goes: str) -> None:
    models = [
        BIG,
        CatalogueModel("x", vram_mb=20_000, residency_priority=1),
        CatalogueModel("y", vram_mb=20_000),
    ]
    state = situation(
        neuron("a", 24_000, has=[on("x", mb=20_000)]),
        neuron("b", 26_000, has=[on("y", mb=20_000)]),
        models=models,
        uses={("a", "x"): used(9), ("b", "y"): used(5)},
    )
    assert plan(state, settings)[0] == goes


def test_where_nobody_is_missed_more_the_neuron_with_more_room_is_taken() -> None:
    a, b = neuron("a", 24_000, has=FULL), neuron("b", 30_000, has=FULL)
    assert plan(situation(a, b, models=[BIG, OLD]))[0] == "b"
    c = neuron("c", 24_000, has=FULL)
    assert plan(situation(c, a, models=[BIG, OLD]))[0] == "a"


def test_a_replica_that_is_not_needed_is_evicted_no_more_than_once() -> None:
    """Two loads decided one after the other do not count on the same model to leave."""
    others = [CatalogueModel("n1", vram_mb=20_000), CatalogueModel("n2", vram_mb=20_000)]
    state = situation(neuron("a", 24_000, has=FULL), models=[OLD, *others])
    first = place(ModelId("n1"), state, SETTINGS)
    assert isinstance(first, Place)
    after = msgspec.structs.replace(state, loading=(first.loading(ModelId("n1"), NOW_MS),))
    assert place(ModelId("n2"), after, SETTINGS) == Busy(Why.IN_USE)


@pytest.mark.parametrize(
    ("here", "state", "why"),
    [
        (
            FULL,
            {"uses": {("a", "old"): used(loaded_ms=NOW_MS - 1_000)}},
            Busy(Why.TOO_YOUNG, 59_000),
        ),
        (FULL, {"uses": {("a", "old"): used(in_flight=1)}}, Busy(Why.IN_USE)),
        (FULL, {"uses": {("a", "old"): used(leased=True)}}, Busy(Why.IN_USE)),
        ([on("old", mb=20_000, in_flight=1)], {}, Busy(Why.IN_USE)),
        ([on("old", mb=20_000, status=Status.RECOVERING)], {}, Busy(Why.IN_USE)),
        (FULL, {"leaving": [("a", "old")]}, Busy(Why.IN_USE)),
        (FULL, {"pins": {"old": ["a"]}}, Busy(Why.OUTRANKED)),
        ([on("new", mb=20_000, servable=False)], {}, Busy(Why.UNSERVABLE)),
        ([on("new", mb=20_000)], {"leaving": [("a", "new")]}, Busy(Why.UNLOADING)),
    ],
)
def test_nothing_is_evicted_in_vain_and_the_reason_is_told(
    here: list[tuple[object, int]], state: dict[str, object], why: Busy
) -> None:
    where = neuron("a", 24_000, has=here)  # type: ignore[arg-type]  # a table of mixed rows
    assert answer(situation(where, models=[BIG, OLD], **state)) == why  # type: ignore[arg-type]


def test_the_time_to_come_back_is_when_enough_of_the_young_are_old() -> None:
    here = [on(name, mb=6_000) for name in "xyz"]
    models = [BIG, *(CatalogueModel(name, vram_mb=6_000) for name in "xyz")]
    uses = {
        ("a", n): used(loaded_ms=NOW_MS - ms) for n, ms in zip("xyz", (9, 5, 90_000), strict=True)
    }
    state = situation(neuron("a", 24_000, has=here), models=models, uses=uses)
    assert answer(state) == Busy(Why.TOO_YOUNG, 59_995)
    later = msgspec.structs.replace(state, now_ms=NOW_MS + 59_995)
    assert plan(later)[2] == {"x", "y", "z"}


def test_of_several_neurons_the_most_hopeful_wait_is_told() -> None:
    young = {(n, "old"): used(loaded_ms=NOW_MS - ms) for n, ms in (("a", 1), ("b", 2))}
    held = neuron("c", 24_000, strangers_mb=9_000)
    fleet = [neuron("a", 24_000, has=FULL), neuron("b", 24_000, has=FULL), held]
    assert answer(situation(*fleet, models=[BIG, OLD], uses=young)) == Busy(Why.TOO_YOUNG, 59_998)
    assert answer(situation(held, models=[BIG])) == Busy(Why.NO_ROOM)


def test_a_neuron_with_room_for_one_more_beside_our_load_takes_it_meanwhile() -> None:
    shown = neuron("a", 24_000, has=[on("old", mb=3_000, status=Status.LOADING)])
    small = CatalogueModel("new", vram_mb=4_000)
    under_way = (load("old", "a", 0, vram_mb=20_000),)
    assert plan(situation(shown, models=[small, OLD], loading=under_way)) == ("a", (0,), set())


def test_a_neuron_that_has_not_told_its_cards_is_waited_for() -> None:
    assert answer(situation(neuron("a", 9, told=False), models=[BIG])) == Busy(Why.NOT_KNOWN_YET)


@pytest.mark.parametrize("unsure", ["is_stale", "memory_is_old"])
def test_a_neuron_that_something_left_since_it_told_its_memory_is_waited_for(unsure: str) -> None:
    left = msgspec.structs.replace(neuron("a", 24_000), **{unsure: True})
    assert answer(situation(left, models=[BIG])) == Busy(Why.NOT_KNOWN_YET)


@pytest.mark.parametrize(
    "where",
    [
        neuron("a", 80_000, activation=Activation(pending=("x",))),
        neuron("a", 80_000, activation=Activation(in_progress="x")),
        neuron("a", 80_000, has=[on("x", status=Status.LOADING)]),
        neuron("a", 80_000, has=[on("x", status=Status.RELOADING)]),
    ],
)
def test_a_neuron_that_loads_models_of_its_own_is_left_alone(where: NeuronView) -> None:
    assert answer(situation(where, models=[BIG])) == Busy(Why.WARMING_UP)
    other = neuron("b", 24_000, activation=None)
    assert plan(situation(where, other, models=[BIG]))[0] == "b"


@pytest.mark.parametrize(
    "there",
    [
        neuron("a", 24_000, has=[on("new")]),
        neuron("a", 24_000, has=[on("new", status=Status.RECOVERING)]),
        neuron("a", 24_000, has=[on("new", status=Status.LOADING)]),
        neuron("a", 24_000, has=[on("new", status=Status.RELOADING)]),
        neuron("a", 24_000, activation=Activation(pending=("y", "new"))),
        neuron("a", 24_000, activation=Activation(in_progress="hub:new")),
        neuron(
            "a",
            24_000,
            has=[on("new", status=Status.UNLOADED)],
            activation=Activation(pending=("new",)),
        ),
    ],
)
def test_what_is_there_or_coming_is_not_placed_elsewhere(there: NeuronView) -> None:
    entry = msgspec.structs.replace(BIG, source="hub")
    elsewhere = neuron("b", 80_000)
    assert answer(situation(there, elsewhere, models=[entry])) == Riding(NeuronName("a"))
    ill = msgspec.structs.replace(there, healthy=False)
    for state in (
        situation(ill, elsewhere, models=[entry]),
        situation(there, elsewhere, models=[entry], draining=["a"]),
        situation(there, elsewhere, models=[entry], leaving=[("a", "new")]),
    ):
        assert plan(state)[0] == "b"


def test_a_model_outside_the_catalogue_is_waited_for_where_it_is_coming() -> None:
    warming = neuron("a", 9, activation=Activation(in_progress="new"))
    assert answer(situation(warming)) == Riding(NeuronName("a"))


def test_the_nearest_of_several_is_ridden() -> None:
    loads = neuron("a", 9, has=[on("new", status=Status.LOADING)])
    recovers = neuron("b", 9, has=[on("new", status=Status.RECOVERING)])
    serves = neuron("c", 9, has=[on("new")])
    assert answer(situation(loads, recovers, serves)) == Riding(NeuronName("c"))
    assert answer(situation(loads, recovers)) == Riding(NeuronName("b"))
    assert answer(situation(loads, loading=(load("new", "a", 0),))) == Riding(NeuronName("a"))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (situation(neuron("a", 24_000)), Infeasible(Kind.UNKNOWN)),
        (situation(models=[BIG]), Infeasible(Kind.NOWHERE)),
        (
            situation(neuron("a", 8), neuron("b", 9, kind="openai"), models=[BIG]),
            Infeasible(Kind.NOWHERE, Reason.TOO_LITTLE_VRAM),
        ),
        (
            situation(neuron("a", 8), neuron("b", 24_000, cuda_unavailable="x"), models=[BIG]),
            Infeasible(Kind.ONLY_UNHEALTHY, Reason.CUDA_UNAVAILABLE),
        ),
        (
            situation(neuron("a", 24_000, healthy=False), models=[BIG]),
            Infeasible(Kind.ONLY_UNHEALTHY),
        ),
        (
            situation(neuron("a", 24_000), models=[BIG], draining=["a"]),
            Infeasible(Kind.ONLY_DRAINING),
        ),
        (
            situation(
                neuron("a", 24_000),
                neuron("b", 24_000, healthy=False),
                models=[BIG],
                draining=["a", "b"],
            ),
            Infeasible(Kind.ONLY_UNHEALTHY),
        ),
    ],
)
def test_what_no_neuron_could_take_is_told_apart(state: Situation, expected: Infeasible) -> None:
    assert answer(state) == expected


def test_a_model_that_grew_too_large_elsewhere_finds_no_room() -> None:
    grown = neuron("z", 80_000, has=[on("new", mb=30_000, vram_used_mb=30_000, servable=False)])
    here = neuron("a", 24_000)
    state = situation(here, grown, models=[CatalogueModel("new")])
    assert answer(state) == Busy(Why.UNSERVABLE)
    dead = msgspec.structs.replace(grown, healthy=False)
    full = neuron("b", 24_000, has=FULL)
    state = situation(here, full, dead, models=[CatalogueModel("new"), OLD])
    assert answer(state) == Busy(Why.NO_ROOM)


CARD_MB = 24

_TENANT = st.tuples(
    st.integers(1, 12),  # its size
    st.sampled_from([(0,), (1,), (0, 1)]),
    st.sampled_from([None, 50, 100, 200]),  # its class
    st.sampled_from(["idle", "busy", "leased", "young", "recovering", "theirs"]),
    st.integers(0, 9),  # when it was last used
)
_FLEETS = st.lists(
    st.tuples(st.lists(_TENANT, max_size=5), st.integers(0, 6), st.integers(0, 12)),
    min_size=1,
    max_size=3,
)


def _fleet(said: object) -> tuple[Situation, set[tuple[str, str]]]:
    """The situation, and which models may be displaced by one of class 100."""
    neurons, models, uses, loading, fair = [], [BIG_ENOUGH], {}, [], set()
    for index, (tenants, strangers, load_mb) in enumerate(said):  # type: ignore[arg-type, var-annotated]
        name, here, left = f"n{index}", [], [CARD_MB - strangers] * 2
        for place_, (mb, devices, rank, mood, last) in enumerate(tenants):
            id, each = f"{name}-{place_}", -(-mb // len(devices))
            if any(left[device] < each for device in devices):
                continue
            for device in devices:
                left[device] -= each
            models.append(CatalogueModel(id, vram_mb=mb, residency_priority=rank))
            uses[name, id] = used(
                last,
                loaded_ms=NOW_MS if mood == "young" else 0,
                in_flight=mood == "busy",
                leased=mood == "leased",
            )
            status = Status.RECOVERING if mood == "recovering" else Status.LOADED
            here.append(on(id, *devices, mb=mb, status=status, in_flight=mood == "theirs"))
            if mood == "idle" and (rank or 0) <= 100:
                fair.add((name, id))
        if 0 < load_mb <= left[0]:
            note = (strangers,)
            loading.append(load(f"{name}-load", name, 0, vram_mb=load_mb, strangers_mb=note))
        neurons.append(neuron(name, CARD_MB, CARD_MB, has=here, strangers_mb=strangers))
    return situation(*neurons, models=models, uses=uses, loading=tuple(loading)), fair


BIG_ENOUGH = CatalogueModel("new", vram_mb=20)


def _holds(state: Situation, where: NeuronView, device: int, gone: set[str]) -> int:
    """What is promised on a card by a plain sum, once these are gone."""
    sizes = {entry.id: entry.vram_mb or 0 for entry in state.catalogue.models}
    card = where.devices[device]
    claimed = sum(
        -(-sizes[id] // len(view.devices))
        for id, view in where.models.items()
        if device in view.devices and id not in gone
    )
    strangers = (card.vram_used_mb or 0) - sum(
        -(-sizes[id] // len(view.devices))
        for id, view in where.models.items()
        if device in view.devices
    )
    loads = sum(
        each.vram_mb or 0
        for each in state.loading
        if each.neuron == where.name and device in each.devices
    )
    return claimed + strangers + loads


@settings(deadline=None, max_examples=300)
@given(said=_FLEETS, two=st.booleans(), strategy=st.sampled_from(["lru", "priority"]))
def test_a_plan_fits_spares_the_protected_and_needs_everybody_it_evicts(
    said: object, two: bool, strategy: str
) -> None:
    state, fair = _fleet(said)
    width = 2 if two else 1
    models = tuple(
        msgspec.structs.replace(each, min_devices=width) if each.id == "new" else each
        for each in state.catalogue.models
    )
    state = msgspec.structs.replace(
        state, catalogue=msgspec.structs.replace(state.catalogue, models=models)
    )
    rules = Eviction(strategy="lru" if strategy == "lru" else "priority", min_residency_seconds=60)
    found = place(NEW, state, rules)
    assert found == place(NEW, state, rules)

    def fits(where: NeuronView, gone: set[str]) -> bool:
        free = [
            device
            for device in (0, 1)
            if _holds(state, where, device, gone) + 20 // width <= CARD_MB
        ]
        return len(free) >= width

    neurons = state.view.neurons.values()
    if not isinstance(found, Place):
        assert isinstance(found, Busy)
        may_go = {each.name: {id for n, id in fair if n == each.name} for each in neurons}
        assert not any(fits(each, may_go[each.name]) for each in neurons)
        return
    where, gone = state.view.neurons[found.neuron], set(map(str, found.evict))
    assert {(where.name, id) for id in gone} <= fair
    assert len(found.devices) == width
    for device in found.devices:
        assert _holds(state, where, device, {*gone}) + 20 // width <= CARD_MB
    assert not any(fits(where, gone - {each}) for each in gone)
    if gone:
        assert not any(fits(each, set()) for each in neurons)
