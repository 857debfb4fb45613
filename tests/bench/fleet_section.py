"""What a fleet's size costs: decisions in this process, and the list of models over a socket."""

import contextlib
import http.client
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import yaml

from tests.bench import fleet_bench, observed
from tests.bench.child import SERVER_CORES, BenchFailed, Child, module, started
from tests.bench.fleet_bench import Took
from tests.bench.ledger_section import pinned
from tests.bench.plan import Plan
from tests.bench.report import Section, Table, number, times
from tests.bench.stage import Stage
from tests.bench.traffic import KEY

_CALLS = 300

_ROWS = {
    "turn": "a request's turn at a loaded model: enter, choose, end",
    "limits": "the limits of a model, after news of them",
    "news": "news of one poll",
    "news_while_some_wait": "news of one poll, requests wait for 20 models",
    "cold": "the first request for a cold model: a load begins",
    "held": "the same, but all that would have to leave is in use",
    "listed": "the list of models, written out",
    "listed_after_news": "the same, after news of a poll",
}
_NOTES = (
    "Neurons x models of the catalogue; each neuron has up to four loaded. One thread, no socket;",
    "medians of those two that begin with a request for a cold model, of the others the fastest of",
    "twenty batches. `x`: times what the smallest fleet takes.",
)
_SOCKET_NOTES = (
    "Every neuron accepts connections and never answers. One connection at a time, kept alive.",
)


class Listed(msgspec.Struct, frozen=True):
    """What a path took on the wire."""

    path: str
    size: str
    p50_ms: float
    p99_ms: float
    cpu_us: float
    body_kb: float


def measure(stage: Stage, plan: Plan) -> Section:
    """Decisions on the core on which the gateway is measured, which is idle then."""
    with pinned():
        took = [fleet_bench.measure(*size, seconds=plan.seconds / 4) for size in plan.fleets]
    listed = [
        each
        for neurons, models in plan.fleets
        for each in _over_a_socket(stage, neurons, models, calls=_CALLS)
    ]
    largest = took[-1]
    figures = {f"fleet_{name}_us": getattr(largest, name) for name in _ROWS}
    figures |= {
        "fleet_turn_growth": largest.turn / took[0].turn,
        "fleet_held_share": largest.held_share,
        "black_holes_models_p50_ms": listed[-2].p50_ms,
        "black_holes_models_p99_ms": listed[-2].p99_ms,
    }
    return Section((_decisions(took), _socket_table(listed)), figures)


def _decisions(took: Sequence[Took]) -> Table:
    first = took[0]
    rows: list[tuple[str, ...]] = []
    for name, words in _ROWS.items():
        values = [getattr(each, name) for each in took]
        ratios = [times(value / getattr(first, name)) for value in values[1:]]
        rows.append((words, *map(number, values), *ratios))
    no_ratios = [""] * (len(took) - 1)
    shares = [f"{each.held_share:.2%}" for each in took]
    sizes_kb = [number(each.listed_bytes / 1e3) for each in took]
    rows.append(("forty models wait for cards in use: of a core", *shares, *no_ratios))
    rows.append(("the list of models, kB", *sizes_kb, *no_ratios))
    sizes = [each.size for each in took]
    columns = ("", *(f"{size} us" for size in sizes), *(f"{size} x" for size in sizes[1:]))
    return Table("What a fleet's size costs", columns, tuple(rows), _NOTES)


def _socket_table(listed: Sequence[Listed]) -> Table:
    rows = tuple(
        (
            f"GET {each.path}, {each.size}",
            number(each.p50_ms),
            number(each.p99_ms),
            number(each.cpu_us),
            number(each.body_kb),
        )
        for each in listed
    )
    return Table(
        "With every neuron a black hole",
        ("", "p50 ms", "p99 ms", "CPU us", "kB"),
        rows,
        _SOCKET_NOTES,
    )


def _over_a_socket(stage: Stage, neurons: int, models: int, *, calls: int) -> list[Listed]:
    with _black_holes(neurons) as urls, tempfile.TemporaryDirectory(dir=stage.directory) as place:
        command = _configured(Path(place), urls, models)
        with started(command, SERVER_CORES, Path(place) / "log") as gateway:
            size = f"{neurons}x{models}"
            return [_asked(gateway, path, size, calls) for path in ("/v1/models", "/health")]


def _asked(gateway: Child, path: str, size: str, calls: int) -> Listed:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    took_ms: list[float] = []
    body = b""
    with contextlib.closing(connection):
        cpu = observed.cpu_seconds(gateway.pid)
        for _ in range(calls):
            began = time.perf_counter()
            connection.request("GET", path, headers={"authorization": f"Bearer {KEY}"})
            answer = connection.getresponse()
            body = answer.read()
            took_ms.append((time.perf_counter() - began) * 1000)
            if answer.status != 200:
                raise BenchFailed(f"{path} was answered with {answer.status}")
        cpu = observed.cpu_seconds(gateway.pid) - cpu
    quantiles = statistics.quantiles(took_ms, n=100)
    return Listed(path, size, quantiles[49], quantiles[98], cpu / calls * 1e6, len(body) / 1e3)


@contextlib.contextmanager
def _black_holes(count: int) -> Iterator[list[str]]:
    """The kernel takes connections for them, and nobody ever reads one."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
            for _ in range(count)
        ]
        yield [f"http://127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def _configured(directory: Path, urls: Sequence[str], models: int) -> list[str]:
    entries = [{"id": f"org/model-{number}", "vram_mb": 9_000} for number in range(models)]
    catalogue = directory / "models.yaml"
    catalogue.write_text(yaml.safe_dump({"models": entries}))
    config = {
        "neurons": [{"name": f"hole-{n}", "endpoint": url} for n, url in enumerate(urls)],
        "entitlements": {"keys": [{"key": KEY, "account_id": "bench"}]},
        "ledger": {"directory": str(directory / "ledger")},
        "models_config": str(catalogue),
        "polling": {"interval_seconds": 0.5, "timeout_seconds": 0.5},
    }
    path = directory / "cortexd.yaml"
    path.write_text(yaml.safe_dump(config))
    ports = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    return module("cortexd", "serve", "--config", str(path), *ports)
