"""What a request costs when more stands behind it: keys, neurons, models, bytes, history."""

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from tests.bench import books, observed
from tests.bench.child import ROOT, Child
from tests.bench.plan import Plan
from tests.bench.report import Section, Table, median, number, times
from tests.bench.requests_section import cpu_us, rate
from tests.bench.stage import Setup, Stage
from tests.bench.traffic import USUAL_BYTES, Outcome

_CONNECTIONS = 16
_KEPT = ROOT / "build" / "bench-ledgers"

_NOTES = (
    f"{_CONNECTIONS} connections. CPU us: without what the daemon uses when nobody asks, which is",
    "idle, in ms of CPU time for each second. x: CPU time, times that of the first of its kind.",
    "Keys: each under a cap of its own; a configuration file has room for some thousands, the rest",
    "was put in behind it. Neurons: each has the model, and the choice looks at all of them.",
    "Bytes: the only thing that costs by its size; they are read, decoded once, and sent again.",
    "Entries: already in the ledger before the start, spread over a day.",
)


class _Case(msgspec.Struct, frozen=True):
    """One row: who is asked with how many bytes."""

    name: str
    gateway: Callable[[], AbstractContextManager[Child]]
    body_bytes: int = USUAL_BYTES


class _Measured(msgspec.Struct, frozen=True):
    ready_seconds: float
    idle_mb: float
    idle_share: float
    outcomes: Sequence[Outcome]

    def cpu_us(self) -> float:
        """For one request, beyond what would have been used anyhow."""
        return median(
            cpu_us(each) - self.idle_share * each.seconds * 1e6 / max(1, each.answers)
            for each in self.outcomes
        )


def measure(stage: Stage, plan: Plan) -> Section:
    """Each series: all of it is there at the same time, and asked in turn."""
    series = {
        "keys": [_keys(stage, count) for count in plan.keys],
        "neurons": [_neurons(stage, count, 1) for count in plan.neurons],
        "models": [_neurons(stage, 1, count) for count in plan.models],
        "bytes": [_bytes(stage, count) for count in plan.bodies],
        "entries": [_entries(stage, count) for count in plan.ledgers],
    }
    figures: dict[str, float] = {}
    rows: list[tuple[str, ...]] = []
    for name, cases in series.items():
        measured = _measured(stage, cases, plan)
        first = measured[0].cpu_us()
        figures[f"growth_{name}"] = measured[-1].cpu_us() / first
        rows += [_row(case, each, first) for case, each in zip(cases, measured, strict=True)]
    columns = ("", "per second", "CPU us", "x", "idle ms/s", "idle MB", "start s")
    return Section((Table("What grows behind a request", columns, tuple(rows), _NOTES),), figures)


def _measured(stage: Stage, cases: Sequence[_Case], plan: Plan) -> list[_Measured]:
    with contextlib.ExitStack() as running:
        gateways = [running.enter_context(case.gateway()) for case in cases]
        for case, gateway in zip(cases, gateways, strict=True):
            _ask(stage, gateway, case, plan.seconds)
        idle = [_idle(gateway, plan.seconds) for gateway in gateways]
        outcomes: list[list[Outcome]] = [[] for _ in cases]
        for _ in range(plan.rounds):
            for case, gateway, of_case in zip(cases, gateways, outcomes, strict=True):
                of_case.append(_ask(stage, gateway, case, plan.seconds))
    return [
        _Measured(gateway.ready_seconds, idle_mb, share, of_case)
        for gateway, (idle_mb, share), of_case in zip(gateways, idle, outcomes, strict=True)
    ]


def _ask(stage: Stage, gateway: Child, case: _Case, seconds: float) -> Outcome:
    return stage.load(
        gateway,
        "plain",
        connections=_CONNECTIONS,
        seconds=seconds,
        body_bytes=case.body_bytes,
    )


def _idle(gateway: Child, seconds: float) -> tuple[float, float]:
    """Memory in MB, and the share of a core that is used while nobody asks."""
    before = observed.cpu_seconds(gateway.pid)
    threading.Event().wait(2 * seconds)
    share = (observed.cpu_seconds(gateway.pid) - before) / (2 * seconds)
    return observed.resident_kb(gateway.pid) / 1024, share


def _row(case: _Case, measured: _Measured, first_us: float) -> tuple[str, ...]:
    return (
        case.name,
        number(median(map(rate, measured.outcomes))),
        number(measured.cpu_us()),
        times(measured.cpu_us() / first_us),
        number(measured.idle_share * 1000),
        number(measured.idle_mb),
        number(measured.ready_seconds),
    )


def _keys(stage: Stage, count: int) -> _Case:
    return _Case(f"{count:,} keys", lambda: stage.gateway(Setup(more_keys=count - 1)))


def _neurons(stage: Stage, neurons: int, models: int) -> _Case:
    @contextlib.contextmanager
    def gateway() -> Iterator[Child]:
        with (
            stage.neurons(neurons, models) as asked,
            stage.gateway(Setup(neurons=neurons, port=asked.port)) as child,
        ):
            yield child

    name = f"{models} models" if models > 1 else f"{neurons} neurons"
    return _Case(name if neurons + models > 2 else "1 neuron, 1 model", gateway)


def _bytes(stage: Stage, count: int) -> _Case:
    return _Case(f"{count:,} bytes asked", stage.gateway, count)


def _entries(stage: Stage, count: int) -> _Case:
    return _Case(f"{count:,} entries", lambda: stage.gateway(Setup(ledger=_ledger_of(count))))


def _ledger_of(entries: int) -> Path:
    """Written once and kept: ten million take minutes. Whole or not there at all."""
    kept = _KEPT / str(entries)
    if not kept.is_dir():
        _KEPT.mkdir(parents=True, exist_ok=True)
        unfinished = _KEPT / f"{entries}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        books.write(str(unfinished), entries)
        unfinished.rename(kept)
    return kept
