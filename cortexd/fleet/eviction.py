"""Who has to make room for a model, who may not be touched, and who has been idle for too long.

Owns the residency classes, the protections, the choice of the smallest set, and the count of load
cycles. Refuses to know how a model is unloaded and which neuron a load goes to (placement.py).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

from cortexd.fleet.engines.abilities import loads
from cortexd.fleet.feasibility import pinned_to
from cortexd.fleet.reports import ModelId
from cortexd.fleet.situation import Books, Residency
from cortexd.fleet.view import NeuronName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cortexd.config.schema import Eviction
    from cortexd.fleet.situation import Situation
    from cortexd.fleet.view import NeuronView

PRIORITY = 100
PINNED_PRIORITY = 1_000

CANDIDATES_MAX = 64
"""Of a neuron's models at most so many are considered, those that free most: one that lists
thousands must not cost unbounded time or depth."""

Regret = tuple[int, ...]
"""How much a model would be missed; compared among models of one strategy."""


class Protection(enum.Enum):
    """Why a model may not be displaced."""

    OUTRANKS = "outranks"
    IN_USE = "in_use"
    TOO_YOUNG = "too_young"


class Candidate(msgspec.Struct, frozen=True):
    """A model that may go. `gains`: by how much each card's lack shrinks with it."""

    model: ModelId
    regret: Regret
    gains: Mapping[int, int]


def residency_class(books: Books, model: ModelId) -> int:
    """A model displaces its own class and those below. One the catalogue does not know counts as
    written there without a priority; a pin set at run time counts as one that is written.
    """
    entry = books.entries.get(model)
    if entry is None:
        return PINNED_PRIORITY if books.situation.pins.get(model) else PRIORITY
    if entry.residency_priority is not None:
        return entry.residency_priority
    return PINNED_PRIORITY if pinned_to(entry, books.situation.pins) else PRIORITY


def protection(
    books: Books, neuron: NeuronView, model: ModelId, newcomer_class: int, settings: Eviction
) -> Protection | None:
    """What keeps a model of this neuron from being displaced; None: nothing does."""
    if residency_class(books, model) > newcomer_class:
        return Protection.OUTRANKS
    if books.is_engaged(neuron, model) or books.is_leaving(neuron.name, model):
        return Protection.IN_USE
    if matures_in_ms(books, (neuron.name, model), settings) > 0:
        return Protection.TOO_YOUNG
    return None


def matures_in_ms(books: Books, residency: Residency, settings: Eviction) -> int:
    """How long it still counts as just loaded; of a load that we know nothing about: 0."""
    use = books.situation.uses.get(residency)
    if use is None or residency in books.situation.yielding:
        return 0
    least_ms = round(settings.min_residency_seconds * 1000)
    return max(0, use.loaded_ms + least_ms - books.situation.now_ms)


def regret(books: Books, residency: Residency, settings: Eviction) -> Regret:
    """By strategy: what was used last, or the class and then what was used last. A model without a
    known use is missed least.
    """
    use = books.situation.uses.get(residency)
    touched_ms = -1 if use is None else use.touched_ms
    if settings.strategy == "lru":
        return (touched_ms,)
    return (residency_class(books, residency[1]), touched_ms)


def set_regret(chosen: Sequence[Candidate]) -> tuple[Regret, ...]:
    """What two sets of the same length are compared by: the most missed model first."""
    return tuple(sorted((each.regret for each in chosen), reverse=True))


def smallest_set(
    lacks: Mapping[int, int],
    width: int,
    candidates: Sequence[Candidate],
    *,
    at_most: int,
    steps_max: int,
) -> tuple[Candidate, ...] | None:
    """The models to displace so that `width` of the cards lack nothing any more.

    The fewest; of these the least missed, compared from the most missed model down, where of two
    that are missed alike the one with the later name counts as more. None: not even all of them,
    or not `at_most`, suffice. A search that is not done after `steps_max` steps ends with a set of
    which no part suffices, but not surely the smallest. 64 steps are always enough for a model on
    one card.
    """
    useful = _useful(lacks, candidates)
    if not suffices(lacks, width, useful):
        return None
    search = _Search(lacks, width, useful, steps_max)
    for count in range(min(at_most, len(useful)) + 1):
        found = search.run(count)
        if found is not None:
            return found
        if search.steps_left < 0:
            rough = _without_needless(lacks, width, useful)
            return rough if len(rough) <= at_most else None
    return None


