"""Plain numbers that are shown as prometheus-client shows its own."""

import re
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from cortexd.metrics.tallies import Tallies

LABELS = ("model", "node")
BOUNDS = (0.0001, 0.25, 1, 2.5, 600)
NOW = 1_700_000_000.0

labels = st.tuples(st.sampled_from(["m", 'o"d\\d\n', ""]), st.sampled_from(["", "beast"]))
amounts = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 1_000), st.integers(0, 2**40))
counted = st.lists(st.tuples(labels, amounts), max_size=30)


def shown(registry: CollectorRegistry) -> str:
    """The text of a scrape; when a series began, which the library asks the clock for, is left
    out.
    """
    text = generate_latest(registry).decode()
    return re.sub(r"^(\w+_created\b.*) \S+$", r"\1", text, flags=re.MULTILINE)


def registered(tallies: Tallies) -> CollectorRegistry:
    """A registry with nothing else in it."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(tallies)
    return registry


@given(counted)
def test_what_is_counted_is_shown_as_the_library_shows_its_own(
    events: Sequence[tuple[tuple[str, str], float]],
) -> None:
    theirs, tallies = CollectorRegistry(), Tallies(lambda: NOW)
    counter = Counter("a_total", "Things", LABELS, registry=theirs)
    histogram = Histogram("b_seconds", "Time", LABELS, buckets=BOUNDS, registry=theirs)
    alone = Histogram("c_size", "Sizes", buckets=BOUNDS, registry=theirs)
    once = Counter("d_total", "Others", registry=theirs)
    tally = tallies.counter("a_total", "Things", LABELS)
    spreads = tallies.histogram("b_seconds", "Time", BOUNDS, LABELS)
    spread = tallies.histogram("c_size", "Sizes", BOUNDS)[()]
    one = tallies.counter("d_total", "Others")
    for values, amount in events:
        counter.labels(*values).inc(amount)
        histogram.labels(*values).observe(amount)
        alone.observe(amount)
        once.inc()
        tally[values] += amount
        spreads[values].add(amount)
        spread.add(amount)
        one[()] += 1
    assert shown(registered(tallies)) == shown(theirs)


def test_a_series_says_when_it_began() -> None:
    times = iter([1.0, 2.0, 3.0, 4.0])
    tallies = Tallies(lambda: next(times))
    alone = tallies.counter("alone_total", "There from the beginning")
    tally = tallies.counter("things_total", "Things", ("model",))
    spreads = tallies.histogram("seconds", "Time", BOUNDS, ("model",))
    for _ in range(2):
        alone[()] += 1
        tally["m",] += 1
        spreads["m",].add(1)
        tally["n",] += 1
    lines = generate_latest(registered(tallies)).decode().splitlines()
    assert [line for line in lines if "_created" in line and not line.startswith("#")] == [
        "alone_created 1.0",
        'things_created{model="m"} 2.0',
        'things_created{model="n"} 4.0',
        'seconds_created{model="m"} 3.0',
    ]
