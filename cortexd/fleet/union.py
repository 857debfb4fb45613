"""What can be asked for: what neurons report, and what the catalogue makes possible.

Owns what is said of a model that several places know. Refuses to know how feasibility is judged (a
callable is handed in), and never asks a neuron: everything comes from the view.

How several statements become one: of limits the smallest counts, because a request may go to any
of the locations, and so does a neuron's that is away, because it may be back. What a model can do
is everything that some location says. What the operator wrote of prices and capabilities replaces
what neurons say; of several neurons' prices each is the highest.

A fleet of fifty neurons brings a new view ten times a second, and hardly ever says anything new in
it. So each neuron's statements are compared with its last ones, and only the entries of models of
which something else is said now are written again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from cortexd.config.schema import Catalogue, CatalogueModel, Cost, Limit
from cortexd.dialects.models import models_entry
from cortexd.fleet.catalogue import resolve
from cortexd.fleet.engines.abilities import places_itself
from cortexd.fleet.reports import ModelId
from cortexd.fleet.view import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from cortexd.dialects.models import ModelEntry
    from cortexd.fleet.view import FleetView, NeuronName, NeuronView

    Feasible = Callable[[CatalogueModel, FleetView], Iterable[NeuronName]]

UNAVAILABLE = "unavailable"
"""The status of a location whose neuron does not answer: what it last said may be long past."""

_NOTHING_LOADS: frozenset[tuple[NeuronName, ModelId]] = frozenset()


class Known(msgspec.Struct, frozen=True):
    """Everything that the list of models is made of.

    `feasible`: names of the neurons that could run a model of the catalogue; it answers alike as
    long as it is the same callable and neurons keep their names, kinds, health and cards.
    `loading`: loads under way that neurons may not report yet. `discovered`: capabilities of cold
    models that some neuron told. All are replaced by new ones when they change, never changed.
    """

    view: FleetView
    catalogue: Catalogue
    feasible: Feasible
    loading: frozenset[tuple[NeuronName, ModelId]] = _NOTHING_LOADS
    discovered: Mapping[ModelId, tuple[str, ...]] = {}


class _Statement(msgspec.Struct, frozen=True):
    """What one location says of a model, as far as the list shows it."""

    status: str
    serves: bool = False
    limit: Limit = Limit()
    cost: Cost | None = None
    capabilities: tuple[str, ...] = ()
    tool_call: bool = False
    reasoning: bool = False


class ModelUnion:
    """The list of models, kept for as long as nothing it is made of changes. One thread."""

    def __init__(self, *, created_unix_seconds: int) -> None:
        """Models are said to have been created at this time."""
        self._created_unix_seconds = created_unix_seconds
        self._known: Known | None = None
        self._topology: tuple[object, ...] = ()
        self._written: dict[ModelId, CatalogueModel] = {}
        self._feasible_on: dict[ModelId, frozenset[NeuronName]] = {}
        self._said: dict[NeuronName, dict[ModelId, _Statement]] = {}
        self._by_id: dict[ModelId, ModelEntry] = {}
        self._entries: dict[str, ModelEntry] = {}

    def entries(
        self, known: Known, *, allowed: Collection[str] | None = None
    ) -> dict[str, ModelEntry]:
        """Every name that can be asked for, with its entry: models by id, then aliases.

        `allowed`: ids or aliases of the models that a key may use, None: all. An id that is also an
        alias stands for what the alias leads to, as it does in a request. The result is the
        caller's.
        """
        self._update(known)
        if allowed is None:
            return dict(self._entries)
        catalogue = known.catalogue
        ids = {resolve(catalogue, name) for name in allowed}
        return {
            name: each for name, each in self._entries.items() if resolve(catalogue, name) in ids
        }

    def _update(self, known: Known) -> None:
        before, self._known = self._known, known
        if before is not None and _is_same(known, before):
            return
        changed = self._judge_feasibility(known) | self._listen(known, before)
        if (
            before is None
            or before.catalogue is not known.catalogue
            or before.discovered != known.discovered
        ):
            self._written = {ModelId(model.id): model for model in known.catalogue.models}
            changed |= self._written.keys() | self._by_id.keys()
        elif not changed:
            return
        at: dict[ModelId, list[tuple[NeuronName, _Statement]]] = {model: [] for model in changed}
        for name, said in self._said.items():
            for model in said.keys() & changed:
                at[model].append((name, said[model]))
        for model, statements in at.items():
            self._write(model, statements, known)
        self._entries = _with_aliases(self._by_id, known.catalogue)

    def _judge_feasibility(self, known: Known) -> set[ModelId]:
        """Ask for every model, if something changed that it depends on; return what is new."""
        topology = (
            known.feasible,
            known.catalogue,
            *map(_build, known.view.neurons.values()),
        )
        if topology == self._topology:
            return set()
        before, self._topology = self._feasible_on, topology
        self._feasible_on = {
            ModelId(model.id): frozenset(known.feasible(model, known.view))
            for model in known.catalogue.models
        }
        return {model for model, on in self._feasible_on.items() if on != before.get(model)}

    def _listen(self, known: Known, before: Known | None) -> set[ModelId]:
        """Take what every neuron says now; return the models of which something else is said."""
        loading = _by_neuron(known.loading)
        old_neurons = before.view.neurons if before is not None else {}
        same_loading = before is not None and before.loading == known.loading
        said: dict[NeuronName, dict[ModelId, _Statement]] = {}
        changed: set[ModelId] = set()
        for name, neuron in known.view.neurons.items():
            old = self._said.pop(name, {})
            if same_loading and old_neurons.get(name) is neuron:
                said[name] = old
                continue
            new = said[name] = _statements(neuron, loading.get(name, set()))
            if new != old:
                models = new.keys() | old.keys()
                changed |= {model for model in models if new.get(model) != old.get(model)}
        for gone in self._said.values():
            changed |= gone.keys()
        self._said = said
        return changed

    def _write(self, model: ModelId, at: list[tuple[NeuronName, _Statement]], known: Known) -> None:
        """Write the entry of a model; one that is nowhere, and feasible nowhere, has none."""
        feasible_on = self._feasible_on.get(model, frozenset())
        if not at and not feasible_on:
            self._by_id.pop(model, None)
            return
        written = self._written.get(model) or CatalogueModel(model)
        limit, cost, capabilities = _merged(written, [statement for _, statement in at])
        capabilities = capabilities or known.discovered.get(model, ()) or ("text",)
        self._by_id[model] = models_entry(
            model=model,
            created_unix_seconds=self._created_unix_seconds,
            context=limit.context,
            input_limit=limit.input,
            output=limit.output,
            modalities=capabilities,
            loaded=any(statement.serves for _, statement in at),
            feasible_on=sorted(feasible_on.union(name for name, _ in at)),
            locations=[(name, statement.status) for name, statement in at],
            tool_call=any(statement.tool_call for _, statement in at),
            reasoning=any(statement.reasoning for _, statement in at),
            cost=_prices(cost),
        )


def _build(neuron: NeuronView) -> tuple[object, ...]:
    cards = [(card.index, card.vram_total_mb) for card in neuron.devices]
    listed = sorted(neuron.models) if places_itself(neuron.kind) else ()
    return neuron.name, neuron.kind, neuron.healthy, neuron.discovery, cards, listed


def _is_same(known: Known, before: Known) -> bool:
    return (
        known.view is before.view
        and known.catalogue is before.catalogue
        and known.feasible == before.feasible
        and known.loading == before.loading
        and known.discovered == before.discovered
    )


def _with_aliases(
    by_id: Mapping[ModelId, ModelEntry], catalogue: Catalogue
) -> dict[str, ModelEntry]:
    """All names, but for aliases of models that have no entry: they would lead nowhere."""
    entries: dict[str, ModelEntry] = {model: by_id[model] for model in sorted(by_id)}
    for alias, model in catalogue.aliases.items():
        entries.pop(alias, None)
        entry = by_id.get(ModelId(model))
        if entry is not None:
            entries[alias] = replace(entry, id=alias, display_name=alias)
    return entries


def _by_neuron(
    loading: frozenset[tuple[NeuronName, ModelId]],
) -> dict[NeuronName, set[ModelId]]:
    models: dict[NeuronName, set[ModelId]] = {}
    for name, model in loading:
        models.setdefault(name, set()).add(model)
    return models


def _statements(neuron: NeuronView, loading: set[ModelId]) -> dict[ModelId, _Statement]:
    """What a neuron says of its models, and of those that it is about to have."""
    coming = loading | _warming_up(neuron)
    is_coming = _Statement(Status.LOADING.value if neuron.healthy else UNAVAILABLE)
    statements = dict.fromkeys(coming, is_coming)
    for model, offer in neuron.models.items():
        status = offer.status
        if status is Status.UNLOADED and model in coming:
            status = Status.LOADING
        statements[model] = _Statement(
            status.value if neuron.healthy else UNAVAILABLE,
            neuron.healthy and offer.can_serve,
            offer.limit,
            offer.cost,
            offer.capabilities,
            offer.tool_call,
            offer.reasoning,
        )
    return statements


def _warming_up(neuron: NeuronView) -> set[ModelId]:
    """What a neuron loads by itself after its start; its list of models does not show it yet."""
    activation = neuron.activation
    if activation is None:
        return set()
    return {ModelId(id) for id in (*activation.pending, activation.in_progress) if id}


def _merged(
    written: CatalogueModel, statements: list[_Statement]
) -> tuple[Limit, Cost | None, tuple[str, ...]]:
    """Limits, prices and capabilities from everything that is said of a model."""
    context, most_input, output = written.limit.context, written.limit.input, written.limit.output
    costs: list[Cost] = []
    capabilities: dict[str, None] = {}
    last: _Statement | None = None
    for each in statements:
        if each == last:
            continue  # nearly always: the same weights behind another address
        last = each
        context = _lower(context, each.limit.context)
        most_input = _lower(most_input, each.limit.input)
        output = _lower(output, each.limit.output)
        capabilities.update(dict.fromkeys(each.capabilities))
        if each.cost is not None:
            costs.append(each.cost)
    # What a neuron does not state is bounded by its context, so that of all of them is too.
    limit = Limit(
        context,
        None if most_input is None else _lower(most_input, context),
        None if output is None else _lower(output, context),
    )
    return limit, written.cost or _highest(costs), written.capabilities or tuple(capabilities)


def _lower(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _highest(costs: list[Cost]) -> Cost | None:
    """Of each price the highest, so that no client adds up too little; None: nobody says any."""
    if len(costs) < 2:
        return costs[0] if costs else None
    highest: dict[str, float] = {}
    for cost in costs:
        for kind, price in _stated(cost).items():
            highest[kind] = max(price, highest.get(kind, price))
    return Cost(**highest)


def _prices(cost: Cost | None) -> dict[str, float] | None:
    """The prices there are, 0 among them; None rather than an empty list of prices."""
    return (_stated(cost) if cost is not None else None) or None


def _stated(cost: Cost) -> dict[str, float]:
    prices = msgspec.structs.asdict(cost)
    return {kind: price for kind, price in prices.items() if price is not None}
