"""Streams through cortexd beside the neuron alone: as fast as they go, and many slow ones."""

from tests.bench import observed
from tests.bench.plan import Plan
from tests.bench.report import Section, Table, median, median_ratio, number, times
from tests.bench.stage import Child, Stage
from tests.bench.traffic import PACED_SECONDS, STREAM_TOKENS, Outcome


def firehose(stage: Stage, gateway: Child, plan: Plan) -> Section:
    """Whole streams one after the other on each connection: events per second, CPU per event."""
    rows: list[tuple[str, ...]] = []
    figures: dict[str, float] = {}
    for connections in plan.stream_connections:
        ours: list[Outcome] = []
        direct: list[Outcome] = []
        for _ in range(plan.rounds):
            for asked, rounds in ((gateway, ours), (stage.neuron, direct)):
                rounds.append(
                    stage.load(asked, "stream", connections=connections, seconds=plan.seconds)
                )
        ratio = median_ratio(list(map(event_rate, ours)), list(map(event_rate, direct)))
        figures[f"events_to_direct_{connections}"] = ratio
        figures[f"cpu_us_per_event_{connections}"] = median(map(cpu_us_per_event, ours))
        rows.append(
            (
                str(connections),
                number(median(map(event_rate, ours))),
                number(figures[f"cpu_us_per_event_{connections}"]),
                number(median(map(event_rate, direct))),
                times(ratio),
            )
        )
    table = Table(
        "Streamed events, as fast as they go",
        ("connections", "cortexd/s", "CPU us/event", "direct/s", "rate:direct"),
        tuple(rows),
        (
            f"Streams of {STREAM_TOKENS} words, many events in one write. Every event is parsed",
            "and counted on the way through cortexd, and passed on byte for byte.",
        ),
    )
    return Section((table,), figures)


def paced(stage: Stage, plan: Plan) -> Section:
    """Many streams at once that get an event now and then: CPU, latency and memory of each."""
    ours: list[Outcome] = []
    direct: list[Outcome] = []
    idle: list[float] = []
    for _ in range(plan.stream_rounds):
        with stage.gateway() as gateway:
            stage.load(gateway, "plain", connections=1, seconds=plan.seconds / 2)
            idle.append(observed.resident_kb(gateway.pid))
            ours.append(_open_streams(stage, gateway, plan))
        direct.append(_open_streams(stage, stage.neuron, plan))
    hypercorn_idle, hypercorn_each = _memory_of_hypercorn(stage, plan)
    each = median((o.resident_kb - i) / plan.streams for o, i in zip(ours, idle, strict=True))
    figures = {
        "idle_mb": median(idle) / 1024,
        "kb_per_stream": each,
        "paced_cpu_us_per_event": median(map(cpu_us_per_event, ours)),
        "paced_added_p50_us": median(
            o.p50_us - d.p50_us for o, d in zip(ours, direct, strict=True)
        ),
        "paced_rate_to_direct": median_ratio(
            list(map(event_rate, ours)), list(map(event_rate, direct))
        ),
    }
    memory = Table(
        f"Resident memory, idle and with {plan.streams} open streams",
        ("", "idle MB", f"{plan.streams} streams MB", "kB/stream"),
        (
            _memory_row("cortexd", median(idle), each, plan),
            _memory_row("Hypercorn", hypercorn_idle, hypercorn_each, plan),
            ("ratio", times(median(idle) / hypercorn_idle), "", times(each / hypercorn_each)),
        ),
        ("Hypercorn: stock, one event sent, no neuron behind it.",),
    )
    return Section((_paced_table(ours, direct, figures, plan), memory), figures)


def event_rate(outcome: Outcome) -> float:
    """Events per second."""
    return outcome.chunks / outcome.seconds


def cpu_us_per_event(outcome: Outcome) -> float:
    """CPU microseconds of the watched process per event."""
    return outcome.cpu_seconds * 1e6 / outcome.chunks if outcome.chunks else 0


def _open_streams(stage: Stage, asked: Child, plan: Plan) -> Outcome:
    return stage.load(asked, "paced", connections=plan.streams, seconds=plan.paced_seconds)


def _memory_of_hypercorn(stage: Stage, plan: Plan) -> tuple[float, float]:
    """Idle, and for each open stream. Its own process, as nothing ever gives memory back."""
    with stage.fresh_hypercorn() as hypercorn:
        stage.load(hypercorn, "plain", connections=1, seconds=plan.seconds / 2)
        idle = observed.resident_kb(hypercorn.pid)
        opened = stage.load(hypercorn, "paced", connections=plan.streams, seconds=0.2)
    return idle, (opened.resident_kb - idle) / plan.streams


def _memory_row(name: str, idle_kb: float, each_kb: float, plan: Plan) -> tuple[str, ...]:
    full_kb = idle_kb + each_kb * plan.streams
    return name, number(idle_kb / 1024), number(full_kb / 1024), number(each_kb)


def _paced_table(
    ours: list[Outcome], direct: list[Outcome], figures: dict[str, float], plan: Plan
) -> Table:
    def row(name: str, outcomes: list[Outcome], cpu: str) -> tuple[str, ...]:
        return (
            name,
            number(median(map(event_rate, outcomes))),
            cpu,
            number(median(o.p50_us for o in outcomes) / 1000),
            number(median(o.p99_us for o in outcomes) / 1000),
        )

    return Table(
        f"{plan.streams} streams at once, {1 / PACED_SECONDS:.0f} events per second in each",
        ("", "events/s", "CPU us/event", "p50 ms", "p99 ms"),
        (
            row("cortexd", ours, number(figures["paced_cpu_us_per_event"])),
            row("direct", direct, ""),
            ("ratio", times(figures["paced_rate_to_direct"]), "", "", ""),
        ),
        ("Latency from the neuron's write to the client's read. No event was lost.",),
    )
