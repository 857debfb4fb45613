"""The processes that take part in the benchmark: started, pinned, given orders, ended.

Owns processes and cores: the gateway and what it is compared with run on one core, the neuron and
the load generator on another. Refuses to know what is measured.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import yaml

from tests.bench import observed
from tests.bench.traffic import KEY, Kind, Order, Outcome

ROOT = Path(__file__).resolve().parents[2]
END_SECONDS = 10
LOG_SHOWN = 2000
HYPERCORN = ("tests.bench.constant_hypercorn",)

_cores = observed.cores()
SERVER_CORES = _cores[:1]
LOAD_CORES = _cores[1:2] or _cores[:1]


class BenchFailed(Exception):
    """Something that was measured did not work, so that its numbers would mean nothing."""


class Child:
    """One process. `port` is from its first line, `listening NAME http://HOST:PORT`."""

    def __init__(self, command: Sequence[str], cores: Sequence[int], log: Path) -> None:
        """Start it and wait for that line; `ready_seconds` tells how long it took.

        Raises BenchFailed, with the end of what it wrote to `log`, when it ends before.
        """
        self._command = " ".join(command[:2])
        self._log = log
        began = time.monotonic()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
        self.pid = self._process.pid
        try:
            first = self._line()
        except BenchFailed:
            self.end()
            raise
        self.ready_seconds = time.monotonic() - began
        port = first.rpartition(":")[2]
        self.port = int(port) if port.isdigit() else 0

    def ask(self, line: bytes) -> bytes:
        """Write a line to its input, read one from its output."""
        assert self._process.stdin is not None, "it was started with a pipe"
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()
        return self._line().encode()

    def _line(self) -> str:
        assert self._process.stdout is not None, "it was started with a pipe"
        line = self._process.stdout.readline().decode().strip()
        if not line:
            last = self._log.read_text()[-LOG_SHOWN:].strip()
            raise BenchFailed(f"{self._command} ended unexpectedly:\n{last}")
        return line

    def end(self) -> None:
        """Ask it to end, and kill it if it does not."""
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def started(command: Sequence[str], cores: Sequence[int], log: Path) -> Iterator[Child]:
    """A child that has ended when this is left."""
    child = Child(command, cores, log)
    try:
        yield child
    finally:
        child.end()


class Stage:
    """Everybody who is there all the time, and the directory for what is written."""

    def __init__(self, directory: Path, neuron: Child, hypercorn: Child, load: Child) -> None:
        self.directory = directory
        self.neuron = neuron
        self.hypercorn = hypercorn
        self._load = load

    @contextlib.contextmanager
    def gateway(self) -> Iterator[Child]:
        """A fresh daemon before the neuron, with a key under a cap that nobody will reach."""
        with tempfile.TemporaryDirectory(dir=self.directory) as directory:
            command = _configured(Path(directory), neuron_port=self.neuron.port)
            with started(command, SERVER_CORES, Path(directory) / "log") as child:
                yield child

    @contextlib.contextmanager
    def fresh_hypercorn(self) -> Iterator[Child]:
        """Another constant Hypercorn that has answered nothing yet."""
        with started(HYPERCORN, SERVER_CORES, self.directory / "hypercorn.log") as child:
            yield child

    def load(self, asked: Child, kind: Kind, *, connections: int, seconds: float) -> Outcome:
        """Have load put on one of them. Raises BenchFailed when an answer was not as it should."""
        order = Order(asked.port, kind, connections, seconds, watched_pid=asked.pid)
        outcome = msgspec.json.decode(self._load.ask(msgspec.json.encode(order)), type=Outcome)
        if outcome.failures:
            raise BenchFailed(f"{outcome.failures} failures in {order}")
        return outcome


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Start everybody; all have ended when it is left.

    Files go to the checkout's own file system, as TMPDIR may be one without a disk behind it.
    """
    (ROOT / "build").mkdir(exist_ok=True)
    with contextlib.ExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(dir=ROOT / "build")))

        def start(command: Sequence[str], cores: Sequence[int]) -> Child:
            return running.enter_context(started(command, cores, directory / f"{command[0]}.log"))

        yield Stage(
            directory,
            start(("tests.bench.constant_neuron",), LOAD_CORES),
            start(HYPERCORN, SERVER_CORES),
            start(("tests.bench.load",), LOAD_CORES),
        )


def _configured(directory: Path, *, neuron_port: int) -> list[str]:
    config = {
        "neurons": [{"name": "constant", "endpoint": f"http://127.0.0.1:{neuron_port}"}],
        "entitlements": {"keys": [{"key": KEY, "account_id": "bench", "hard_cap": 10**15}]},
        "ledger": {"directory": str(directory / "ledger")},
    }
    path = directory / "cortexd.yaml"
    path.write_text(yaml.safe_dump(config))
    ports = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    return ["cortexd", "serve", "--config", str(path), *ports]
