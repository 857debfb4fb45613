"""The list of models: what is said of a model that several places know, and that it is cheap."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from time import process_time
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.config.schema import Catalogue, CatalogueModel, Cost, Limit, Neuron
from cortexd.dialects.models import ModelEntry, models_list
from cortexd.fleet.feasibility import feasible_on
from cortexd.fleet.limits import limits_of
from cortexd.fleet.reports import (
    Activation,
    Device,
    Discovery,
    Health,
    ModelId,
    ModelReport,
    Servable,
)
from cortexd.fleet.union import Known, ModelUnion
from cortexd.fleet.view import (
    Answered,
    FleetView,
    Missed,
    NeuronName,
    NeuronView,
    Report,
    before_the_first_poll,
    fold,
)

A, B, C = ModelId("m/a"), ModelId("m/b"), ModelId("m/c")
BEAST, BENJY = NeuronName("beast"), NeuronName("benjy")
MISSED = (Missed("x"),) * 3


def fleet(**reports: tuple[Report, ...]) -> FleetView:
    view = before_the_first_poll([Neuron(name, f"http://{name}:1") for name in reports])
    neurons = dict(view.neurons)
    for name, said in reports.items():
        for each in said:
            neurons[NeuronName(name)] = fold(neurons[NeuronName(name)], each)
    return FleetView(neurons)


def says(*models: ModelReport, health: Health | None = None, cards: int = 1) -> Answered:
    """An answer of a neuron with so many cards that knows the addresses of all its models."""
    devices = tuple(Device(index, vram_total_mb=1_000) for index in range(cards))
    endpoints = {model.id: "http://n:1" for model in models}
    return Answered(models, endpoints, health, Discovery(devices=devices))


def offer(model: ModelId = A, status: str = "loaded", **facts: object) -> ModelReport:
    return msgspec.structs.replace(ModelReport(model, status), **facts)


def nowhere(model: CatalogueModel, view: FleetView) -> tuple[NeuronName, ...]:
    return ()


def listed(
    view: FleetView,
    *models: CatalogueModel,
    aliases: dict[str, str] | None = None,
    allowed: Collection[str] | None = None,
    loading: frozenset[tuple[NeuronName, ModelId]] = frozenset(),
    discovered: Mapping[ModelId, tuple[str, ...]] | None = None,
) -> dict[str, ModelEntry]:
    known = Known(view, Catalogue(models, aliases or {}), feasible_on, loading, discovered or {})
    return ModelUnion(created_unix_seconds=1_700_000_000).entries(known, allowed=allowed)


def only(entries: dict[str, ModelEntry]) -> ModelEntry:
    [entry] = entries.values()
    return entry


def where(entry: ModelEntry) -> dict[str, str]:
    return {each["node"]: each["status"] for each in entry.locations}


def test_what_neurons_have_and_what_the_catalogue_makes_possible_are_listed() -> None:
    view = fleet(beast=(says(offer(B)),), benjy=(says(),))
    entries = listed(view, CatalogueModel("m/c"), CatalogueModel("m/a", min_devices=2))
    assert list(entries) == ["m/b", "m/c"], "nothing can run m/a"
    assert entries["m/b"].loaded
    assert entries["m/b"].feasible_on == ("beast",)
    assert not entries["m/c"].loaded
    assert entries["m/c"].feasible_on == ("beast", "benjy")
    assert entries["m/c"].locations == ()


def test_an_entry_says_all_that_a_neuron_says() -> None:
    report = offer(
        limit=Limit(8192, 7000, 1024),
        cost=Cost(0.5, 0),
        capabilities=("text", "vision"),
        tool_call=True,
        reasoning=True,
    )
    written = msgspec.json.decode(models_list([only(listed(fleet(beast=(says(report),))))]))
    assert written["data"] == [
        {
            "id": "m/a",
            "object": "model",
            "type": "model",
            "created": 1_700_000_000,
            "created_at": "2023-11-14T22:13:20Z",
            "display_name": "m/a",
            "owned_by": "cortexd",
            "limit": {"context": 8192, "input": 7000, "output": 1024},
            "max_model_len": 8192,
            "max_input_tokens": 7000,
            "max_tokens": 1024,
            "max_output_tokens": 1024,
            "modalities": ["text", "vision"],
            "loaded": True,
            "feasible_on": ["beast"],
            "locations": [{"node": "beast", "status": "loaded"}],
            "tool_call": True,
            "reasoning": True,
            "cost": {"input": 0.5, "output": 0},
        }
    ]


def test_of_several_limits_the_smallest_is_promised() -> None:
    view = fleet(
        beast=(says(offer(limit=Limit(8192, None, 4096))),),
        benjy=(says(offer(limit=Limit(16384, 9000, 2048))), *MISSED),
    )
    entry = only(listed(view, CatalogueModel("m/a", limit=Limit(output=3000))))
    assert entry.limit == {"context": 8192, "input": 8192, "output": 2048}
    entry = only(listed(view, CatalogueModel("m/a", limit=Limit(1000, 900))))
    assert entry.limit == {"context": 1000, "input": 900, "output": 1000}


def test_what_nobody_states_is_left_out() -> None:
    entry = only(listed(fleet(beast=(says(offer()),))))
    assert entry.limit == {}
    written = msgspec.json.decode(msgspec.json.encode(entry))
    assert not {"max_model_len", "max_tokens", "cost"} & written.keys()
    assert entry.modalities == ("text",)


@pytest.mark.parametrize(
    ("written", "reported", "shown"),
    [
        (None, [None, None], None),
        (None, [Cost()], None),
        (None, [Cost(0)], {"input": 0}),
        (None, [None, Cost(1, 2)], {"input": 1, "output": 2}),
        (None, [Cost(1, 5), Cost(2, 3, cache_read=0)], {"input": 2, "output": 5, "cache_read": 0}),
        (Cost(9), [Cost(1, 2)], {"input": 9}),
        (Cost(0, 0), [Cost(1, 2)], {"input": 0, "output": 0}),
        (Cost(), [Cost(1, 2)], None),
    ],
)
def test_a_price_that_nobody_says_is_not_zero_and_zero_is_a_price(
    written: Cost | None, reported: list[Cost | None], shown: dict[str, float] | None
) -> None:
    view = fleet(**{f"n{i}": (says(offer(cost=cost)),) for i, cost in enumerate(reported)})
    entry = only(listed(view, CatalogueModel("m/a", cost=written)))
    assert entry.cost == (msgspec.UNSET if shown is None else shown)


def test_a_model_can_what_any_location_says_unless_the_operator_wrote_it() -> None:
    view = fleet(
        beast=(says(offer(capabilities=("text", "vision"))),),
        benjy=(says(offer(capabilities=("image", "text"), tool_call=True)),),
    )
    entry = only(listed(view))
    assert entry.modalities == ("text", "vision", "image")
    assert (entry.tool_call, entry.reasoning) == (True, False)
    assert only(listed(view, CatalogueModel("m/a", capabilities=("text",)))).modalities == ("text",)


def test_what_a_cold_model_can_is_what_was_discovered() -> None:
    discovered = {A: ("vision",)}
    cold = listed(fleet(beast=(says(),)), CatalogueModel("m/a"), discovered=discovered)
    assert only(cold).modalities == ("vision",)
    warm = listed(fleet(beast=(says(offer(capabilities=("text",))),)), discovered=discovered)
    assert only(warm).modalities == ("text",)


@pytest.mark.parametrize(
    ("reports", "status", "loaded"),
    [
        ((says(offer()),), "loaded", True),
        ((says(offer(status="recovering")),), "recovering", False),
        ((says(offer(status="unloaded")),), "unloaded", False),
        ((says(offer(servable=Servable(ok=False))),), "loaded", False),
        ((Answered((offer(),)),), "loaded", False),
        ((says(offer()), *MISSED), "unavailable", False),
    ],
)
def test_loaded_means_that_a_request_finds_a_neuron_now(
    reports: tuple[Report, ...], status: str, loaded: bool
) -> None:
    entry = only(listed(fleet(beast=reports)))
    assert where(entry) == {"beast": status}
    assert entry.loaded is loaded
    assert entry.feasible_on == ("beast",), "it has run it"


def test_one_location_that_serves_is_enough() -> None:
    view = fleet(a=(says(offer()), *MISSED), b=(says(offer()),), c=(says(offer(status="loading")),))
    entry = only(listed(view))
    assert entry.loaded
    assert where(entry) == {"a": "unavailable", "b": "loaded", "c": "loading"}


def test_a_load_under_way_is_a_location_whoever_asked_for_it() -> None:
    """Neurons list a model when it is resident, which may be minutes later."""
    warming = Health(activation=Activation("pre_warming", (B,), A))
    view = fleet(
        beast=(says(offer(C), health=warming),),
        benjy=(says(offer(A), offer(B, "unloaded"), offer(C, "recovering")),),
    )
    loading = frozenset({(BEAST, A), (BENJY, A), (BENJY, B), (BENJY, C), (NeuronName("?"), A)})
    entries = listed(view, loading=loading)
    assert where(entries[A]) == {"beast": "loading", "benjy": "loaded"}
    assert where(entries[B]) == {"beast": "loading", "benjy": "loading"}
    assert where(entries[C]) == {"beast": "loaded", "benjy": "recovering"}
    gone = listed(fleet(beast=(says(health=warming), *MISSED)), loading=loading)
    assert where(gone[A]) == where(gone[B]) == {"beast": "unavailable"}


def test_an_alias_is_an_entry_of_its_own_when_it_leads_somewhere() -> None:
    view = fleet(beast=(says(offer(A)),))
    entries = listed(view, aliases={"small": "m/a", "dead": "m/z"})
    assert list(entries) == ["m/a", "small"]
    small = entries["small"]
    assert (small.id, small.display_name) == ("small", "small")
    assert msgspec.structs.replace(small, id=A, display_name=A) == entries[A]


def test_an_id_that_is_also_an_alias_stands_for_what_a_request_would_get() -> None:
    view = fleet(beast=(says(offer(A), offer(B, limit=Limit(4096))),))
    entries = listed(view, aliases={A: B})
    assert entries[A].limit == {"context": 4096}
    assert not listed(fleet(beast=(says(offer(A)),)), aliases={A: "m/z"})


@pytest.mark.parametrize(
    ("allowed", "names"),
    [
        (None, {"m/a", "m/b", "small"}),
        ((), set()),
        (("m/a",), {"m/a", "small"}),
        ({"small"}, {"m/a", "small"}),
        (["m/b", "unheard"], {"m/b"}),
    ],
)
def test_a_key_sees_what_it_may_use_under_every_name(
    allowed: Collection[str] | None, names: set[str]
) -> None:
    view = fleet(beast=(says(offer(A), offer(B)),))
    assert listed(view, aliases={"small": "m/a"}, allowed=allowed).keys() == names


def test_the_list_belongs_to_whoever_asked() -> None:
    known = Known(fleet(beast=(says(offer()),)), Catalogue(), nowhere)
    union = ModelUnion(created_unix_seconds=0)
    union.entries(known).clear()
    assert list(union.entries(known)) == ["m/a"]


def test_feasibility_is_asked_for_again_only_when_cards_health_or_rules_changed() -> None:
    """It costs models times neurons; polls bring a new view several times a second."""
    asked: list[str] = []

    def counting(model: CatalogueModel, view: FleetView) -> tuple[NeuronName, ...]:
        asked.append(model.id)
        return feasible_on(model, view)

    catalogue, union = Catalogue((CatalogueModel("m/a"),)), ModelUnion(created_unix_seconds=0)
    views = [
        fleet(beast=(says(),)),
        fleet(beast=(says(offer(B)),)),
        fleet(beast=(says(offer(B)), *MISSED)),
        fleet(beast=(says(offer(B), cards=2),)),
    ]
    counts = []
    for view in views:
        for _ in range(3):
            union.entries(Known(view, catalogue, counting))
        counts.append(len(asked))
    assert counts == [1, 1, 2, 3]
    assert only(union.entries(Known(fleet(beast=(says(),)), catalogue, feasible_on))).id == "m/a"
    assert not union.entries(Known(fleet(beast=(says(),)), catalogue, nowhere))


_T = TypeVar("_T")


def maybe(values: st.SearchStrategy[_T]) -> st.SearchStrategy[_T | None]:
    return st.none() | values


LIMITS = st.builds(Limit, *[maybe(st.sampled_from([10, 20, 30]))] * 3)
COSTS = maybe(st.builds(Cost, *[maybe(st.sampled_from([0, 1, 2]))] * 2))
REPORTS = st.builds(
    ModelReport,
    st.sampled_from([A, B, C]),
    st.sampled_from(["loaded", "loading", "unloaded"]),
    capabilities=st.sampled_from([(), ("text",), ("vision", "text")]),
    limit=LIMITS,
    cost=COSTS,
    tool_call=st.booleans(),
)
ANSWERS = st.builds(
    lambda models, warming, cards: says(
        *{model.id: model for model in models}.values(),
        health=Health(activation=Activation("x", (), warming)),
        cards=cards,
    ),
    st.lists(REPORTS, max_size=3),
    maybe(st.sampled_from([A, B])),
    st.integers(1, 2),
)
CATALOGUES = st.builds(
    lambda models, aliases: Catalogue(tuple({m.id: m for m in models}.values()), aliases),
    st.lists(
        st.builds(
            CatalogueModel,
            st.sampled_from([A, B]),
            limit=LIMITS,
            min_devices=st.integers(1, 3),
            cost=COSTS,
        ),
        max_size=2,
    ),
    st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from([A, B, C])),
)
LOADING = st.frozensets(st.tuples(st.sampled_from([BEAST, BENJY]), st.sampled_from([A, B])))
DISCOVERED = st.dictionaries(st.sampled_from([A, B]), st.just(("image",)))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([BEAST, BENJY]), maybe(ANSWERS)),
        st.sampled_from([BEAST, BENJY]),
        CATALOGUES,
        LOADING,
        DISCOVERED,
    ),
    max_size=12,
)


def stepped(known: Known, step: object) -> Known:
    """The next state of the world: a poll, a reconfiguration, a new catalogue, loads, findings."""
    neurons = dict(known.view.neurons)
    match step:
        case (str(name), None | Answered() as report) if name in neurons:
            for each in (report,) if report is not None else MISSED:
                neurons[NeuronName(name)] = fold(neurons[NeuronName(name)], each)
        case str(name) if neurons.pop(NeuronName(name), None) is None:
            neurons[NeuronName(name)] = NeuronView(NeuronName(name), "neuron", "http://n:1")
        case Catalogue():
            return msgspec.structs.replace(known, catalogue=step)
        case frozenset():
            return msgspec.structs.replace(known, loading=step)
        case dict():
            return msgspec.structs.replace(known, discovered=step)
    return msgspec.structs.replace(known, view=FleetView(neurons))


@pytest.mark.slow
@given(STEPS)
def test_what_was_kept_never_differs_from_a_list_written_anew(steps: list[object]) -> None:
    """And each limit is the one that requests are measured against."""
    union = ModelUnion(created_unix_seconds=0)
    known = Known(fleet(beast=(), benjy=()), Catalogue(), feasible_on)
    for step in steps:
        known = stepped(known, step)
        kept = union.entries(known)
        anew = ModelUnion(created_unix_seconds=0).entries(known)
        written = {each.id: each for each in known.catalogue.models}
        assert kept == anew
        assert list(kept) == list(anew)
        for name, entry in kept.items():
            model = ModelId(known.catalogue.aliases.get(name, name))
            limits = limits_of(model, written.get(model), known.view)
            if limits is not None:
                assert entry.limit.get("context") == limits.context_min
                output = limits.output
                if output is not None and limits.context_min is not None:
                    output = min(output, limits.context_min)
                assert entry.limit.get("output") == output
        offered = {model for neuron in known.view.neurons.values() for model in neuron.models}
        assert offered <= kept.keys()


@pytest.mark.slow
def test_two_hundred_models_on_fifty_neurons_are_listed_in_a_moment() -> None:
    """Every neuron polled since the last list. About 1 ms of own time; the limit leaves room for
    slow machines and for what watches the coverage.
    """
    catalogue = Catalogue(tuple(CatalogueModel(f"m/{i}") for i in range(200)), {"small": "m/0"})

    def polled(i: int) -> Answered:
        return says(*(offer(ModelId(f"m/{(7 * i + j) % 200}")) for j in range(20)))

    def one() -> FleetView:
        return fleet(**{f"n{i}": (polled(i),) for i in range(50)})

    union = ModelUnion(created_unix_seconds=0)
    assert len(union.entries(Known(one(), catalogue, feasible_on))) == 201
    seconds = []
    for _ in range(5):
        known = Known(one(), catalogue, feasible_on)
        before = process_time()
        union.entries(known)
        seconds.append(process_time() - before)
    assert min(seconds) < 0.025
