"""Plain chat requests through the whole path, beside everybody else who could stand there."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from tests.bench import contenders
from tests.bench.child import BenchFailed, Child
from tests.bench.contenders import NAIVE
from tests.bench.plan import Plan
from tests.bench.report import Section, Table, median, median_ratio, number, times
from tests.bench.stage import Setup, Stage
from tests.bench.traffic import Kind, Order, Outcome

Figure = Callable[[Outcome], float]
Rounds = dict[str, list[Outcome]]

OURS = "cortexd"
MEMORY = "cortexd, ledger in memory"
SLOW = "cortexd, sync +10 ms"
CONSTANT = "Hypercorn alone"
DIRECT = "direct"
SLOW_SYNC_MS = 10
_MUST_WORK = (OURS, MEMORY, SLOW, CONSTANT, DIRECT)

_NOTES = (
    "cortexd: key, bound, durable reservation, routing, neuron, settlement, metrics, log line.",
    "With the ledger in memory all of that but the disk; with a slow sync the disk is slower.",
    "Hypercorn alone: stock, on Trio, answering a constant; it asks no neuron. Hypercorn + httpx",
    "and nginx pass everything on and know no budget. One process and one core, the same for all.",
    "direct: straight to the neuron, which shares its core with the load in all rows; what comes",
    "near its rate is faster than this load can show, and only its CPU time tells.",
    "added: p50 beyond direct. ours: how many times theirs cortexd's rate and CPU time are; the",
    "median over rounds of the ratio within one round.",
)


@contextlib.contextmanager
def everybody(stage: Stage) -> Iterator[Mapping[str, Child]]:
    """All who are compared, ready to be asked; ours are fresh daemons."""
    with (
        stage.gateway() as usual,
        stage.gateway(Setup(in_memory=True)) as in_memory,
        stage.gateway(Setup(sync_ms=SLOW_SYNC_MS)) as slow,
    ):
        ours = {OURS: usual, MEMORY: in_memory, SLOW: slow, CONSTANT: stage.hypercorn}
        yield {**ours, **stage.others(), DIRECT: stage.neuron}


def measure(stage: Stage, plan: Plan) -> Section:
    """Requests per second, CPU time per request, and what each adds to the latency."""
    figures: dict[str, float] = {}
    tables: list[Table] = []
    costs: dict[int, float] = {}
    with everybody(stage) as asked:
        for connections in plan.connections:
            rounds = rounds_of(stage, asked, "plain", plan, connections=connections)
            figures |= _figures(connections, rounds)
            tables.append(_table(connections, rounds))
            costs[connections] = median(map(cpu_us, rounds[OURS]))
    if {16, 64} <= costs.keys():
        figures["cpu_growth_16_to_64"] = costs[64] / costs[16]
    if {16, 256} <= costs.keys():
        figures["cpu_growth_16_to_256"] = costs[256] / costs[16]
    notes = (*_NOTES, *contenders.absent(with_peers=stage.with_peers))
    last = tables.pop()
    return Section((*tables, Table(last.title, last.columns, last.rows, notes)), figures)


def rounds_of(
    stage: Stage, asked: Mapping[str, Child], kind: Kind, plan: Plan, *, connections: int
) -> Rounds:
    """Everybody once in each round; who gives up is not asked again.

    Raises BenchFailed where those of whom we answer for the numbers failed.
    """
    rounds: Rounds = {name: [] for name in asked}
    for _ in range(plan.rounds):
        for name, child in asked.items():
            if any(outcome.gave_up for outcome in rounds[name]):
                continue
            order = Order(child.port, kind, connections, plan.seconds, child.pid)
            outcome = stage.attempt(order)
            if name in _MUST_WORK and (outcome.gave_up or outcome.failures):
                raise BenchFailed(f"{name}: {outcome.gave_up or outcome.failures} in {order}")
            rounds[name].append(outcome)
    return rounds


def rate(outcome: Outcome) -> float:
    """Answers per second."""
    return outcome.answers / outcome.seconds if outcome.seconds else 0


def cpu_us(outcome: Outcome) -> float:
    """CPU microseconds of the watched process per answer."""
    return outcome.cpu_seconds * 1e6 / outcome.answers if outcome.answers else 0


def why_not(outcomes: list[Outcome]) -> str:
    """Why somebody has no numbers; empty if there are some."""
    return next((outcome.gave_up for outcome in outcomes if outcome.gave_up), "")


def ratio(rounds: Rounds, figure: Figure, other: str) -> float:
    """Ours to theirs."""
    return median_ratio(list(map(figure, rounds[OURS])), list(map(figure, rounds[other])))


def _figures(connections: int, rounds: Rounds) -> dict[str, float]:
    """Names of peers are cut at the version: `rate_to_nginx_16`."""
    of_ratio = partial(ratio, rounds)
    figures: dict[str, float] = {}
    for name in rounds:
        if name == OURS or why_not(rounds[name]):
            continue
        short = _SHORT.get(name, name.partition(" ")[0].lower())
        figures[f"rate_to_{short}_{connections}"] = of_ratio(rate, name)
        figures[f"cpu_to_{short}_{connections}"] = of_ratio(cpu_us, name)
    figures[f"added_p50_us_{connections}"] = _added_us(rounds, OURS)
    return {name: figure for name, figure in figures.items() if not math.isnan(figure)}


_SHORT = {CONSTANT: "hypercorn", NAIVE: "naive", MEMORY: "memory", SLOW: "slow"}


def _added_us(rounds: Rounds, name: str) -> float:
    pairs = zip(rounds[name], rounds[DIRECT], strict=True)
    return median(theirs.p50_us - direct.p50_us for theirs, direct in pairs)


def _table(connections: int, rounds: Rounds) -> Table:
    rows = tuple(_row(name, rounds) for name in rounds)
    columns = ("", "per second", "CPU us", "p50 ms", "p99 ms", "added ms", "ours: rate", "CPU")
    s = "" if connections == 1 else "s"
    return Table(f"Plain chat requests, {connections} connection{s}", columns, rows)


def _row(name: str, rounds: Rounds) -> tuple[str, ...]:
    outcomes = rounds[name]
    if why := why_not(outcomes):
        return (f"{name}: {why}", *[""] * 7)
    failures = sum(outcome.failures for outcome in outcomes)
    alone = name == OURS
    return (
        f"{name}, {failures} failed" if failures else name,
        number(median(map(rate, outcomes))),
        number(median(map(cpu_us, outcomes))),
        number(median(outcome.p50_us for outcome in outcomes) / 1000),
        number(median(outcome.p99_us for outcome in outcomes) / 1000),
        "" if name in (DIRECT, CONSTANT) else number(_added_us(rounds, name) / 1000),
        "" if alone else times(ratio(rounds, rate, name)),
        "" if alone else times(ratio(rounds, cpu_us, name)),
    )