def _useful(lacks: Mapping[int, int], candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that gain something, the least missed first; of too many, those that gain most."""
    gains = {each.model: sum(each.gains.get(index, 0) for index in lacks) for each in candidates}
    most = sorted(candidates, key=lambda each: (-gains[each.model], each.regret, each.model))
    able = [each for each in most[:CANDIDATES_MAX] if gains[each.model] > 0]
    return sorted(able, key=lambda each: (each.regret, each.model))


def suffices(lacks: Mapping[int, int], width: int, gone: Sequence[Candidate]) -> bool:
    """Whether `width` of the cards lack nothing once these are gone."""
    enough = 0
    for index, lack in lacks.items():
        enough += sum(each.gains.get(index, 0) for each in gone) >= lack
    return enough >= width


def _without_needless(
    lacks: Mapping[int, int], width: int, useful: Sequence[Candidate]
) -> tuple[Candidate, ...]:
    """All of them, less whoever is not needed, the most missed first."""
    kept = list(useful)
    for each in reversed(useful):
        left = [other for other in kept if other is not each]
        if suffices(lacks, width, left):
            kept = left
    return tuple(kept)


class _Search:
    """Looks for sets of a given length, least missed first.

    Candidates are decided on from the most missed down, and each is left out if what remains may
    still suffice. "May": each card by itself, with the candidates that gain most there. So the
    first set found is the best one, and a model that takes one card never leads astray; for
    several cards the search may have to turn back, within its steps.
    """

    def __init__(
        self, lacks: Mapping[int, int], width: int, useful: Sequence[Candidate], steps_max: int
    ) -> None:
        self.steps_left = steps_max
        self._width = width
        self._useful = useful
        self._lacks = tuple(lacks.values())
        self._gains = [tuple(each.gains.get(index, 0) for index in lacks) for each in useful]
        self._columns = list(zip(*self._gains, strict=True)) or [()] * len(lacks)
        self._most: dict[tuple[int, int, int], int] = {}

    def run(self, count: int) -> tuple[Candidate, ...] | None:
        """The best set of that length; None when there is none, or the steps are used up."""
        return self._descend(len(self._useful), count, self._lacks)

    def _descend(
        self, among: int, count: int, lacks: tuple[int, ...]
    ) -> tuple[Candidate, ...] | None:
        """Choose `count` of the first `among`."""
        if not self._may_suffice(among, count, lacks):
            return None
        if count == 0:
            return ()
        self.steps_left -= 1
        if self.steps_left < 0:
            return None
        found = self._descend(among - 1, count, lacks)
        if found is not None or self.steps_left < 0:
            return found
        gains = self._gains[among - 1]
        left = tuple(lack - gain for lack, gain in zip(lacks, gains, strict=True))
        found = self._descend(among - 1, count - 1, left)
        return None if found is None else (*found, self._useful[among - 1])

    def _may_suffice(self, among: int, count: int, lacks: tuple[int, ...]) -> bool:
        if count > among:
            return False
        enough = 0
        for card, lack in enumerate(lacks):
            if lack <= 0 or self._most_gain(card, among, count) >= lack:
                enough += 1
                if enough == self._width:
                    return True
        return False

    def _most_gain(self, card: int, among: int, count: int) -> int:
        """What the `count` best of the first `among` gain together on a card."""
        key = (card, among, count)
        if key not in self._most:
            gains = sorted(self._columns[card][:among], reverse=True)
            self._most[key] = sum(gains[:count])
        return self._most[key]


def idle(situation: Situation) -> tuple[Residency, ...]:
    """What is to be unloaded because nobody has used it for its `idle_unload_seconds`.

    Only what is loaded, on healthy neurons, and neither engaged nor leaving. Without a known use
    there is no idle time, so whoever keeps the uses begins one for each model that it finds.
    """
    books = Books(situation)
    return tuple(
        (neuron.name, model)
        for neuron in situation.view.neurons.values()
        if neuron.healthy and loads(neuron.kind)
        for model in neuron.models
        if _is_idle(books, neuron, model)
    )


def _is_idle(books: Books, neuron: NeuronView, model: ModelId) -> bool:
    entry = books.entries.get(model)
    use = books.situation.uses.get((neuron.name, model))
    if entry is None or not entry.idle_unload_seconds or use is None:
        return False
    if books.is_engaged(neuron, model) or books.is_leaving(neuron.name, model):
        return False
    rest_ms = books.situation.now_ms - use.touched_ms
    return rest_ms >= round(entry.idle_unload_seconds * 1000)


class Cycles:
    """Counts how often each neuron has unloaded a model that had been loaded.

    Memory is left in more and more pieces by that, until a model that should fit does not; a
    restart of the neuron cures it. Owned by whoever unloads.
    """

    def __init__(self, defrag_after_cycles: int) -> None:
        self._after = defrag_after_cycles
        self._counts: dict[NeuronName, int] = {}

    def unloaded(self, neuron: NeuronName) -> bool:
        """Count one; whether it is time to say that the neuron should be restarted.

        True at every multiple of `defrag_after_cycles`, never when that is 0.
        """
        self._counts[neuron] = count = self.count(neuron) + 1
        return self._after > 0 and count % self._after == 0

    def restarted(self, neuron: NeuronName) -> None:
        """Begin anew: its memory is in one piece again."""
        self._counts.pop(neuron, None)

    def is_restart_advised(self, neuron: NeuronName) -> bool:
        """Whether it has been time for a restart since the last one."""
        return self._after > 0 and self.count(neuron) >= self._after

    def count(self, neuron: NeuronName) -> int:
        """How many since the start, or since its restart."""
        return self._counts.get(neuron, 0)
