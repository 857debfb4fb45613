"""From starting a process to its listening line, beside stock Hypercorn alone."""

from tests.bench.plan import Plan
from tests.bench.report import Section, Table, median, median_ratio, number, times
from tests.bench.stage import Stage


def measure(stage: Stage, plan: Plan) -> Section:
    """The daemon opens its ledger and polls its neuron before it says that it listens."""
    ours: list[float] = []
    hypercorn: list[float] = []
    for _ in range(plan.starts):
        with stage.gateway() as gateway:
            ours.append(gateway.ready_seconds)
        with stage.fresh_hypercorn() as other:
            hypercorn.append(other.ready_seconds)
    ratio = median_ratio(ours, hypercorn)
    table = Table(
        "Start, until the process says that it listens",
        ("", "seconds"),
        (
            ("cortexd", number(median(ours))),
            ("Hypercorn", number(median(hypercorn))),
            ("ratio", times(ratio)),
        ),
    )
    return Section((table,), {"start_seconds": median(ours), "start_to_hypercorn": ratio})
