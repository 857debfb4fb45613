"""Streams beside everybody else's: as fast as they go, and many at once at a model's pace."""

import contextlib
from collections.abc import Iterator, Mapping

from tests.bench import observed
from tests.bench.child import BenchFailed, Child
from tests.bench.plan import Plan
from tests.bench.report import Section, Table, median, number, times
from tests.bench.requests_section import (
    CONSTANT,
    DIRECT,
    OURS,
    Rounds,
    ratio,
    rounds_of,
    why_not,
)
from tests.bench.stage import Stage
from tests.bench.traffic import PACED_SECONDS, STREAM_TOKENS, Order, Outcome

_FIREHOSE_NOTES = (
    f"Streams of {STREAM_TOKENS} words, many events in one write. Every event is parsed and",
    "counted on the way through cortexd, and passed on byte for byte.",
)
_PACED_NOTES = (
    "late: from the neuron's write to the client's read. gap: between two events of one stream,",
    f"{PACED_SECONDS * 1000:.0f} ms when the neuron writes them. kB/stream: memory beyond idle. No",
    "event was lost, except where a row says so. Who gives up is not asked for more streams.",
)


def firehose(stage: Stage, plan: Plan) -> Section:
    """Whole streams one after the other on each connection: events per second, CPU per event."""
    figures: dict[str, float] = {}
    rows: list[tuple[str, ...]] = []
    with stage.gateway() as gateway:
        asked = {OURS: gateway, **stage.others(), DIRECT: stage.neuron}
        for connections in plan.stream_connections:
            rounds = rounds_of(stage, asked, "stream", plan, connections=connections)
            rows += [_firehose_row(connections, name, rounds) for name in rounds]
            figures[f"events_to_direct_{connections}"] = ratio(rounds, event_rate, DIRECT)
            figures[f"cpu_us_per_event_{connections}"] = median(map(cpu_us_per_event, rounds[OURS]))
            for name in rounds:
                if name.startswith("sglang") and not why_not(rounds[name]):
                    figures[f"events_to_sglang-router_{connections}"] = ratio(
                        rounds, event_rate, name
                    )
    columns = ("connections", "events/s", "CPU us/event", "ours: rate", "CPU")
    table = Table("Streamed events, as fast as they go", columns, tuple(rows), _FIREHOSE_NOTES)
    return Section((table,), figures)


def event_rate(outcome: Outcome) -> float:
    """Events per second."""
    return outcome.chunks / outcome.seconds if outcome.seconds else 0


def cpu_us_per_event(outcome: Outcome) -> float:
    """CPU microseconds of the watched process per event."""
    return outcome.cpu_seconds * 1e6 / outcome.chunks if outcome.chunks else 0


def _firehose_row(connections: int, name: str, rounds: Rounds) -> tuple[str, ...]:
    outcomes = rounds[name]
    if why := why_not(outcomes):
        return (f"{connections}, {name}: {why}", *[""] * 4)
    failures = sum(outcome.failures for outcome in outcomes)
    alone = name == OURS
    return (
        f"{connections}, {name}" + (f", {failures} failed" if failures else ""),
        number(median(map(event_rate, outcomes))),
        number(median(map(cpu_us_per_event, outcomes))),
        "" if alone else times(ratio(rounds, event_rate, name)),
        "" if alone else times(ratio(rounds, cpu_us_per_event, name)),
    )


