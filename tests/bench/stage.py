"""Everybody who takes part in the benchmark, each on its core.

The gateway and what it is compared with run on one core, the neuron and the load generator on
another. Refuses to know what is measured.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import yaml

from tests.bench import contenders
from tests.bench.child import (
    LOAD_CORES,
    ROOT,
    SERVER_CORES,
    BenchFailed,
    Child,
    module,
    started,
)
from tests.bench.constant_neuron import address
from tests.bench.odd_gateway import ACCOUNT, CAP
from tests.bench.traffic import KEY, USUAL_BYTES, Kind, Order, Outcome

MEMORY = Path("/dev/shm")
"""Where files are that no disk is behind."""

_HYPERCORN = module("tests.bench.constant_hypercorn")


class Setup(msgspec.Struct, frozen=True):
    """What is not as usual with a daemon.

    `ledger`: one to go on with, which is left as it is. `neurons`: how many of them, and `port`
    theirs (0: the one that is always there).
    """

    in_memory: bool = False
    sync_ms: int = 0
    more_keys: int = 0
    neurons: int = 1
    port: int = 0
    ledger: Path | None = None


class Stage:
    """Everybody who is there all the time, and the directory for what is written."""

    def __init__(
        self, directory: Path, running: contextlib.ExitStack, *, with_peers: bool = False
    ) -> None:
        """Starts the neuron, the load generator and stock Hypercorn; they end with `running`."""
        self.directory = directory
        self.with_peers = with_peers
        self._running = running
        self.neuron = self._start("neuron", module("tests.bench.constant_neuron"), LOAD_CORES)
        self.hypercorn = self._start("hypercorn", _HYPERCORN, SERVER_CORES)
        self._load = self._start("load", module("tests.bench.load"), LOAD_CORES)
        self._others: Mapping[str, Child] | None = None

    def _start(self, name: str, command: list[str], cores: list[int]) -> Child:
        return self._running.enter_context(started(command, cores, self.directory / f"{name}.log"))

    def others(self) -> Mapping[str, Child]:
        """Who else passes requests on to the neuron, by name; started when first asked for."""
        if self._others is None:
            self._others = self._running.enter_context(
                contenders.running(self.directory, self.neuron.port, with_peers=self.with_peers)
            )
        return self._others

    @contextlib.contextmanager
    def gateway(self, setup: Setup = Setup()) -> Iterator[Child]:  # noqa: B008  (it is frozen)
        """A fresh daemon before the neuron, with a key under a cap that nobody will reach."""
        place = MEMORY if setup.in_memory else self.directory
        with tempfile.TemporaryDirectory(dir=place) as name:
            directory = Path(name)
            config = _configured(directory, setup, setup.port or self.neuron.port)
            if setup.ledger is not None:
                _go_on_with(setup.ledger, directory / "ledger")
            with started(_command(config, setup), SERVER_CORES, directory / "log") as child:
                yield child

    @contextlib.contextmanager
    def neurons(self, count: int, models: int) -> Iterator[Child]:
        """So many neurons at one port, with so many models in each."""
        command = module("tests.bench.constant_neuron", str(count), str(models))
        with started(command, LOAD_CORES, self.directory / "neurons.log") as child:
            yield child

    @contextlib.contextmanager
    def fresh_hypercorn(self) -> Iterator[Child]:
        """Another constant Hypercorn that has answered nothing yet."""
        with started(_HYPERCORN, SERVER_CORES, self.directory / "hypercorn.log") as child:
            yield child

    def load(
        self,
        asked: Child,
        kind: Kind,
        *,
        connections: int,
        seconds: float,
        body_bytes: int = USUAL_BYTES,
    ) -> Outcome:
        """Have load put on one of them. Raises BenchFailed when an answer was not as it should."""
        order = Order(asked.port, kind, connections, seconds, asked.pid, body_bytes)
        outcome = self.attempt(order)
        if outcome.failures or outcome.gave_up:
            why = outcome.gave_up or f"{outcome.failures} failures"
            raise BenchFailed(f"{why} in {order}")
        return outcome

    def attempt(self, order: Order) -> Outcome:
        """Have load put on somebody who may fail."""
        return msgspec.json.decode(self._load.ask(msgspec.json.encode(order)), type=Outcome)


@contextlib.contextmanager
def stage(*, with_peers: bool = False) -> Iterator[Stage]:
    """Start everybody; all have ended when it is left.

    Files go to the checkout's own file system, as TMPDIR may be one without a disk behind it.
    """
    (ROOT / "build").mkdir(exist_ok=True)
    with contextlib.ExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(dir=ROOT / "build")))
        yield Stage(directory, running, with_peers=with_peers)


def _configured(directory: Path, setup: Setup, port: int) -> Path:
    config = {
        "neurons": [
            {"name": f"constant-{number}", "endpoint": f"http://{address(number)}:{port}"}
            for number in range(setup.neurons)
        ],
        "entitlements": {"keys": [{"key": KEY, "account_id": ACCOUNT, "hard_cap": CAP}]},
        "ledger": {"directory": str(directory / "ledger")},
    }
    path = directory / "cortexd.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def _command(config: Path, setup: Setup) -> list[str]:
    if setup.sync_ms or setup.more_keys:
        odd = ["--sync-ms", str(setup.sync_ms), "--more-keys", str(setup.more_keys)]
        return module("tests.bench.odd_gateway", str(config), *odd)
    ports = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    return module("cortexd", "serve", "--config", str(config), *ports)


def _go_on_with(ledger: Path, directory: Path) -> None:
    """A ledger of its own with the same past: what was written once is never written again."""
    directory.mkdir(mode=0o700)
    for path in ledger.iterdir():
        if path.name.startswith("seg-"):
            os.link(path, directory / path.name)
        else:
            shutil.copy2(path, directory / path.name)
