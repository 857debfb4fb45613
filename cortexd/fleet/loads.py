"""The loads that are under way: one per model and fleet, however many wait for it.

Owns what is known of each from its decision until a poll shows the model or it has failed, how long
loads take, and when one that failed may be tried again. Refuses to know where a model goes
(placement.py) and who waits for it (dispatcher.py).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from cortexd.fleet.backoff import Backoffs
from cortexd.fleet.engines.abilities import places_itself
from cortexd.fleet.load_calls import LoadSpec
from cortexd.fleet.load_times import LoadTimes, left_ms
from cortexd.fleet.orders import Failure, Load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cortexd.config.schema import CatalogueModel
    from cortexd.fleet.placement import Place
    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.situation import Loading
    from cortexd.fleet.view import NeuronName, NeuronView

SHOWN_WITHIN_MS = 30_000
"""A neuron that said "loaded" has so long to show the model in its list."""

_LOOKS_MAX = 2
"""Of the polls after a change, the first may have begun before it; the second one counts."""

_SILENT = Failure("the neuron does not answer any more")
_RESTARTED = Failure("the neuron has restarted meanwhile")
_VANISHED = Failure("the neuron said that it had loaded it, but does not list it")


class UnderWay:
    """A load from its decision on. `loaded_ms`: when its neuron said that it is done.

    `shown`: polls in a row that showed the model; `missing`: those after `loaded_ms` that did not.
    """

    __slots__ = ("expected_ms", "loaded_ms", "loading", "missing", "number", "shown")

    def __init__(self, number: int, loading: Loading, expected_ms: int) -> None:
        """It has just been decided."""
        self.number = number
        self.loading = loading
        self.expected_ms = expected_ms
        self.loaded_ms: int | None = None
        self.shown = self.missing = 0


class Loads:
    """All loads under way, and what was learned from those before. One thread."""

    def __init__(self) -> None:
        """Nothing is loaded, and nothing was."""
        self._under_way: dict[ModelId, UnderWay] = {}
        self._numbers = itertools.count(1)
        self._times = LoadTimes()
        self._backoffs = Backoffs()

    def __contains__(self, model: ModelId) -> bool:
        return model in self._under_way

    def __iter__(self) -> Iterator[UnderWay]:
        return iter(self._under_way.values())

    def get(self, model: ModelId) -> UnderWay | None:
        """The load of a model, if it is being loaded for us."""
        return self._under_way.get(model)

    def begin(self, entry: CatalogueModel, model: ModelId, place: Place, now_ms: int) -> Load:
        """Follow a plan: the load is under way from here on."""
        assert model not in self._under_way, "a model was to be loaded twice at once"
        loading = place.loading(model, now_ms)
        expected_ms = self.expected_ms(model, place.neuron, place.vram_mb)
        number = next(self._numbers)
        self._under_way[model] = UnderWay(number, loading, expected_ms)
        cards = place.devices
        spec = LoadSpec(
            model,
            entry.source,
            entry.harness,
            entry.quant,
            tensor_parallel=len(cards) if len(cards) > 1 else None,
            devices=cards,
        )
        return Load(number, place.neuron, spec, place.evict)

    def ended(
        self, order: Load, failure: Failure | None, now_ms: int, *, took_ms: int
    ) -> UnderWay | None:
        """What a neuron answered; None if that load is under way no more.

        `took_ms` is what the neuron alone took. After a success it stays under way until `look`
        finds it: its memory would belong to nobody meanwhile.
        """
        load = self._under_way.get(order.spec.model)
        if load is None or load.number != order.number:
            return None
        if failure is None:
            loading = load.loading
            self._times.loaded(
                loading.model, loading.neuron, took_ms=took_ms, vram_mb=loading.vram_mb
            )
            load.loaded_ms = now_ms
        else:
            self._fail(load, failure, now_ms)
        return load

    def look(self, neuron: NeuronView, now_ms: int) -> list[tuple[UnderWay, Failure | None]]:
        """Compare a new picture of a neuron with the loads there; return those that end with it.

        An answer can be lost: many a firewall forgets a connection on which a neuron said nothing
        for as long as a load takes. So a model that is there counts as loaded without it, and one
        that is not there counts as lost if the load began before the neuron did.
        """
        ended: list[tuple[UnderWay, Failure | None]] = []
        for load in tuple(self._under_way.values()):
            if load.loading.neuron != neuron.name:
                continue
            left = _left_again(load, neuron)
            failure = None if left else _why_lost(load, neuron)
            if failure is not None:
                self._fail(load, failure, now_ms)
                ended.append((load, failure))
            elif left or _is_done(load, neuron):
                del self._under_way[load.loading.model]
                self._backoffs.succeeded(load.loading.model, neuron.name)
                ended.append((load, None))
        return ended

    def take_overdue(self, now_ms: int) -> list[tuple[UnderWay, Failure | None]]:
        """The loads that were said to be done, and that no poll has shown in time."""
        overdue = [
            load
            for load in self
            if load.loaded_ms is not None and now_ms >= load.loaded_ms + SHOWN_WITHIN_MS
        ]
        for load in overdue:
            self._fail(load, _VANISHED, now_ms)
        return [(load, _VANISHED) for load in overdue]

    @property
    def overdue_ms(self) -> int | None:
        """When the next one becomes overdue; None: no neuron said of one that it is done."""
        said = [load.loaded_ms for load in self if load.loaded_ms is not None]
        return min(said) + SHOWN_WITHIN_MS if said else None

    def eta_ms(self, model: ModelId, now_ms: int) -> int | None:
        """How much longer a load that is under way is expected to take."""
        load = self._under_way.get(model)
        if load is None:
            return None
        return left_ms(load.expected_ms, since_ms=load.loading.since_ms, now_ms=now_ms)

    def expected_ms(self, model: ModelId, neuron: NeuronName, vram_mb: int | None) -> int:
        """What a load of a model on a neuron would take."""
        return self._times.expected_ms(model, neuron, vram_mb=vram_mb)

    def pause_ms(self, model: ModelId, neuron: NeuronName, now_ms: int) -> int:
        """How long a load that failed there is not tried again; 0: nothing speaks against it."""
        return self._backoffs.of(model, neuron).wait_ms(now_ms)

    def _fail(self, load: UnderWay, failure: Failure, now_ms: int) -> None:
        loading = load.loading
        del self._under_way[loading.model]
        self._backoffs.failed(loading.model, loading.neuron, now_ms, permanent=failure.permanent)


def _why_lost(load: UnderWay, neuron: NeuronView) -> Failure | None:
    if not neuron.healthy:
        return _SILENT
    if _is_there(load, neuron):
        return None
    if load.loaded_ms is None:
        began_ms = neuron.started_after_ms
        is_older = began_ms is not None and load.loading.since_ms < began_ms
        return _RESTARTED if is_older else None
    load.missing += _is_fresh(neuron)
    return _VANISHED if load.missing >= _LOOKS_MAX else None


def _is_done(load: UnderWay, neuron: NeuronView) -> bool:
    if not _is_there(load, neuron):
        load.shown = 0
        return False
    load.shown += _is_fresh(neuron)
    return load.loaded_ms is not None or load.shown >= _LOOKS_MAX


def _left_again(load: UnderWay, neuron: NeuronView) -> bool:
    """Whether an engine that makes room by itself has already made some of it, which is no fault of
    the load: that one counts as done only once such an engine has listed the model.
    """
    was_there = load.loaded_ms is not None and places_itself(neuron.kind)
    return was_there and _is_fresh(neuron) and neuron.healthy and not _is_there(load, neuron)


def _is_there(load: UnderWay, neuron: NeuronView) -> bool:
    offer = neuron.models.get(load.loading.model)
    return offer is not None and offer.status.resident


def _is_fresh(neuron: NeuronView) -> bool:
    """Whether the picture comes of a poll that was answered."""
    return neuron.misses == 0 and not neuron.is_stale