class _Watched:
    """One who is given more and more streams, until there are too many."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.idle_kb = observed.resident_kb(child.pid)
        self.outcomes: dict[int, Outcome] = {}

    def is_over(self) -> bool:
        """Whether it gave up already."""
        return any(outcome.gave_up for outcome in self.outcomes.values())

    def kb_per_stream(self, streams: int) -> float:
        return (self.outcomes[streams].resident_kb - self.idle_kb) / streams


def paced(stage: Stage, plan: Plan) -> Section:
    """Many streams at once that get an event now and then: CPU, latency and memory of each."""
    figures: dict[str, float] = {}
    with stage.gateway() as gateway:
        stage.load(gateway, "plain", connections=1, seconds=plan.seconds)
        figures["idle_mb"] = observed.resident_kb(gateway.pid) / 1024
        asked = {OURS: gateway, **stage.others(), DIRECT: stage.neuron}
        watched = {name: _Watched(child) for name, child in asked.items()}
        for streams in plan.paced_streams:
            for name, each in watched.items():
                if each.is_over():
                    continue
                with _alone(name, watched):
                    each.outcomes[streams] = _open_streams(stage, name, each, plan, streams)
    for streams in plan.paced_streams:
        figures |= _paced_figures(watched, streams)
    tables = [_paced_table(watched, streams) for streams in plan.paced_streams]
    last = tables.pop()
    noted = Table(last.title, last.columns, last.rows, _PACED_NOTES)
    return Section((*tables, noted, _memory_table(stage, figures["idle_mb"], plan)), figures)


@contextlib.contextmanager
def _alone(asked: str, watched: Mapping[str, _Watched]) -> Iterator[None]:
    """Who fell behind goes on with its streams long after they were left: not while another one on
    the same core is measured.
    """
    with contextlib.ExitStack() as stack:
        for name, each in watched.items():
            if name not in (asked, DIRECT):
                stack.enter_context(each.child.standing_still())
        yield


def _open_streams(stage: Stage, name: str, each: _Watched, plan: Plan, streams: int) -> Outcome:
    order = Order(each.child.port, "paced", streams, plan.paced_seconds, each.child.pid)
    outcome = stage.attempt(order)
    if name in (OURS, DIRECT) and outcome.failures:
        raise BenchFailed(f"{name}: {outcome.failures} events lost in {order}")
    return outcome


def _paced_figures(watched: Mapping[str, _Watched], streams: int) -> dict[str, float]:
    ours, direct = (watched[name].outcomes.get(streams) for name in (OURS, DIRECT))
    if ours is None or direct is None or ours.gave_up or direct.gave_up:
        return {}
    return {
        f"kb_per_stream_{streams}": watched[OURS].kb_per_stream(streams),
        f"paced_cpu_us_per_event_{streams}": cpu_us_per_event(ours),
        f"paced_core_{streams}": ours.cpu_seconds / ours.seconds,
        f"paced_added_p50_us_{streams}": ours.p50_us - direct.p50_us,
        f"paced_rate_to_direct_{streams}": event_rate(ours) / event_rate(direct),
    }


def _paced_table(watched: Mapping[str, _Watched], streams: int) -> Table:
    rows = tuple(
        _paced_row(name, each, streams)
        for name, each in watched.items()
        if streams in each.outcomes
    )
    columns = (
        *("", "events/s", "CPU us/event", "core", "late p50 ms", "p99 ms"),
        *("gap p50 ms", "p99 ms", "kB/stream"),
    )
    pace = f"{1 / PACED_SECONDS:.0f} events per second in each"
    return Table(f"{streams} streams at once, {pace}", columns, rows)


def _paced_row(name: str, each: _Watched, streams: int) -> tuple[str, ...]:
    outcome = each.outcomes[streams]
    if outcome.gave_up:
        return (f"{name}: {outcome.gave_up}", *[""] * 8)
    lost = f", {outcome.failures} lost" if outcome.failures else ""
    return (
        name + lost,
        number(event_rate(outcome)),
        number(cpu_us_per_event(outcome)),
        f"{outcome.cpu_seconds / outcome.seconds:.0%}",
        *(number(us / 1000) for us in (outcome.p50_us, outcome.p99_us)),
        *(number(us / 1000) for us in (outcome.gap_p50_us, outcome.gap_p99_us)),
        "" if name == DIRECT else number(each.kb_per_stream(streams)),
    )


def _memory_table(stage: Stage, idle_mb: float, plan: Plan) -> Table:
    """Fresh processes, as nothing ever gives memory back."""
    with stage.fresh_hypercorn() as hypercorn:
        stage.load(hypercorn, "plain", connections=1, seconds=plan.seconds)
        hypercorn_mb = observed.resident_kb(hypercorn.pid) / 1024
    rows = (
        (OURS, number(idle_mb)),
        (CONSTANT, number(hypercorn_mb)),
        ("ratio", times(idle_mb / hypercorn_mb)),
    )
    return Table("Resident memory, idle", ("", "MB"), rows, ("After a few plain requests.",))
