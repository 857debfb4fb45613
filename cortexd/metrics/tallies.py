"""Counters and histograms for what every request counts: plain numbers, which become Prometheus'
families when somebody scrapes them.

To count with prometheus-client's own takes ten calls, a lock and a clock for every number; what
happens seldom uses them all the same. Everything here belongs to the daemon's one thread.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Sample
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

Labels = tuple[str, ...]

Clock = Callable[[], float]
"""The time in seconds since 1970: when a series began is told to Prometheus."""


class Tally(dict[Labels, float]):
    """The series of one counter: `tally[labels] += n` counts, and begins a series that is new."""

    def __init__(self, clock: Clock) -> None:
        """No series yet."""
        super().__init__()
        self.began: dict[Labels, float] = {}
        self._clock = clock

    def __missing__(self, labels: Labels) -> float:
        self.began[labels] = self._clock()
        return 0


class Spread:
    """One series of a histogram. `in_bucket`: how many values each bucket got, the last above all
    bounds; `total`: their sum.
    """

    __slots__ = ("_bounds", "began", "in_bucket", "total")

    def __init__(self, bounds: Sequence[float], began: float) -> None:
        """Nothing was seen yet. `bounds`: the largest value of each bucket but the last."""
        self._bounds = bounds
        self.began = began
        self.in_bucket = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value; one that is a bound belongs below it."""
        self.in_bucket[bisect_left(self._bounds, value)] += 1
        self.total += value


class Spreads(dict[Labels, Spread]):
    """The series of one histogram: `spreads[labels].add(value)`. To look at one begins it."""

    def __init__(self, bounds: Sequence[float], clock: Clock) -> None:
        """No series yet."""
        super().__init__()
        self.bounds = tuple(bounds)
        self._clock = clock

    def __missing__(self, labels: Labels) -> Spread:
        spread = self[labels] = Spread(self.bounds, self._clock())
        return spread


class Tallies(Collector):
    """All of them, as a collector of prometheus-client."""

    def __init__(self, clock: Clock) -> None:
        """Nothing to count yet."""
        self._clock = clock
        self._families: list[Callable[[], Metric]] = []

    def counter(self, name: str, text: str, labels: Labels = ()) -> Tally:
        """A new counter. Without labels it is one series, there from the beginning."""
        tally = Tally(self._clock)
        if not labels:
            tally[()] += 0
        self._families.append(lambda: _counter_family(name, text, labels, tally))
        return tally

    def histogram(
        self, name: str, text: str, bounds: Sequence[float], labels: Labels = ()
    ) -> Spreads:
        """A new histogram with buckets up to each of the `bounds`, which ascend from above zero."""
        spreads = Spreads(bounds, self._clock)
        self._families.append(lambda: _histogram_family(name, text, labels, spreads))
        return spreads

    def collect(self) -> Iterable[Metric]:
        """What was counted, as it stands now."""
        return [family() for family in self._families]


def _counter_family(name: str, text: str, labels: Labels, tally: Tally) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in tally.items():
        family.add_metric(values, count, created=tally.began[values])
    return family


def _histogram_family(name: str, text: str, labels: Labels, spreads: Spreads) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    bounds = (*(str(float(bound)) for bound in spreads.bounds), "+Inf")
    for values, spread in spreads.items():
        buckets = list(zip(bounds, accumulate(spread.in_bucket), strict=True))
        family.add_metric(values, buckets, spread.total)
        named = dict(zip(labels, values, strict=True))
        family.samples.append(Sample(f"{name}_created", named, spread.began))
    return family
