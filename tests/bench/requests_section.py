"""Plain chat requests through the whole path, beside stock Hypercorn and the neuron alone."""

from collections.abc import Callable, Sequence

from tests.bench.plan import Plan
from tests.bench.report import Section, Table, median, median_ratio, number, times
from tests.bench.stage import Child, Stage
from tests.bench.traffic import Outcome

Figure = Callable[[Outcome], float]
Rounds = dict[str, list[Outcome]]

_NOTES = (
    "cortexd: key, bound, durable reservation, routing, neuron, settlement, metrics, log line.",
    "Hypercorn: stock, on Trio, answering a constant of the same size; it asks no neuron.",
    "direct: the same request straight to the neuron, which shares its core with the load.",
    "Ratios are medians over rounds of the ratio within one round.",
)


def measure(stage: Stage, gateway: Child, plan: Plan) -> Section:
    """Requests per second, CPU time per request, and what cortexd adds to the latency."""
    everybody = {"cortexd": gateway, "hypercorn": stage.hypercorn, "direct": stage.neuron}
    for asked in everybody.values():
        stage.load(asked, "plain", connections=max(plan.connections), seconds=plan.seconds / 2)
    measured: dict[int, Rounds] = {n: {name: [] for name in everybody} for n in plan.connections}
    for _ in range(plan.rounds):
        for connections, rounds in measured.items():
            for name, asked in everybody.items():
                rounds[name].append(
                    stage.load(asked, "plain", connections=connections, seconds=plan.seconds)
                )
    figures: dict[str, float] = {}
    for connections, rounds in measured.items():
        figures |= _ratios(connections, rounds)
    tables = [_throughput(measured, figures)]
    if 1 in measured:
        added = _added_latency(measured[1])
        figures["added_p50_us"] = added[0]
        tables.append(_latency_table(measured[1], added))
    if {16, 64} <= measured.keys():
        costs = [median(map(cpu_us, measured[n]["cortexd"])) for n in (16, 64)]
        figures["cpu_growth_16_to_64"] = costs[1] / costs[0]
    return Section(tuple(tables), figures)


def rate(outcome: Outcome) -> float:
    """Answers per second."""
    return outcome.answers / outcome.seconds


def cpu_us(outcome: Outcome) -> float:
    """CPU microseconds of the watched process per answer."""
    return outcome.cpu_seconds * 1e6 / outcome.answers if outcome.answers else 0


def _ratios(connections: int, rounds: Rounds) -> dict[str, float]:
    def ratio(figure: Figure, other: str) -> float:
        ours, theirs = (list(map(figure, rounds[name])) for name in ("cortexd", other))
        return median_ratio(ours, theirs)

    return {
        f"rate_to_hypercorn_{connections}": ratio(rate, "hypercorn"),
        f"cpu_to_hypercorn_{connections}": ratio(cpu_us, "hypercorn"),
        f"rate_to_direct_{connections}": ratio(rate, "direct"),
    }


def _throughput(measured: dict[int, Rounds], figures: dict[str, float]) -> Table:
    rows: list[tuple[str, ...]] = []
    for connections, rounds in measured.items():
        ours, hypercorn, direct = (rounds[n] for n in ("cortexd", "hypercorn", "direct"))
        rows.append(
            (
                str(connections),
                number(median(map(rate, ours))),
                number(median(map(cpu_us, ours))),
                number(median(map(rate, hypercorn))),
                number(median(map(cpu_us, hypercorn))),
                number(median(map(rate, direct))),
                times(figures[f"rate_to_hypercorn_{connections}"]),
                times(figures[f"cpu_to_hypercorn_{connections}"]),
                times(figures[f"rate_to_direct_{connections}"]),
            )
        )
    return Table(
        "Plain chat requests",
        (
            "connections",
            "cortexd/s",
            "CPU us",
            "Hypercorn/s",
            "CPU us",
            "direct/s",
            "rate:Hypercorn",
            "CPU:Hypercorn",
            "rate:direct",
        ),
        tuple(rows),
        _NOTES,
    )


def _added_latency(rounds: Rounds) -> tuple[float, float]:
    def added(figure: Figure) -> float:
        pairs = zip(rounds["cortexd"], rounds["direct"], strict=True)
        return median(figure(ours) - figure(direct) for ours, direct in pairs)

    return added(lambda outcome: outcome.p50_us), added(lambda outcome: outcome.p99_us)


def _latency_table(rounds: Rounds, added: Sequence[float]) -> Table:
    rows: list[tuple[str, ...]] = [
        (
            name,
            number(median(outcome.p50_us for outcome in rounds[name]) / 1000),
            number(median(outcome.p99_us for outcome in rounds[name]) / 1000),
        )
        for name in ("cortexd", "direct")
    ]
    rows.append(("added", *(number(us / 1000) for us in added)))
    return Table(
        "Latency at 1 connection",
        ("", "p50 ms", "p99 ms"),
        tuple(rows),
        ("A reservation waits for one fdatasync; the section on the ledger has its price.",),
    )
