"""How long a model takes to load: learned from the loads there were, guessed before the first.

Owns the samples and the estimate. Refuses to know how a load goes, and that one is under way: it is
told since when. Forgets everything with the daemon.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.view import NeuronName

SAMPLES_MAX = 5
"""How many of the last loads count."""

PLACES_MAX = 10_000
"""Of more pairs of model and neuron than this, those loaded last are remembered."""

SHORTEST_MS = 1_000
LONGEST_MS = 1_800_000
"""No load is expected to take less, or longer: a neuron is not waited for beyond half an hour."""

# The guess: an engine starts, then reads weights at the pace of a modest disk. What is not known
# of a model's size counts as a model that fills a usual card.
_START_MS = 10_000
_MB_PER_SECOND = 500
_UNKNOWN_VRAM_MB = 16_000

_NEURONS_MAX = 1_000
_LATENESS = 8  # an eighth: how far a load may well be from what is expected
_PER_MILLE = 1_000

_KeyT = TypeVar("_KeyT")


def prior_ms(vram_mb: int | None) -> int:
    """What a load takes, by the size of the model alone; None: the size is not known."""
    size_mb = _UNKNOWN_VRAM_MB if vram_mb is None else vram_mb
    return _within_reason(_START_MS + size_mb * 1_000 // _MB_PER_SECOND)


def recent_median(samples: tuple[int, ...]) -> int:
    """The median of samples, the newest last, of which each weighs one more than that before it.

    One odd sample moves it little, wherever it stands: of (30, 30, 900) it is 30. What changes for
    good is followed from the second sample on: of (30, 30, 30, 900, 900) it is 900. There must be
    at least one sample.
    """
    weighted = sorted((sample, weight) for weight, sample in enumerate(samples, start=1))
    half = sum(weight for _, weight in weighted) / 2
    for sample, weight in weighted:
        half -= weight
        if half <= 0:
            return sample
    raise ValueError("the median of nothing")


def left_ms(expected_ms: int, *, since_ms: int, now_ms: int) -> int:
    """How much longer a load goes on that is under way `since_ms`; more than 0 as long as it is.

    Counts on an eighth more than `expected_ms`, so that who comes back then mostly finds the model
    loaded. A load that is late already is expected to need an eighth of the time it took so far:
    the later it is, the less is known of it, and the more rarely should anybody ask.
    """
    gone_ms = max(0, now_ms - since_ms)
    return max(expected_ms + expected_ms // _LATENESS - gone_ms, gone_ms // _LATENESS, SHORTEST_MS)


def retry_after_seconds(wait_ms: int) -> int:
    """A wait as the Retry-After header says it: whole seconds, rounded up, at least 1."""
    return max(1, -(-wait_ms // 1_000))


class _Remembered(Generic[_KeyT]):
    """The last samples of each key; of too many keys, the one without news longest is forgotten."""

    __slots__ = ("_keys_max", "_samples")

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self._samples: OrderedDict[_KeyT, tuple[int, ...]] = OrderedDict()

    def of(self, key: _KeyT) -> tuple[int, ...]:
        return self._samples.get(key, ())

    def add(self, key: _KeyT, sample: int) -> None:
        self._samples[key] = (*self.of(key), sample)[-SAMPLES_MAX:]
        self._samples.move_to_end(key)
        if len(self._samples) > self._keys_max:
            self._samples.popitem(last=False)


class LoadTimes:
    """What is known of the loads of a fleet."""

    __slots__ = ("_by_neuron", "_by_place", "_everywhere")

    def __init__(self) -> None:
        self._by_place: _Remembered[tuple[ModelId, NeuronName]] = _Remembered(PLACES_MAX)
        # A neuron's pace: what its loads took, in thousandths of what was guessed from their size.
        self._by_neuron: _Remembered[NeuronName] = _Remembered(_NEURONS_MAX)
        self._everywhere: tuple[int, ...] = ()

    def loaded(
        self, model: ModelId, neuron: NeuronName, *, took_ms: int, vram_mb: int | None
    ) -> None:
        """Learn from a load that went well. What failed says nothing of how long success takes."""
        took_ms = _within_reason(took_ms)
        pace = took_ms * _PER_MILLE // prior_ms(vram_mb)
        self._by_place.add((model, neuron), took_ms)
        self._by_neuron.add(neuron, pace)
        self._everywhere = (*self._everywhere, pace)[-SAMPLES_MAX:]

    def expected_ms(self, model: ModelId, neuron: NeuronName, *, vram_mb: int | None) -> int:
        """What the next load of a model on a neuron will take, from 1 second to half an hour.

        By the last loads of that model there; without any, by its size and the pace of the last
        loads on that neuron, or in the fleet, or of a modest disk.
        """
        samples = self._by_place.of((model, neuron))
        if samples:
            return recent_median(samples)
        paces = self._by_neuron.of(neuron) or self._everywhere or (_PER_MILLE,)
        return _within_reason(prior_ms(vram_mb) * recent_median(paces) // _PER_MILLE)


def _within_reason(duration_ms: int) -> int:
    return min(max(duration_ms, SHORTEST_MS), LONGEST_MS)
