"""Who has to make room, who may not be touched, and who has been idle for too long."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cortexd.config.schema import CatalogueModel, Eviction
from cortexd.fleet.eviction import (
    CANDIDATES_MAX,
    Candidate,
    Cycles,
    Protection,
    idle,
    matures_in_ms,
    protection,
    regret,
    residency_class,
    smallest_set,
    suffices,
)
from cortexd.fleet.reports import ModelId
from cortexd.fleet.situation import Books, Use
from cortexd.fleet.view import ModelView, NeuronName, Status
from tests.fleet.situations import NOW_MS, load, neuron, on, situation, used

A, N = ModelId("a"), NeuronName("n")
LRU = Eviction(strategy="lru", min_residency_seconds=60)
PRIORITY = Eviction(strategy="priority", min_residency_seconds=0)


@pytest.mark.parametrize(
    ("entry", "pinned", "expected"),
    [
        (CatalogueModel("a"), None, 100),
        (CatalogueModel("a", pinned_on=("n",)), None, 1000),
        (CatalogueModel("a", pinned_on=("n",), residency_priority=7), None, 7),
        (CatalogueModel("a", residency_priority=0), None, 0),
        (CatalogueModel("a"), ["n"], 1000),
        (CatalogueModel("a", pinned_on=("n",)), [], 100),
        (None, None, 100),
        (None, ["n"], 1000),
        (None, [], 100),
    ],
)
def test_the_class_is_what_is_written_else_a_pin_makes_it_high(
    entry: CatalogueModel | None, pinned: list[str] | None, expected: int
) -> None:
    state = situation(
        models=[entry] if entry else [], pins=None if pinned is None else {"a": pinned}
    )
    assert residency_class(Books(state), A) == expected


@pytest.mark.parametrize(
    ("here", "use", "newcomer", "expected"),
    [
        (on("a"), None, 100, None),
        (on("a"), used(NOW_MS), 100, None),
        (on("a"), None, 101, None),
        (on("a"), None, 99, Protection.OUTRANKS),
        (on("a", in_flight=1), None, 99, Protection.OUTRANKS),
        (on("a"), used(in_flight=1), 100, Protection.IN_USE),
        (on("a"), used(leased=True), 1000, Protection.IN_USE),
        (on("a", in_flight=1), None, 1000, Protection.IN_USE),
        (on("a", queued=1), None, 1000, Protection.IN_USE),
        (on("a", status=Status.RECOVERING), None, 1000, Protection.IN_USE),
        (on("a", status=Status.RELOADING), None, 1000, Protection.IN_USE),
        (on("a"), used(loaded_ms=NOW_MS - 59_999), 1000, Protection.TOO_YOUNG),
        (on("a"), used(loaded_ms=NOW_MS - 60_000), 1000, None),
    ],
)
def test_nobody_is_displaced_who_ranks_higher_is_in_use_or_has_just_come(
    here: tuple[ModelView, int], use: Use | None, newcomer: int, expected: Protection | None
) -> None:
    where = neuron("n", 9, has=[here])
    books = Books(situation(where, uses={("n", "a"): use} if use else {}))
    assert protection(books, where, A, newcomer, LRU) is expected


def test_who_is_leaving_already_is_not_displaced_again() -> None:
    where = neuron("n", 9, has=[on("a")])
    for state in (
        situation(where, leaving=[("n", "a")]),
        situation(where, loading=(load("b", "n", 0, evict=("a",)),)),
    ):
        assert protection(Books(state), where, A, 100, LRU) is Protection.IN_USE


def test_a_model_is_young_for_a_time_after_its_load() -> None:
    uses = {("n", "a"): used(loaded_ms=NOW_MS - 59_000)}
    books = Books(situation(uses=uses))
    assert matures_in_ms(books, (N, A), LRU) == 1_000
    assert matures_in_ms(books, (N, A), PRIORITY) == 0
    assert matures_in_ms(books, (N, ModelId("b")), LRU) == 0


def test_the_strategies_differ_in_what_counts_first() -> None:
    models = [CatalogueModel("a", residency_priority=5), CatalogueModel("b", residency_priority=9)]
    uses = {("n", "a"): used(70), ("n", "b"): used(30, loaded_ms=40)}
    books = Books(situation(models=models, uses=uses))
    a, b, unknown = ((N, ModelId(each)) for each in "abc")
    assert regret(books, b, LRU) < regret(books, a, LRU)
    assert regret(books, a, PRIORITY) < regret(books, b, PRIORITY)
    assert regret(books, unknown, LRU) < regret(books, b, LRU) == (40,)


def candidate(name: str, missed: int, **gains: int) -> Candidate:
    """`c0=5`: gains 5 on card 0."""
    return Candidate(ModelId(name), (missed,), {int(card[1:]): mb for card, mb in gains.items()})


def names(chosen: tuple[Candidate, ...] | None) -> str | None:
    return None if chosen is None else "".join(sorted(each.model for each in chosen))


def chosen(
    lacks: dict[int, int], width: int, *candidates: Candidate, at_most: int = 64, steps: int = 9_999
) -> str | None:
    return names(smallest_set(lacks, width, candidates, at_most=at_most, steps_max=steps))


def test_fewer_go_before_older_ones_do() -> None:
    small = [candidate(name, missed, c0=5) for missed, name in enumerate("abc")]
    assert chosen({0: 10}, 1, *small, candidate("z", 9, c0=10)) == "z"
    assert chosen({0: 10}, 1, *small) == "ab"
    assert chosen({0: 16}, 1, *small) is None
    assert chosen({0: 10}, 1, *small, at_most=1) is None


def test_of_sets_of_one_size_the_one_goes_whose_most_missed_is_missed_least() -> None:
    a, b, c = candidate("a", 1, c0=4), candidate("b", 2, c0=6), candidate("c", 3, c0=9)
    assert chosen({0: 10}, 1, a, b, c) == "ab"
    assert chosen({0: 11}, 1, a, b, c) == "ac"
    assert chosen({0: 4}, 1, candidate("y", 1, c0=4), candidate("x", 1, c0=4)) == "x"


def test_who_frees_nothing_where_it_counts_stays() -> None:
    assert chosen({0: 1}, 1, candidate("a", 0, c1=9), candidate("b", 9, c0=1)) == "b"
    assert chosen({0: 1, 1: 1}, 2, candidate("a", 0, c0=1, c1=1), candidate("b", 0, c0=9)) == "a"
    assert chosen({0: 0}, 1, candidate("a", 0, c0=9)) == ""
    assert chosen({}, 1, candidate("a", 0, c0=9)) is None


def test_a_search_that_is_cut_short_still_evicts_nobody_in_vain() -> None:
    crowd = [candidate(name, missed, c0=3, c1=3) for missed, name in enumerate("abcdef")]
    both = {0: 9, 1: 9}
    assert chosen(both, 2, *crowd) == "abc"
    rough = smallest_set(both, 2, crowd, at_most=64, steps_max=0)
    assert rough is not None
    assert suffices(both, 2, rough)
    assert all(not suffices(both, 2, [o for o in rough if o is not each]) for each in rough)
    assert chosen(both, 2, *crowd, at_most=2, steps=0) is None
    mixed = [candidate("a", 0, c0=4), candidate("b", 1, c1=4), candidate("c", 2, c0=4, c1=4)]
    assert chosen({0: 4, 1: 4}, 2, *mixed) == "c"
    assert chosen({0: 4, 1: 4}, 2, *mixed, steps=0) == "ab"
    assert chosen({0: 4, 1: 4}, 2, *mixed, steps=0, at_most=1) is None


def test_of_very_many_candidates_those_that_free_most_are_looked_at() -> None:
    crumbs = [candidate(f"m{index:03}", index, c0=1) for index in range(500)]
    assert len(smallest_set({0: 64}, 1, crumbs, at_most=99, steps_max=64) or ()) == CANDIDATES_MAX
    assert smallest_set({0: 65}, 1, crumbs, at_most=99, steps_max=64) is None
    assert chosen({0: 65}, 1, *crumbs, candidate("x", 999, c0=65)) == "x"


@settings(deadline=None)
@example(
    lacks={0: 9, 2: 6, 1: 0},
    width=2,
    said=[(0, {0: 8}), (1, {2: 1}), (1, {2: 5}), (1, {0: 1})],
    at_most=2,
)
@given(
    lacks=st.dictionaries(st.integers(0, 3), st.integers(-3, 20), max_size=4),
    width=st.integers(1, 3),
    said=st.lists(
        st.tuples(st.integers(0, 4), st.dictionaries(st.integers(0, 3), st.integers(0, 9))),
        max_size=7,
    ),
    at_most=st.integers(0, 7),
)
def test_the_smallest_set_is_the_smallest_of_all_sets(
    lacks: dict[int, int], width: int, said: list[tuple[int, dict[int, int]]], at_most: int
) -> None:
    crowd = [
        Candidate(ModelId(f"m{index}"), (missed,), gains)
        for index, (missed, gains) in enumerate(said)
    ]
    found = smallest_set(lacks, width, crowd, at_most=at_most, steps_max=99_999)
    able = [
        (size, sorted(((each.regret, each.model) for each in some), reverse=True))
        for size in range(at_most + 1)
        for some in combinations(crowd, size)
        if suffices(lacks, width, some)
    ]
    if found is None:
        assert not able
    else:
        ranked = sorted(((each.regret, each.model) for each in found), reverse=True)
        assert (len(found), ranked) == min(able)


@settings(deadline=None)
@given(
    lacks=st.dictionaries(st.integers(0, 3), st.integers(-3, 60), min_size=1),
    said=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 9)), max_size=CANDIDATES_MAX
    ),
)
def test_for_a_model_on_one_card_64_steps_are_always_enough(
    lacks: dict[int, int], said: list[tuple[int, int, int]]
) -> None:
    crowd = [
        Candidate(ModelId(f"m{index:02}"), (missed,), {card: mb})
        for index, (missed, card, mb) in enumerate(said)
    ]
    quick = smallest_set(lacks, 1, crowd, at_most=64, steps_max=64)
    assert quick == smallest_set(lacks, 1, crowd, at_most=64, steps_max=10**9)


@settings(deadline=None)
@given(
    lacks=st.dictionaries(st.integers(0, 3), st.integers(0, 40), min_size=2),
    said=st.lists(st.dictionaries(st.integers(0, 3), st.integers(0, 9)), max_size=12),
    steps=st.integers(0, 20),
)
def test_whatever_the_search_may_cost_no_part_of_what_it_finds_would_do(
    lacks: dict[int, int], said: list[dict[int, int]], steps: int
) -> None:
    crowd = [Candidate(ModelId(f"m{index}"), (0,), gains) for index, gains in enumerate(said)]
    found = smallest_set(lacks, 2, crowd, at_most=64, steps_max=steps)
    assert (found is None) == (not suffices(lacks, 2, crowd))
    for each in found or ():
        assert not suffices(lacks, 2, [other for other in found or () if other is not each])


@pytest.mark.parametrize(
    ("here", "use", "goes"),
    [
        (on("a"), used(NOW_MS - 30_000), True),
        (on("a"), used(NOW_MS - 29_999), False),
        (on("a"), used(0, loaded_ms=NOW_MS - 29_999), False),
        (on("a"), None, False),
        (on("a"), used(in_flight=1), False),
        (on("a"), used(leased=True), False),
        (on("a", in_flight=1), used(), False),
        (on("a", status=Status.RECOVERING), used(), False),
        (on("a", status=Status.UNLOADED), used(), False),
        (on("a", servable=False), used(), True),
    ],
)
def test_what_nobody_has_used_for_its_time_is_idle(
    here: tuple[ModelView, int], use: Use | None, goes: bool
) -> None:
    model = CatalogueModel("a", idle_unload_seconds=30)
    state = situation(
        neuron("n", 9, has=[here]), models=[model], uses={("n", "a"): use} if use else {}
    )
    assert idle(state) == (((N, A),) if goes else ())


def test_idle_models_are_left_where_nothing_can_or_need_be_done() -> None:
    there = {"has": [on("a"), on("b"), on("c")]}
    models = [CatalogueModel("a", idle_unload_seconds=0.5), CatalogueModel("b")]
    fleet = [
        neuron("n", 9, has=there["has"]),
        neuron("dead", 9, has=there["has"], healthy=False),
        neuron("plain", 9, has=there["has"], kind="openai"),
        neuron("swap", 9, has=there["has"], kind="llama-swap"),
        neuron("z", 9, has=there["has"]),
        neuron("gone", 9, has=there["has"]),
    ]
    uses = {(each.name, model): used() for each in fleet for model in "abc"}
    state = situation(
        *fleet,
        models=models,
        uses={(str(name), model): use for (name, model), use in uses.items()},
        leaving=[("gone", "a")],
        draining=["z"],
    )
    assert idle(state) == ((N, A), (NeuronName("swap"), A), (NeuronName("z"), A))


def test_every_so_many_cycles_of_a_neuron_it_is_time_to_say_so() -> None:
    cycles, other = Cycles(3), NeuronName("z")
    assert [cycles.unloaded(N) for _ in range(6)] == [False, False, True] * 2
    assert not cycles.unloaded(other)
    assert (cycles.count(N), cycles.count(other)) == (6, 1)
    cycles.restarted(N)
    assert (cycles.count(N), cycles.count(other)) == (0, 1)
    cycles.restarted(N)
    assert [cycles.unloaded(N) for _ in range(3)] == [False, False, True]


def test_without_a_number_of_cycles_it_is_never_time() -> None:
    never = Cycles(0)
    assert not any(never.unloaded(N) for _ in range(9))
    assert never.count(N) == 9
