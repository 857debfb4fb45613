"""A simulated neuron as a process that can be killed, frozen, and brought back where it was."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import httpx
import trio

from cortexd.demo.counters import ServedTokens, read_served_log
from tests.support.daemon_process import PATIENCE_SECONDS, ROOT


class MortalNeuron:
    """One neuron, over all its lives; `url` stays the same from the first one on."""

    def __init__(self, options: Sequence[str], served_log: Path) -> None:
        self._options = [*options, "--served-log", str(served_log)]
        self._served_log = served_log
        self._process: trio.Process | None = None
        self.url = ""

    async def live(self) -> None:
        """Start it, as empty as it was at first, and return once it accepts."""
        port = self.url.rpartition(":")[2] or "0"
        command = [sys.executable, "-m", "tests.support.neuron_process", "--port", port]
        process: trio.Process = await trio.lowlevel.open_process(
            [*command, *self._options], stdout=subprocess.PIPE, cwd=ROOT
        )
        self._process = process
        assert process.stdout is not None
        with trio.fail_after(PATIENCE_SECONDS):
            line = await process.stdout.receive_some()
        assert line, "the neuron ended before it listened"
        self.url = line.decode().split()[2]

    async def die(self) -> None:
        """kill -9, and wait until it is gone."""
        process, self._process = self._process, None
        assert process is not None, "it is alive"
        process.kill()
        with trio.CancelScope(shield=True):  # a killed process ends at once
            await process.wait()
        assert process.stdout is not None
        await process.stdout.aclose()

    def freeze(self) -> None:
        """From now on it answers nothing, and keeps its connections."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on where it was."""
        self._signal(signal.SIGCONT)

    async def wait_for_load(self, model: str) -> None:
        """Return once it is loading the model."""
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            with trio.fail_after(PATIENCE_SECONDS):
                while (await _activation(client))["in_progress"] != model:
                    pass

    def served(self) -> Mapping[str, ServedTokens]:
        """Key id -> tokens that it really served, in all its lives."""
        return read_served_log(str(self._served_log)) if self._served_log.exists() else {}

    async def end(self) -> None:
        """Kill it if it lives."""
        if self._process is not None:
            await self.die()

    def _signal(self, number: int) -> None:
        assert self._process is not None, "it is alive"
        self._process.send_signal(number)


async def _activation(client: httpx.AsyncClient) -> Mapping[str, object]:
    found: Mapping[str, object] = (await client.get("/health")).json()["activation"]
    return found


@contextlib.asynccontextmanager
async def mortal_neuron(directory: Path, name: str, *options: str) -> AsyncIterator[MortalNeuron]:
    """A living one with these options of neuron_process.py; it has ended when this is left."""
    neuron = MortalNeuron(["--name", name, *options], directory / f"served-by-{name}")
    try:
        await neuron.live()
        yield neuron
    finally:
        await neuron.end()
