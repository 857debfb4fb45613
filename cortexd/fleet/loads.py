"""The loads that are under way: one per model and fleet, however many wait for it.

Owns what is known of each from its decision until a poll shows the model or it has failed, how long
loads take, and when one that failed may be tried again. Refuses to know where a model goes
(placement.py) and who waits for it (dispatcher.py).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from cortexd.fleet.backoff import Backoffs
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


class UnderWay:
    """A load from its decision on. `loaded_ms`: when its neuron said that it is done.

    `looks`: polls in a row that said something else than its neuron did: before `loaded_ms`, that
    it is there; after that, that it is not.
    """

    __slots__ = ("expected_ms", "loaded_ms", "loading", "looks", "number")

    def __init__(self, number: int, loading: Loading, expected_ms: int) -> None:
        """It has just been decided."""
        self.number = number
        self.loading = loading
        self.expected_ms = expected_ms
        self.loaded_ms: int | None = None
        self.looks = 0


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
            load.loaded_ms, load.looks = now_ms, 0
        else:
            self._fail(load, failure, now_ms)
        return load

    def look(self, neuron: NeuronView, now_ms: int) -> list[tuple[UnderWay, Failure | None]]:
        """Compare a new picture of a neuron with the loads there; return those that end with it.

        An answer can be lost: many a firewall forgets a connection on which a neuron said nothing
        for as long as a load takes. So a model that is there counts as loaded without it.
        """
        ended: list[tuple[UnderWay, Failure | None]] = []
        for load in tuple(self._under_way.values()):
            if load.loading.neuron != neuron.name:
                continue
            if not neuron.healthy:
                failure = Failure("the neuron does not answer any more")
                self._fail(load, failure, now_ms)
                ended.append((load, failure))
                continue
            offer = neuron.models.get(load.loading.model)
            is_there = offer is not None and offer.status.resident
            is_new = neuron.misses == 0 and not neuron.is_stale
            if load.loaded_ms is None:
                load.looks = load.looks + is_new if is_there else 0
            elif not is_there:
                load.looks += is_new
            is_sure = load.looks >= _LOOKS_MAX
            if is_there and (is_sure or load.loaded_ms is not None):
                self._succeed(load)
                ended.append((load, None))
            elif is_sure:
                ended.append((load, self._vanished(load, now_ms)))
        return ended

    def take_overdue(self, now_ms: int) -> list[tuple[UnderWay, Failure | None]]:
        """The loads that were said to be done, and that no poll has shown in time."""
        return [
            (load, self._vanished(load, now_ms))
            for load in tuple(self._under_way.values())
            if load.loaded_ms is not None and now_ms >= load.loaded_ms + SHOWN_WITHIN_MS
        ]

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

    def _succeed(self, load: UnderWay) -> None:
        loading = load.loading
        del self._under_way[loading.model]
        self._backoffs.succeeded(loading.model, loading.neuron)

    def _vanished(self, load: UnderWay, now_ms: int) -> Failure:
        failure = Failure("the neuron said that it had loaded it, but does not list it")
        self._fail(load, failure, now_ms)
        return failure

    def _fail(self, load: UnderWay, failure: Failure, now_ms: int) -> None:
        loading = load.loading
        del self._under_way[loading.model]
        self._backoffs.failed(loading.model, loading.neuron, now_ms, permanent=failure.permanent)
